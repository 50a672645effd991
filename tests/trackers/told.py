"""What a tracker should have been told of a run, and runs that were killed on the way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from supermask.runs.hook import Hook, Now
from supermask.runs.options import RunResult
from supermask.runs.read import read_metrics
from tests.supermask.runs.small_runs import BASE, Killed, placed

Told = list[tuple[int, str, float]]
"""Step, name and number."""
KILLED = [(), (8,), (17, 13), (0,)]
"""After which steps a run ends before it goes on. Only ends of stages are saved, so that epochs are told again."""


class Stop(Hook):
    """Ends the run after a step, as if it had been killed."""

    changes_training = False

    def __init__(self, at: int) -> None:
        self.at = at

    def after_step(self, now: Now) -> None:
        if now.step == self.at:
            raise Killed


def run(folder: Path, hook: Callable[[], Hook], killed: Sequence[int] = ()) -> RunResult:
    """A run with the hook, each time a new one, killed after those steps and gone on with."""
    for number, at in enumerate(killed):
        with pytest.raises(Killed):
            placed(replace(BASE, hooks=(hook(), Stop(at))), folder, resume=number > 0).execute()
    return placed(replace(BASE, hooks=(hook(),)), folder, resume=bool(killed)).execute()


def expected(folder: Path) -> Told:
    """Each number of the metrics once, at its step."""
    step, found = 0, []
    for event in read_metrics(folder):
        step = event.get("step", step)
        names = [name for name, value in event.items() if isinstance(value, int | float)]
        found += [
            (step, f"{event['event']}/{name}", float(event[name]))
            for name in names
            if name not in ("step", "epoch", "cycle")
        ]
    return sorted(found)
