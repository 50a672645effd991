"""A setting picked over runs by what they have on held-out images, so that test accuracy is reported of it alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supermask.checks import SupermaskError
from supermask.runs.identity import differences, flat
from supermask.runs.read import RunRecord, mean_and_error
from supermask.runs.spelled import spelled_out


class PickError(SupermaskError, ValueError):
    """Runs that nothing can be picked over; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """What was best.

    Attributes:
        by: the setting, by its dotted name in config.json.
        value: of it, the first of equals.
        runs: with that value, one a seed.
        held_out: by value, in the order of the runs, mean and standard error over seeds of the accuracy on held-out
            images after the last cycle.
    """

    by: str
    value: Any
    runs: tuple[RunRecord, ...]
    held_out: Mapping[Any, tuple[float, float]]

    @property
    def accuracy(self) -> tuple[float, float]:
        """Mean and standard error of the test accuracy after the last cycle, of what was picked.

        Raises:
            PickError: these runs were not tested.
        """
        found = [run.cycles[-1].accuracy for run in self.runs]
        tested = [one for one in found if one is not None]
        if len(tested) < len(found) or self.runs[0].config["data"].get("evaluate") == "held_out":
            raise PickError(f"{self.runs[0].path} was not evaluated on the test set: give stages an Evaluate after it")
        return mean_and_error(tested)

    def __str__(self) -> str:
        others = ", ".join(f"{value}: {mean:.1%}" for value, (mean, _) in self.held_out.items())
        return f"{self.by} {self.value}, by accuracy on held-out images over {len(self.runs)} seeds ({others})"


def pick(runs: Sequence[RunRecord], by: str) -> Picked:
    """Of runs that differ in one setting and their seeds, the value of the highest mean accuracy on held-out images.

    Args:
        by: the setting, by its dotted name in config.json: "training.lr".

    Raises:
        PickError: they differ in more, have other seeds for one value than for another, did not end, or were not
            validated.
    """
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs:
        _check(run, runs[0], by)
        groups.setdefault(dict(flat(spelled_out(run.config)))[by], []).append(run)
    if not groups:
        raise PickError("no runs to pick over: name at least one")
    seeds = {value: sorted(run.seed for run in found) for value, found in groups.items()}
    first, *others = seeds
    for value in others:
        if seeds[value] != seeds[first]:
            raise PickError(
                f"{by}={first!r} has the seeds {seeds[first]} and {value!r} has {seeds[value]}: run the same for each"
            )
    if len(set(seeds[first])) < len(seeds[first]):
        raise PickError(f"{by}={first!r} has the seeds {seeds[first]}: give each run once")
    held_out = {value: mean_and_error([_validation(run) for run in found]) for value, found in groups.items()}
    best = max(held_out, key=lambda value: held_out[value][0])
    return Picked(by=by, value=best, runs=tuple(groups[best]), held_out=held_out)


def _check(run: RunRecord, first: RunRecord, by: str) -> None:
    settings = dict(flat(spelled_out(run.config)))
    if by not in settings:
        near = ", ".join(name for name in settings if name.rpartition(".")[2] == by.rpartition(".")[2])
        raise PickError(f"{run.path} has no setting {by!r}{f': there is {near}' if near else ''}")
    if not run.finished:
        raise PickError(f"{run.path} did not come to its end: go on with it (--resume), or leave it out")
    own, other = ({name: value for name, value in one.config.items() if name != "run"} for one in (run, first))
    if differing := differences(other, own, [by]):
        raise PickError(
            f"{first.path} and {run.path} differ in more than {by} and seed ({'; '.join(differing)}): pick over runs "
            "that differ in one setting"
        )


def _validation(run: RunRecord) -> float:
    found = run.cycles[-1].validation if run.cycles else None
    if found is None:
        raise PickError(f"{run.path} has nothing of held-out images: run it with hold_out and validation")
    return found
