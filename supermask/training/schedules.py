"""The learning rate over a cycle: warm-up, a schedule, a tail; an epoch at a time or a step at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from supermask.training.training import Training

ScheduleName = Literal["cosine", "step", "constant", "linear"]
OwnSchedule = Callable[[float], float]
"""The factor of lr at a fraction of the cycle after warm-up, in [0, 1)."""

READS: dict[str, tuple[str, ...]] = {"cosine": (), "step": ("milestones", "gamma"), "constant": (), "linear": ()}
"""Fields of Training that each reads, beside lr, warmup, tail and per."""

Per = Literal["epoch", "step"]


@dataclass(frozen=True, kw_only=True)
class StepRates:
    """The learning rates of an epoch in which each step has its own.

    Attributes:
        at: the rate of a step, of its number from 0 and the number of steps of the epoch.
    """

    at: Callable[[int, int], float]


Rate = float | StepRates
"""The learning rate of an epoch, or of each of its steps."""


def rate_at(rate: Rate, step: int, steps: int) -> float:
    """The learning rate of step `step`, from 0, of an epoch of `steps`.

    Raises:
        ValueError: an epoch that takes more steps than its data said, or a rate that is none.
    """
    if not isinstance(rate, StepRates):
        return rate
    if step >= steps:
        raise ValueError(
            f"the training data gave more than the {steps} batches an epoch that they said (Loaded.steps), and the "
            "schedule has no rate for them"
        )
    return checked(rate.at(step, steps), f"at step {step} of {steps}")


def checked(rate: Any, where: str) -> float:
    """`rate`, if it is a learning rate; ValueError or TypeError names it and `where` it is of."""
    if not isinstance(rate, Real):  # numpy's, too
        raise TypeError(f"the learning rate {where} is {rate!r}: expected a number from 0 up")
    value = float(rate)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"the learning rate {where} is {value}: expected a number from 0 up")
    return value


def rate_of(training: "Training", epochs: int, epoch: int, step: int = 0, steps: int = 1) -> float:
    """The learning rate of step `step` of epoch `epoch` of a cycle of `epochs` epochs of `steps` each, all from 0.

    Counted in steps, so that a rate an epoch is that of an epoch of one step.
    """
    warmup, tail = training.warmup, training.tail
    if epoch < warmup:
        return training.lr * (epoch * steps + step + 1) / (warmup * steps)
    if epoch >= epochs - tail:
        return training.tail_lr
    done, span = (epoch - warmup) * steps + step, (epochs - tail - warmup) * steps
    if training.schedule == "cosine":
        return training.lr * (1 + math.cos(math.pi * done / span)) / 2
    return checked(training.lr * _factor(training, done / span), f"at the fraction {done / span:.6g} of a cycle")


def _factor(training: "Training", fraction: float) -> float:
    if training.schedule == "step":
        return float(training.gamma ** sum(fraction >= milestone for milestone in training.milestones))
    if training.schedule == "linear":
        return 1 - fraction
    if training.schedule == "constant":
        return 1.0
    own: OwnSchedule = training.schedule  # type: ignore[assignment]
    factor = own(fraction)
    if not isinstance(factor, Real):
        raise TypeError(f"the schedule gave {factor!r} at the fraction {fraction:.6g}: expected a factor of lr")
    return float(factor)
