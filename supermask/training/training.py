"""The settings of training, and the optimiser made of them."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from supermask.checks import check_choice
from supermask.edges.searched import SearchedEdges
from supermask.later import LATER, Grown
from supermask.training.score_sgd import ScoreSGD

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Training(Grown):
    """SGD and its schedule: warm-up, then cosine, constant within an epoch; then a tail, if there is one.

    Attributes:
        epochs: of one cycle, warm-up and tail among them.
        lr: learning rate at its highest.
        momentum: of torch.optim.SGD.
        weight_decay: of the scores, and of nothing else.
        warmup: epochs in which the rate rises linearly to `lr`.
        label_smoothing: of the cross-entropy.
        precision: dtype of weights and activations, in training and in evaluation; scores are float32 in either.
        compile: run the network through torch.compile.
        capture: take each step as one launch of a CUDA graph (supermask/training/captured.py); on a GPU, one process.
        tail: last epochs, after the cosine, at a constant rate.
        tail_lr: learning rate of the tail.
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

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: expected at least one")
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(f"warmup={self.warmup}: expected 0 to {self.epochs - 1}, less than the epochs")
        left = self.epochs - self.warmup
        if not 0 <= self.tail < left:
            raise ValueError(f"tail={self.tail}: expected 0 to {left - 1}, less than the epochs after the warm-up")
        for name in ("lr", "tail_lr"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name}={value}: expected a positive learning rate")
        for name, below in (("momentum", 1.0), ("weight_decay", math.inf), ("label_smoothing", 1.0)):
            if not 0 <= (value := getattr(self, name)) < below:
                raise ValueError(f"{name}={value}: expected a number from 0 to below {below:g}")
        check_choice("precision", self.precision, Precision)

    def rates(self, length: int = 1) -> list[float]:
        """Learning rate of each epoch of a cycle that takes `length` times the epochs, in one schedule."""
        epochs = self.epochs * length
        return [self._rate(epoch, epochs) for epoch in range(epochs)]

    def _rate(self, epoch: int, epochs: int) -> float:
        if epoch < self.warmup:
            return self.lr * (epoch + 1) / self.warmup
        if epoch >= epochs - self.tail:
            return self.tail_lr
        return self.lr * (1 + math.cos(math.pi * (epoch - self.warmup) / (epochs - self.tail - self.warmup))) / 2

    def optimiser(self, model: nn.Module) -> torch.optim.SGD:
        """A fresh optimiser of all that `model` trains, momentum zero.

        Weight decay is for the scores; a network that is not searched is trained densely, and all of it decays.
        """
        if _scores(model):
            return ScoreSGD(model, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        dense = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.SGD(dense, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


def unsearched(model: nn.Module) -> dict[str, nn.Parameter]:
    """What `model` trains besides scores, by name: biases and normalisation where the conversion trains them."""
    scores = {id(parameter) for parameter in _scores(model)}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in scores
    }


def _scores(model: nn.Module) -> list[nn.Parameter]:
    return [module.scores for module in model.modules() if isinstance(module, SearchedEdges)]
