"""Schedules: each is its formula, an epoch or a step at a time; the loop applies it, also where it goes on."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from supermask.training.loop import Loop
from supermask.training.schedules import Rate, StepRates, rate_at
from supermask.training.training import Training
from tests.supermask.training.test_loop import loop

FORMULAS: dict[str, Callable[[float], float]] = {
    "cosine": lambda f: (1 + math.cos(math.pi * f)) / 2,
    "step": lambda f: 1.0 if f < 0.5 else 0.1 if f < 0.75 else 0.01,
    "constant": lambda f: 1.0,
    "linear": lambda f: 1 - f,
}


def squared(fraction: float) -> float:
    return (1 - fraction) ** 2


def of_steps(training: Training, steps: int, length: int = 1) -> list[float]:
    return [rate_at(rate, step, steps) for rate in training.rates(length) for step in range(steps)]


@pytest.mark.parametrize("schedule", [*FORMULAS, squared])
def test_a_rate_an_epoch_is_the_formula_of_the_fraction_of_the_cycle(schedule: Any) -> None:
    formula = FORMULAS.get(schedule, squared)
    rates = Training(epochs=20, lr=0.4, warmup=3, tail=1, tail_lr=0.05, schedule=schedule).rates()
    assert rates[:3] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4])
    assert rates[3:19] == pytest.approx([0.4 * formula(epoch / 16) for epoch in range(16)])
    assert rates[19:] == [0.05]


@pytest.mark.parametrize("schedule", [*FORMULAS, squared])
def test_a_rate_a_step_is_that_of_a_cycle_with_as_many_epochs(schedule: Any) -> None:
    given: dict[str, Any] = {"lr": 0.4, "schedule": schedule}
    long = Training(epochs=20, warmup=4, tail=8, **given).rates()
    assert of_steps(Training(epochs=5, warmup=1, tail=2, per="step", **given), 4) == long
    assert of_steps(Training(epochs=2, per="step", **given), 3, length=4) == Training(epochs=24, **given).rates()


def test_milestones_are_where_they_are_said() -> None:
    rates = Training(epochs=10, lr=1, schedule="step", milestones=(0.3, 0.7), gamma=0.5).rates()
    assert rates == [1.0] * 3 + [0.5] * 4 + [0.25] * 3


def test_a_schedule_of_one_s_own_is_asked_of_fractions_below_one() -> None:
    asked: list[float] = []

    def own(fraction: float) -> float:
        asked.append(fraction)
        return float(np.float32(0.5))

    assert Training(epochs=5, lr=2, warmup=1, schedule=own).rates() == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert asked == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("factor", "says"), [(-0.5, "fraction 0.5 of a cycle is -0.15"), (math.nan, "is nan"), (None, "gave None")]
)
def test_a_factor_that_is_none_is_refused(factor: Any, says: str) -> None:
    training = Training(epochs=4, lr=0.3, schedule=lambda fraction: 1.0 if fraction < 0.5 else factor)
    with pytest.raises((TypeError, ValueError), match=says):
        training.rates()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"schedule": "cosin"}, "schedule='cosin': expected one of 'cosine', 'step'"),
        ({"per": "batch"}, "per='batch'"),
        ({"gamma": 0.5}, "gamma=0.5 with schedule='cosine', which does not read it: leave it out, or take 'step'"),
        ({"schedule": "linear", "milestones": (0.5,)}, "milestones=.* with schedule='linear'"),
        ({"schedule": "step", "milestones": (0.7, 0.5)}, r"milestones=\(0.7, 0.5\): expected fractions"),
        ({"schedule": "step", "milestones": (30.0,)}, r"milestones=\(30.0,\)"),
        ({"schedule": "step", "gamma": 0.0}, "gamma=0.0: expected a positive"),
    ],
)
def test_a_bad_schedule_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Training(**bad)


def applied(it: Loop) -> tuple[list[float], Any]:
    """The rates that steps were taken with; an optimiser that writes them down."""
    rates: list[float] = []
    optimiser = it.training.make_optimiser(it.model)

    def note(*_: Any) -> None:
        (rate,) = {float(group["lr"]) for group in optimiser.param_groups}
        rates.append(rate)

    optimiser.register_step_pre_hook(note)
    return rates, optimiser


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_the_loop_steps_at_the_rate_of_each_step(optimiser: Any) -> None:
    it = loop(Training(epochs=3, lr=0.1, warmup=1, per="step", optimiser=optimiser))
    rates, made = applied(it)
    last = []
    for rate in it.training.rates():
        it.run_epoch(made, rate)
        last.append(it.lr)
    assert rates == of_steps(it.training, 3)
    assert len(set(rates)) > 5
    assert last == rates[2::3]


def test_an_epoch_that_goes_on_has_the_rates_that_are_left() -> None:
    it = loop(Training(epochs=1, lr=0.1, per="step"))
    whole = of_steps(it.training, 3)
    rates, made = applied(it)

    def stop() -> None:
        if it.tally.step == 2:
            it.reduce()
            raise InterruptedError

    (rate,) = it.training.rates()
    with pytest.raises(InterruptedError):
        it.run_epoch(made, rate, stop)
    other = loop(it.training)
    other.load_state_dict(it.state_dict())
    rest, made = applied(other)
    other.run_epoch(made, rate)
    assert rates + rest == whole
    assert other.lr == whole[-1]


def test_an_epoch_whose_steps_are_all_taken_still_says_its_last_rate() -> None:
    it = loop(Training(epochs=1, lr=0.1, per="step"))
    _, made = applied(it)

    def stop() -> None:
        if it.tally.step == 3:
            it.reduce()
            raise InterruptedError

    (rate,) = it.training.rates()
    with pytest.raises(InterruptedError):
        it.run_epoch(made, rate, stop)
    other = loop(it.training)
    other.load_state_dict(it.state_dict())
    other.run_epoch(applied(other)[1], rate)
    assert other.lr == of_steps(it.training, 3)[-1] < it.training.lr


def test_a_tensor_takes_the_rate_of_each_step_in_place() -> None:
    """As a captured step reads it."""
    it = loop(Training(epochs=1, lr=0.1, per="step"))
    rates, made = applied(it)
    held = torch.zeros((), device=it.device)
    for group in made.param_groups:
        group["lr"] = held
    it.run_epoch(made, it.training.rates()[0])
    assert all(group["lr"] is held for group in made.param_groups)
    assert rates == pytest.approx(of_steps(it.training, 3))


def test_more_steps_than_the_data_said_are_refused() -> None:
    with pytest.raises(ValueError, match=r"more than the 3 batches an epoch that they said \(Loaded.steps\)"):
        rate_at(StepRates(at=lambda step, steps: 0.1), 3, 3)
    rate: Rate = 0.1
    assert rate_at(rate, 3, 3) == 0.1
    with pytest.raises(ValueError, match="the learning rate at step 1 of 3 is -1"):
        rate_at(StepRates(at=lambda step, steps: -1), 1, 3)


def test_epochs_are_whole_and_a_list_is_the_tuple() -> None:
    for name in ("epochs", "warmup", "tail"):
        with pytest.raises(TypeError, match=rf"{name} 0\.5: expected an integer"):
            Training(**{name: 0.5})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tail_lr=0\.5 with tail=0, which does not read it"):
        Training(tail_lr=0.5)
    given = {"optimiser": "adam", "betas": [0.9, 0.999], "schedule": "step", "milestones": [0.5]}
    same = Training(optimiser="adam", schedule="step", milestones=(0.5,))
    assert Training(**given) == same  # type: ignore[arg-type]
    assert hash(Training(**given)) == hash(same)  # type: ignore[arg-type]
