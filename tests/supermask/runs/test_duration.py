"""How long a run would take: a plan times a few steps, scales those of a part of a batch, or says why it timed none."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from supermask.data.base import About, DataMissing, Loaded
from supermask.data.image_folder import ImageFolder
from supermask.recipes._plan import duration
from supermask.recipes._settings import WIDE_RESNET50
from supermask.runs import duration as durations
from supermask.runs.duration import StepTime, StepTimes, spoken
from supermask.runs.options import RecipeError, RunOptions
from supermask.runs.recipe import Recipe
from supermask.runs.trial import trial
from supermask.training.training import Training
from tests.supermask.runs.small_runs import BASE, Points


class Clock:
    """Goes on with the steps that are taken: by what a step of a batch costs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: Callable[[int], float]) -> None:
        self.now, self.sizes = 0.0, list[int]()

        def timed(says: Any, model: Any, loaded: Any, batch: Any, device: Any) -> Callable[[], None]:
            step, size = trial(says, model, loaded, batch, device), len(batch[0])

            def counted() -> None:
                step()
                self.sizes.append(size)
                self.now += cost(size)

            return counted

        monkeypatch.setattr(durations, "trial", timed)

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, kw_only=True)
class Absent(Points):
    """A set that is known, and not there."""

    there: bool = False
    download: bool = False

    def about(self) -> About:
        return About(classes=4, train=80, shape=(20,))

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        assert not self.download
        if not self.there:
            raise DataMissing("nowhere")
        return super().open(seed=seed, device=device)


def planned(
    recipe: Recipe, times: StepTimes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[float | None, str]:
    monkeypatch.setenv("COLUMNS", "300")
    found = replace(recipe, run=RunOptions(device="cpu", dry_run=True)).show_plan(times)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "steps in all" in line)
    return found, line


def test_a_plan_says_what_a_step_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = Clock(monkeypatch, lambda size: size / 64)
    seconds, said = planned(BASE, StepTimes(clock=clock), monkeypatch, capsys)
    assert seconds == 20 * 0.25
    assert said == "20 steps in all, about 5 seconds on this machine (0.25 s a step)"
    assert max(clock.sizes) == 16
    assert not list(tmp_path.iterdir())


def test_a_long_step_is_scaled_from_a_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch, lambda size: 1 + size / 8)  # one second whatever the batch
    recipe = replace(BASE, data=Points(batch=64))
    seconds, said = planned(recipe, StepTimes(clock=clock), monkeypatch, capsys)
    assert seconds == 4 * 9
    assert said == "4 steps in all, about 36 seconds on this machine (9 s a step, scaled from a batch of 4)"
    assert max(clock.sizes) == 4
    slow = Clock(monkeypatch, lambda size: 100.0)
    planned(recipe, StepTimes(clock=slow), monkeypatch, capsys)
    assert len(slow.sizes) <= 3


@pytest.mark.parametrize("there", [True, False])
def test_data_that_is_not_there_is_drawn_and_that_is_said(
    there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, lambda size: 0.1)
    recipe = replace(BASE, data=Absent(there=there, download=True))
    _, said = planned(recipe, StepTimes(clock=clock), monkeypatch, capsys)
    assert ("on random inputs: no data there" in said) is not there


def test_what_is_too_large_is_not_timed_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, lambda size: 0.1)
    recipe = replace(BASE, data=ImageFolder(root=tmp_path / "none", batch=512), network=WIDE_RESNET50)
    seconds, said = planned(recipe, StepTimes(clock=clock), monkeypatch, capsys)
    assert seconds is None
    assert re.search(r"not timed: a step takes about [\d.]+ GB, more than the 4.00 GB that a plan takes on cpu", said)
    assert not clock.sizes


def test_a_step_that_fails_is_not_timed_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such step")

    monkeypatch.setattr(durations, "trial", fails)
    seconds, said = planned(BASE, StepTimes(), monkeypatch, capsys)
    assert seconds is None
    assert "not timed: a step failed (RuntimeError: no such step)" in said


def test_plans_that_differ_in_what_takes_no_time_share_a_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, lambda size: 0.1)
    times = StepTimes(clock=clock, count=1)
    planned(BASE, times, monkeypatch, capsys)
    taken = len(clock.sizes)
    longer = replace(BASE, training=Training(epochs=7, lr=0.1))
    assert planned(longer, times, monkeypatch, capsys)[0] == pytest.approx(7 * 2 * 5 * 0.1)
    assert len(clock.sizes) == taken
    planned(replace(BASE, data=Points(batch=8)), times, monkeypatch, capsys)
    assert len(clock.sizes) > taken


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options, says in ((RunOptions(device="cuda"), "no GPU here"), (RunOptions(device="gpu"), "expected auto, cpu")):
        with pytest.raises(RecipeError, match=says):
            replace(BASE, run=replace(options, dry_run=True)).execute()


def test_steps_are_timed_as_they_are_taken_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan of what another machine will capture."""
    clock = Clock(monkeypatch, lambda size: 0.1)
    recipe = replace(BASE, training=Training(epochs=1, capture=True, compile=True))
    assert (
        "(0.1 s a step, neither compiled nor captured)"
        in planned(recipe, StepTimes(clock=clock), monkeypatch, capsys)[1]
    )


def test_durations_in_words() -> None:
    for seconds, said in (
        (0.2, "0 seconds"), (90, "90 seconds"), (600, "10 minutes"), (3.1 * 3600, "3.1 hours"),
        (47 * 3600, "47.0 hours"), (86400 * 32.9, "32.9 days"), (86400 * 365 * 1234.5, "1,234.5 years"),
    ):  # fmt: skip
        assert spoken(seconds) == said
    assert StepTime(seconds=0.213).of(52394) == "about 3.1 hours on this machine (0.213 s a step)"


def test_a_grid_sums_over_runs_and_workers() -> None:
    assert duration([3600.0] * 10, 2) == "what is left takes about 5.0 hours on this machine, 2 at once"
    assert duration([7200.0, 60.0], 8) == "what is left takes about 2.0 hours on this machine, 2 at once"
    assert duration([], 2) == "nothing is left to run"
    assert duration([1.0, None], 2) == "1 of the 2 runs that are left were not timed"
