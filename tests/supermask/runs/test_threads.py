"""Threads of a run on the CPU: chosen once by timing steps that leave no trace, written down, and taken again."""

import json
import os
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from supermask.data.base import Loaded
from supermask.runs import run as runs
from supermask.runs import threads
from supermask.runs.grid import Job, _begin, run_grid
from supermask.runs.options import RunOptions
from supermask.runs.recipe import Recipe
from supermask.runs.trial import LONG, batch_of, seconds_of, trial, undisturbed
from supermask.training.training import Training
from tests.places import ROOT
from tests.supermask.runs.small_runs import BASE, Killed, Points, a_save_every, left_by, mlp, same, watched

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Guarded(Points):
    """Points whose training batches are nobody's to look at."""

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        def train(part: Any) -> Any:
            raise AssertionError("the training data was asked")

        return replace(super().open(seed=seed, device=device), train=train)


def clock(costs: dict[int, float]) -> Callable[[], float]:
    """Goes on, whenever it is looked at, by what a step costs with the threads that torch takes."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += costs[torch.get_num_threads()]
        return now

    return look


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of two cores on which nobody said how many."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_allowed", lambda: [0, 1])
    monkeypatch.setattr(threads, "_core", str)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def chosen(monkeypatch: pytest.MonkeyPatch, best: int) -> list[int]:
    """From here on that count is the fastest; of each choice, what it was."""
    found: list[int] = []

    def fastest(*given: Any) -> Any:
        best_of, seconds = real(*given, clock({1: 1.0, 2: 1.0} | {best: 0.5}))
        found.append(best_of)
        return best_of, seconds

    real = threads.fastest
    monkeypatch.setattr(threads, "fastest", fastest)
    return found


def recipe(folder: Path, **options: Any) -> Recipe:
    return replace(BASE, run=RunOptions(folder=folder, device="cpu", quiet=True, **options))


def environment(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["environment"]
    return found


@pytest.mark.usefixtures("unsaid")
def test_the_fastest_is_taken_and_the_first_of_equals() -> None:
    for costs, best in (({2: 1.0, 1: 0.25}, 1), ({2: 0.25, 1: 0.5}, 2), ({2: 0.5, 1: 0.5}, 2)):
        assert threads.fastest(lambda: None, threads.counts(), clock(costs))[0] == best == torch.get_num_threads()


def test_all_cores_half_of_them_and_one_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, tried in ((1, (1,)), (2, (2, 1)), (3, (3, 1)), (8, (8, 4, 1))):
        monkeypatch.setattr(threads, "_allowed", lambda cores=cores: range(cores))
        assert threads.counts() == tried


@pytest.mark.parametrize(("each", "steps"), [(LONG / 2, 3), (LONG * 2, 1)])
def test_a_long_step_is_taken_once(each: float, steps: int) -> None:
    now, taken = [0.0], 0

    def step() -> None:
        nonlocal taken
        taken += 1
        now[0] += each

    assert seconds_of(step, lambda: now[0]) == pytest.approx(each)
    assert taken == steps


@pytest.mark.usefixtures("unsaid")
def test_who_said_how_many_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not threads.said()
    torch.set_num_threads(1)
    assert threads.said()
    torch.set_num_threads(2)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            assert threads.said()
    monkeypatch.setattr(threads, "_allowed", lambda: [0, 1, 2, 3])
    assert threads.said()
    monkeypatch.setattr(threads, "_core", lambda number: str(number // 2))  # torch counts a core once
    assert not threads.said()


@pytest.mark.filterwarnings("error")
def test_timing_touches_nothing() -> None:
    says = replace(BASE, data=Guarded())
    loaded = says.data.open(seed=0, device=CPU)
    model = runs._network(says, mlp(4), CPU)
    seen: list[nn.Module] = []
    next(model.children()).register_forward_hook(lambda module, *_: seen.append(module))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with undisturbed(CPU):
        batch = batch_of(loaded, 50)
        assert len(batch[0]) == len(batch[1]) == 50, "more than there are for testing"
        step = trial(says, model, loaded, batch, CPU)
        for _ in range(3):
            step()
        warnings.warn("of a step", stacklevel=1)
        random.random()
        np.random.random()
    assert not seen, "nor what hangs on the network"
    assert same(before, model.state_dict())
    assert gradients == [parameter.grad for parameter in model.parameters()] == [None] * len(gradients)
    model(batch[0])
    assert len(seen) == 1
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize("best", [1, 2])
def test_a_run_that_chose_is_the_run_that_was_told(best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, best)
    recipe(tmp_path / "chose").execute()
    assert found == [best]
    assert torch.get_num_threads() == 2, "as before"
    assert environment(tmp_path / "chose")["threads"] == best
    monkeypatch.setenv("OMP_NUM_THREADS", str(best))
    torch.set_num_threads(best)
    recipe(tmp_path / "told").execute()
    assert found == [best]
    assert same(left_by(tmp_path / "chose"), left_by(tmp_path / "told"))


@pytest.mark.usefixtures("unsaid")
def test_a_resumed_run_takes_those_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, taken = chosen(monkeypatch, 1), set()
    with watched(100), a_save_every(3), pytest.raises(Killed):
        recipe(tmp_path / "run", checkpoint_seconds=3).execute()
    assert torch.get_num_threads() == 2
    finish = runs.Run.finish

    def seen(self: Any, session: Any) -> Any:
        taken.add(torch.get_num_threads())
        return finish(self, session)

    monkeypatch.setattr(runs.Run, "finish", seen)
    recipe(tmp_path / "run", resume=True).execute()
    assert found == [1]
    assert taken == {1}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    recipe(tmp_path / "run", resume=True).execute()
    assert taken == {1, 2}, "unless the user says otherwise"
    assert found == [1]


@pytest.mark.usefixtures("unsaid")
def test_a_network_that_cannot_be_timed_is_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no copy")

    monkeypatch.setattr(runs, "trial", fails)
    recipe(tmp_path / "run").execute()
    assert environment(tmp_path / "run")["threads"] == 2
    assert "threads were not chosen (RuntimeError: no copy): the run takes 2" in capsys.readouterr().err


def test_runs_of_a_grid_take_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = Job(recipe=short, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    run_grid([job], workers=1)
    assert environment(job.folder)["threads"] == 1
    monkeypatch.setattr("supermask.runs.grid.threading.Thread", partial(Never))
    monkeypatch.setattr("supermask.runs.grid.signal.signal", lambda *_: None)
    before = torch.get_num_threads()
    _begin(dict(os.environ))
    assert threads.said()
    torch.set_num_threads(before)


class Never:
    """A thread that is not begun."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...


def short(run: RunOptions) -> Recipe:
    return replace(BASE, training=Training(epochs=1, lr=0.3), stages=BASE.course[:1], run=run)
