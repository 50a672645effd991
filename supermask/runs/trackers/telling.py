"""What trackers share: numbers and settings by name, and what was told already."""

import json
from collections import deque
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from supermask.files import write_whole
from supermask.runs.hook import Begun, Hook
from supermask.runs.identity import flat
from supermask.runs.options import RecipeError, RunResult


class Tracker(Hook):
    """A hook that tells `tell` each event of a run once, in order, in the first process.

    A run that goes on tells nothing that was told before, since what it does again has the same numbers. What raises
    beside `begin` ends no run: what was not told then is told at the next event, at the end or by a later --resume.
    """

    changes_training = False
    first_only = True

    def __init__(self) -> None:
        self._at = self._step = self._told = 0
        self._left: deque[tuple[dict[str, float], int, int]] = deque()

    def go_on(self, run: Begun, told: int) -> None:
        """From where `told` events of the run were told."""
        self._at, self._step, self._told = 0, 0, told
        self._left.clear()
        for event in run.events:
            self._note(event)
        self._tell_rest()

    def log(self, event: Mapping[str, Any]) -> None:
        self._note(event)
        self._tell_rest()

    def end(self, result: RunResult) -> None:
        self._tell_rest()

    def _note(self, event: Mapping[str, Any]) -> None:
        self._step = event.get("step", self._step)  # one without a step is at the last that had it
        self._at += 1
        if self._at > self._told:
            self._left.append((numbers(event), self._step, self._at))

    def _tell_rest(self) -> None:
        """An event that is not told stays, with those after it."""
        while self._left:
            found, step, number = self._left[0]
            self.tell(found, step=step, number=number)
            self._left.popleft()

    def tell(self, found: Mapping[str, float], *, step: int, number: int) -> None:
        """The numbers of event `number`, from 1, at a training step."""
        raise NotImplementedError


def numbers(event: Mapping[str, Any]) -> dict[str, float]:
    """Each number of an event as EVENT/NAME."""
    found = dict(event)
    for group in ("measures", "measures_recalibrated"):
        found |= {f"{group}/{name}": value for name, value in event.get(group, {}).items()}
    return {
        f"{event['event']}/{name}": value
        for name, value in found.items()
        if isinstance(value, int | float) and name not in ("step", "epoch", "cycle")
    }


def settings_of(run: Begun) -> dict[str, Any]:
    """All settings of a run by dotted name; lists are whole."""
    return {name: value for name, value in flat(run.settings, lists=False) if not name.startswith("run.")} | {
        "run.seed": run.seed
    }


def tickets_of(result: RunResult) -> list[Path]:
    """Where the tickets of a run lie."""
    return [result.folder / ticket.file for ticket in result.tickets] if result.folder else []


def imported(name: str, install: str) -> Any:
    """A package that need not be installed.

    Raises:
        RecipeError: it is not.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise RecipeError(f"{name.partition('.')[0]} is not installed: {install}") from error


def remembered(file: Path) -> dict[str, Any] | None:
    """What `remember` wrote; None where it did not."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remember(file: Path, **what: Any) -> None:
    """Write it into the run folder, whole or not at all."""
    write_whole(file, f"{json.dumps(what)}\n".encode())
