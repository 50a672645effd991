"""What a run shows while it goes on: where it is, and what is left of the cycle and of the run."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from supermask.runs import run as runs
from supermask.runs.options import RunOptions
from supermask.runs.progress import RunProgress
from supermask.runs.records import Epoch
from supermask.training.loop import Duration
from tests.devices import DEVICE
from tests.supermask.runs.small_runs import BASE, Killed, a_save_every, placed, watched

EPOCH = Epoch(cycle=12, epoch=1, step=1, lr=0.1, loss=123.456, train_accuracy=1.0, remaining=0.5, dying=1.0)


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(progress: RunProgress, console: Console) -> list[str]:
    """The lines that it draws at this moment."""
    with console.capture() as drawn:
        console.print(*progress._bar.get_renderables(), sep="\n")
    return [line.rstrip() for line in drawn.get().splitlines() if line.strip()]


@pytest.fixture
def console() -> Console:
    return Console(width=80, file=io.StringIO(), force_terminal=True, no_color=True, highlight=False)


def test_what_is_left_is_said_of_the_cycle_and_of_the_run(console: Console) -> None:
    clock = Clock()
    progress = RunProgress(400, 3, console, [100, 100, 200], clock)
    assert "cycle 1/3" in shown(progress, console)[0]
    assert "left -:--:-- of the cycle, -:--:-- of the run" in shown(progress, console)[0]
    for _ in range(120):
        clock.now += 2
        progress.advance()
    (line,) = shown(progress, console)
    assert line.startswith("cycle 2/3 ")
    assert line.endswith(" left 0:02:40 of the cycle, 0:09:20 of the run")


def test_the_longest_lines_fit_a_terminal(console: Console) -> None:
    clock = Clock()
    progress = RunProgress(10_000_000, 100, console, clock=clock)
    progress.skip(9_000_000)
    for _ in range(3):
        clock.now += 9
        progress.advance()
    progress.show(EPOCH, Duration(seconds=1.0, data_wait=1.0))
    first, second = shown(progress, console)
    assert re.search(r"left 249:\d\d:\d\d of the cycle, 2499:59:\d\d of the run$", first)
    assert second == "loss 123.456 acc 100.0% remaining 50.0% dying 100.0% waiting 100%"


def test_a_resumed_run_says_where_it_is(console: Console) -> None:
    for done, said in ((0, "cycle 1/2"), (9, "cycle 1/2"), (10, "cycle 1/2"), (11, "cycle 2/2"), (30, "cycle 2/2")):
        progress = RunProgress(30, 2, console, [10, 20])
        progress.skip(done)
        assert shown(progress, console)[0].startswith(said)
    assert shown(progress, console)[0].endswith("left 0:00:00 of the cycle, 0:00:00 of the run")


def test_a_run_of_nothing_but_an_evaluation_shows_something(console: Console) -> None:
    assert "of the run" in shown(RunProgress(0, 0, console, []), console)[0]


def test_a_run_whose_training_is_done_does_not_say_its_first_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched() as whole, a_save_every(1):
        placed(BASE, tmp_path / "whole", checkpoint_seconds=1).execute()
    last = len(whole.names) - whole.names[::-1].index("before supermask.runs.measured.right_of")
    with watched(last), a_save_every(1), pytest.raises(Killed):
        placed(BASE, tmp_path / "run", checkpoint_seconds=1).execute()
    drawn = Console(width=80, file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(runs, "Console", lambda quiet: drawn)
    replace(BASE, run=RunOptions(folder=tmp_path / "run", device=str(DEVICE), resume=True)).execute()
    assert isinstance(drawn.file, io.StringIO)
    assert "cycle 2/2" in (said := drawn.file.getvalue())
    assert "cycle 1/2" not in said
