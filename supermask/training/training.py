"""The settings of training: the optimiser, and the course of its rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from supermask.checks import check_choice
from supermask.later import LATER, Grown
from supermask.training import optimisers, schedules
from supermask.training.optimisers import OptimiserName, scores_of
from supermask.training.schedules import Per, Rate, ScheduleName, StepRates, rate_of

if TYPE_CHECKING:
    from supermask.training.optimisers import OwnOptimiser
    from supermask.training.schedules import OwnSchedule

    Optimiser = OptimiserName | OwnOptimiser
    Schedule = ScheduleName | OwnSchedule
else:  # what a flag can say; code is given in Python
    Optimiser, Schedule = OptimiserName, ScheduleName

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Training(Grown):
    """An optimiser and its learning rate: warm-up, then the schedule; then a tail, if there is one.

    What the chosen optimiser or schedule does not read is refused where it is not its default; `momentum` is not.

    Attributes:
        epochs: of one cycle, warm-up and tail among them.
        lr: learning rate at its highest.
        momentum: of "sgd" and "sgdw".
        weight_decay: of the scores, and of nothing else; of all weights where training is dense.
        warmup: epochs in which the rate rises linearly to `lr`.
        label_smoothing: of the cross-entropy.
        precision: dtype of weights and activations, in training and in evaluation; scores are float32 in either.
        compile: run the network through torch.compile.
        capture: take each step as one launch of a CUDA graph (supermask/training/captured.py); on a GPU, one process.
        tail: last epochs, after the schedule, at a constant rate.
        tail_lr: learning rate of the tail.
        optimiser: "sgd" (torch.optim.SGD, fused for scores), "adam", "adamw" (torch's), "sgdw"
            (supermask/training/sgdw.py), or a function that makes one of the network and this Training, which is to
            step all that the network trains, once; the loop sets its rate.
        betas, eps: of "adam" and "adamw".
        nesterov: of "sgd".
        schedule: "cosine", "step", "constant", "linear", or a function of the fraction of the cycle after warm-up and
            before the tail, in [0, 1), that gives the factor of lr, from 0 up.
        milestones: of "step": fractions of the same kind, at each of which the rate is multiplied by gamma.
        gamma: of "step".
        per: whether the rate changes with each epoch or with each step.
    """

    epochs: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: int = 0
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    compile: bool = False
    tail: int = field(default=0, metadata=LATER)
    tail_lr: float = field(default=1e-5, metadata=LATER)
    capture: bool = field(default=False, metadata=LATER)
    optimiser: Optimiser = field(default="sgd", metadata=LATER)
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=LATER)
    eps: float = field(default=1e-8, metadata=LATER)
    nesterov: bool = field(default=False, metadata=LATER)
    schedule: Schedule = field(default="cosine", metadata=LATER)
    milestones: tuple[float, ...] = field(default=(0.5, 0.75), metadata=LATER)
    gamma: float = field(default=0.1, metadata=LATER)
    per: Per = field(default="epoch", metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise ValueError(
                f"epochs={self.epochs}: expected at least one; a search that takes no step is a method of length 0, "
                "such as RandomMask"
            )
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(f"warmup={self.warmup}: expected 0 to {self.epochs - 1}, less than the epochs")
        left = self.epochs - self.warmup
        if not 0 <= self.tail < left:
            raise ValueError(f"tail={self.tail}: expected 0 to {left - 1}, less than the epochs after the warm-up")
        for name in ("lr", "tail_lr"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name}={value}: expected a positive learning rate")
        usual = next(one.default for one in fields(self) if one.name == "tail_lr")
        if not self.tail and self.tail_lr != usual:
            raise ValueError(
                f"tail_lr={self.tail_lr} with tail=0, which does not read it: leave it out, or give the tail epochs"
            )
        for name, below in (("momentum", 1.0), ("weight_decay", math.inf), ("label_smoothing", 1.0)):
            if not 0 <= (value := getattr(self, name)) < below:
                raise ValueError(f"{name}={value}: expected a number from 0 to below {below:g}")
        check_choice("precision", self.precision, Precision)
        check_choice("per", self.per, Per)
        self._check_optimiser()
        self._check_schedule()

    def _check_optimiser(self) -> None:
        known = {one.name: one for one in fields(self)}
        if (said := getattr(type(self), "optimiser", None)) is not known["optimiser"].default and callable(said):
            raise TypeError(
                f"{type(self).__name__}.optimiser is a method, and it is a setting of Training: call it "
                "make_optimiser, which is what the loop asks, or give Training(optimiser=) a function of the network "
                "and the Training"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: expected two numbers from 0 to below 1")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"eps={self.eps}: expected a positive number")
        if isinstance(self.optimiser, type) and issubclass(self.optimiser, torch.optim.Optimizer):
            raise TypeError(
                f"optimiser={self.optimiser.__name__}, a class of optimisers: expected a function of the network and "
                f"the Training that makes one, or one of {', '.join(map(repr, optimisers.READS))}"
            )
        if callable(self.optimiser):
            return
        check_choice("optimiser", self.optimiser, OptimiserName)
        self._check_read("optimiser", ("betas", "eps", "nesterov"), optimisers.READS)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True with momentum=0.0: Nesterov's needs a momentum")

    def _check_schedule(self) -> None:
        marks = self.milestones
        if not all(0 < mark < 1 for mark in marks) or list(marks) != sorted(set(marks)):
            raise ValueError(f"milestones={marks}: expected fractions of a cycle between 0 and 1, each above the last")
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma={self.gamma}: expected a positive factor")
        if callable(self.schedule):
            return
        check_choice("schedule", self.schedule, ScheduleName)
        self._check_read("schedule", ("milestones", "gamma"), schedules.READS)

    def _check_read(self, choice: str, names: Sequence[str], reads: Mapping[str, Sequence[str]]) -> None:
        """Raise ValueError where one of `names` is set that the `choice` made does not read."""
        chosen = getattr(self, choice)
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in names and one.name not in reads[chosen] and value != one.default:
                readers = " and ".join(repr(name) for name, read in reads.items() if one.name in read)
                raise ValueError(
                    f"{one.name}={value!r} with {choice}={chosen!r}, which does not read it: leave it out, or take "
                    f"{readers}"
                )

    def rates(self, length: int = 1) -> list[Rate]:
        """Learning rate of each epoch of a cycle that takes `length` times the epochs, in one schedule: a number, or
        with per="step" the rates of its steps."""
        epochs = self.epochs * length
        if self.per == "step":
            return [StepRates(at=partial(rate_of, self, epochs, epoch)) for epoch in range(epochs)]
        return [rate_of(self, epochs, epoch) for epoch in range(epochs)]

    def make_optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser of all that `model` trains.

        Weight decay is for the scores; a network that is not searched is trained densely, and all of it decays.

        Raises:
            TypeError, ValueError: one's own is no optimiser, or not of what the network trains.
        """
        return optimisers.made(self, model)


def unsearched(model: nn.Module) -> dict[str, nn.Parameter]:
    """What `model` trains besides scores, by name: biases and normalisation where the conversion trains them."""
    scores = {id(parameter) for parameter in scores_of(model)}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in scores
    }
