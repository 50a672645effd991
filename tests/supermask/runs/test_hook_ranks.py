"""Hooks and validation in two processes of one run."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supermask.runs.hook import Hook, Now
from supermask.runs.options import RunResult
from supermask.runs.read import read_run
from supermask.runs.records import Epoch
from supermask.runs.validation import Validation
from tests.ranks import free_port, meet, on_ranks
from tests.supermask.runs.small_runs import BASE, Killed, placed
from tests.supermask.runs.some_hooks import Diary
from tests.supermask.runs.test_validation import Held


class Alone(Hook):
    """Called in the first process; writes down which that is."""

    changes_training = False
    first_only = True

    def __init__(self) -> None:
        self.ranks: list[int] = []

    def end_epoch(self, now: Now, record: Epoch) -> None:
        self.ranks.append(now.rank)


class Ranks(Hook):
    """Called everywhere; ends the run in the second cycle, once."""

    changes_training = False

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.ranks: set[int] = set()

    def after_step(self, now: Now) -> None:
        self.ranks.add(now.rank)
        if now.step == self.at:
            raise Killed

    def end(self, result: RunResult) -> None:
        self.ranks.add(-len(result.cycles))


def _rank(rank: int, port: int, at: int | None, folder: str) -> None:
    meet(rank, port)
    diary, alone, ranks = Diary(), Alone(), Ranks(at)
    recipe = replace(BASE, data=Held(), validation=Validation(pick="best"), hooks=(diary, alone, ranks))
    with pytest.raises(Killed) if at else nullcontext():
        placed(recipe, Path(folder) / "run", resume=not at).execute()
    found = {"calls": diary.calls, "alone": alone.ranks, "ranks": sorted(ranks.ranks), "closed": diary.closed}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


def test_all_call_them_one_has_its_own_and_state_is_the_first_ones(tmp_path: Path) -> None:
    def both() -> list[dict[str, Any]]:
        return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]

    on_ranks(_rank, free_port(), 8, str(tmp_path))
    assert [found["alone"] for found in both()] == [[0, 0], []]
    on_ranks(_rank, free_port(), None, str(tmp_path))
    first, second = both()
    assert (first["ranks"], second["ranks"]) == ([-2, 0], [-2, 1])
    assert (first["alone"], second["alone"]) == ([0, 0], []), "of the second cycle"
    assert (first["closed"], second["closed"]) == (1, 1)
    resumed = first["calls"].index("begin base 6")
    assert second["calls"][:resumed] == first["calls"][:resumed], "of the first process, lines of the metrics too"
    assert second["calls"][resumed:] == [call for call in first["calls"][resumed:] if not call.startswith("log")]
    assert first["calls"].count("epoch 3") == 1
    found = [epoch.validation for epoch in read_run(tmp_path / "run").epochs]
    assert all(one is not None and round(30 * one) == pytest.approx(30 * one) for one in found), "of all 30 images"
