"""Runs by other optimisers and schedules: stopped and gone on with, told apart, planned, and given as flags."""

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.runs import main as command
from supermask.runs.folder import RunFolderError
from supermask.runs.options import RunOptions
from supermask.runs.plan import trained_by
from supermask.runs.read import read_metrics
from supermask.runs.recipe import Recipe
from supermask.training.schedules import StepRates
from supermask.training.training import Training
from tests.graphs import graphs  # noqa: F401
from tests.supermask.runs.small_runs import BASE, CASES, Killed, a_save_every, left_by, placed, same, watched


def own(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    return torch.optim.RMSprop([p for p in model.parameters() if p.requires_grad], lr=training.lr)


def root(fraction: float) -> float:
    return (1 - fraction) ** 0.5


ADAM = Training(epochs=2, lr=0.01, optimiser="adam", per="step", warmup=1)
RUNS: dict[str, Recipe] = {
    "adam, a rate each step": replace(BASE, training=ADAM),
    "adam, fine-tuned": replace(CASES["soft iEP FT"], training=ADAM),
    "adamw, pictures": replace(
        CASES["augmented pictures, bfloat16"],
        training=Training(epochs=2, lr=0.01, optimiser="adamw", schedule="linear", precision="bfloat16"),
    ),
    "sgdw": replace(BASE, training=Training(epochs=2, lr=0.3, optimiser="sgdw", schedule="step", per="step")),
    "one's own": replace(BASE, training=Training(epochs=2, lr=0.01, optimiser=own, schedule=root)),
    "dense adam": replace(CASES["dense"], training=ADAM),
}


def stopped_and_whole(made: Recipe, moment: float, tmp_path: Path) -> bool:
    with watched() as whole, a_save_every(3):
        placed(made, tmp_path / "whole", checkpoint_seconds=3).execute()
    with watched(int(moment * whole.passed)), a_save_every(3), suppress(Killed):
        placed(made, tmp_path / "cut", checkpoint_seconds=3).execute()
    placed(made, tmp_path / "cut", resume=True).execute()
    return same(left_by(tmp_path / "cut"), left_by(tmp_path / "whole"))


@pytest.mark.parametrize("moment", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("label", RUNS)
def test_it_goes_on_where_it_was_killed(label: str, moment: float, tmp_path: Path) -> None:
    assert stopped_and_whole(RUNS[label], moment, tmp_path)


@pytest.mark.parametrize("label", ["adam, a rate each step", "sgdw"])
@pytest.mark.usefixtures("graphs")
def test_a_captured_one_goes_on_where_it_was_killed(label: str, tmp_path: Path) -> None:
    made = RUNS[label]
    assert stopped_and_whole(replace(made, training=replace(made.training, capture=True)), 0.6, tmp_path)


def test_records_have_the_last_rate_of_the_epoch_and_fine_tuning_stays_there(tmp_path: Path) -> None:
    placed(RUNS["adam, fine-tuned"], tmp_path / "run").execute()
    rates = [event["lr"] for event in read_metrics(tmp_path / "run") if event["event"] == "epoch"]
    last = ADAM.rates()[-1]
    assert isinstance(last, StepRates)
    assert rates == [0.01, *[last.at(4, 5)] * 3]
    assert 0 < last.at(4, 5) < last.at(0, 5) == 0.01


def test_a_rate_of_a_method_s_own_schedule_is_looked_at_before_anything_begins() -> None:
    class Gliding(EP):
        def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[Any]:
            return [0.1, StepRates(at=lambda step, steps: float("nan"))]

    with pytest.raises(ValueError, match="the learning rate at step 0 of 1 is nan"):
        replace(BASE, stages=None, method=Gliding(remaining=0.5))


def quick(**changes: Any) -> Recipe:
    return replace(BASE, stages=BASE.course[:2], training=Training(epochs=1, **changes))


def test_an_optimiser_and_a_schedule_of_one_s_own_are_part_of_which_run_it_is(tmp_path: Path) -> None:
    code = quick(optimiser=own, schedule=root).code()
    assert code["training.optimiser"]["type"] == "test_optimised_runs.own"
    assert code["training.schedule"]["type"] == "test_optimised_runs.root"
    assert len(next(iter(code["training.optimiser"]["source"].values()))) == 64
    placed(quick(optimiser=own), tmp_path / "run").execute()
    for other in (quick(), quick(optimiser="adam"), quick(optimiser=own, schedule=root), quick(optimiser=own, lr=0.2)):
        with pytest.raises(RunFolderError, match=r"holds a run of another configuration: .*training"):
            placed(other, tmp_path / "run", resume=True).execute()


def test_what_has_the_usual_optimiser_is_the_run_that_it_was() -> None:
    said = quick().said()["training"]
    assert not said.keys() & {"optimiser", "betas", "eps", "nesterov", "schedule", "milestones", "gamma", "per"}
    assert not any(name in repr(Training()) for name in ("optimiser", "schedule", "per="))
    assert "optimiser='adam', per='step'" in repr(ADAM)


def test_a_plan_says_what_trains_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    made = replace(BASE, training=replace(ADAM, tail=0, weight_decay=0.5))
    replace(made, run=RunOptions(device="cpu", dry_run=True)).execute()
    assert (
        "optimiser: adam, betas 0.9 0.999, eps 1e-08, weight decay 0.5; "
        "schedule: cosine, a rate each step, lr 0.01, warmup 1\n"
    ) in capsys.readouterr().out


def test_a_plan_says_whose_own_it_is() -> None:
    class Slow(IEP):
        def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
            return own(model, training)

        def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[float]:
            return [0.1] * cycle.epochs(training.epochs)

    given = Training(lr=0.3, optimiser=own, schedule=root, tail=2)
    assert trained_by(given, None) == (
        "optimiser: own(), weight decay 0.0001; schedule: root(), a rate each epoch, lr 0.3, warmup 0, tail 2, "
        "tail lr 1e-05"
    )
    assert trained_by(given, Slow()) == "optimiser: that of Slow; schedule: that of Slow"
    assert trained_by(Training(nesterov=True, schedule="step"), IEP()) == (
        "optimiser: sgd, momentum 0.9, nesterov True, weight decay 0.0001; "
        "schedule: step, a rate each epoch, lr 0.1, milestones 0.5 0.75, gamma 0.1, warmup 0"
    )


def recipe(training: Training = Training(epochs=1), run: RunOptions = RunOptions()) -> Recipe:
    return replace(BASE, stages=BASE.course[:2], training=training, run=run)


@dataclass(frozen=True)
class Power:
    """A schedule with a setting."""

    power: float

    def __call__(self, fraction: float) -> float:
        return float((1 - fraction) ** self.power)


CODE = Training(epochs=1, optimiser=own, schedule=Power(2))


def with_code(training: Training = CODE, run: RunOptions = RunOptions()) -> Recipe:
    return recipe(training, run)


def told(monkeypatch: pytest.MonkeyPatch, function: Any, *arguments: str) -> Training:
    """What a command line makes of a recipe's training."""
    found: list[Training] = []
    monkeypatch.setattr(Recipe, "execute", lambda self: found.append(self.training))
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    command.main(function)
    return found[0]


@pytest.mark.filterwarnings("error")
def test_a_command_line_chooses_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--training.optimiser adam --training.betas 0.8 0.9 --training.schedule step --training.milestones 0.5"
    expected = Training(epochs=1, optimiser="adam", betas=(0.8, 0.9), schedule="step", milestones=(0.5,))
    assert told(monkeypatch, recipe, *flags.split()) == expected
    with pytest.raises(SystemExit):
        told(monkeypatch, recipe, "--training.optimiser", "own")
    assert "sgdw" in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
def test_code_that_a_recipe_gives_stays_on_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, with_code, "--training.lr", "0.5")
    assert found == replace(CODE, lr=0.5)
