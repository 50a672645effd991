"""Runs that were killed and resumed end as if they had not been: every byte of metrics, masks and ticket, every score."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from tests.supermask.small_runs import CASES, Killed, a_save_every, left_by, placed, same, watched


@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_and_resumed_it_ends_the_same(case: str, tmp_path: Path) -> None:
    recipe, draw = CASES[case], random.Random(case)
    with watched() as whole, a_save_every(3):
        result = placed(recipe, tmp_path / "whole", checkpoint_seconds=3).execute()
    expected = left_by(tmp_path / "whole")
    for number, kills in enumerate((1, 1, 2, 4)):
        folder = tmp_path / f"{number}"
        for kill in range(kills):
            # Moments of later kills are drawn near: what is left to do has fewer.
            moment = draw.randrange(1, whole.passed if kill == 0 else whole.passed // 4)
            with watched(moment), a_save_every(3), suppress(Killed):
                placed(recipe, folder, checkpoint_seconds=3, resume=kill > 0).execute()
        resumed = placed(recipe, folder, resume=True).execute()
        assert same(left_by(folder), expected), number
        assert resumed.cycles == result.cycles
