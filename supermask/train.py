"""The training loop: epochs of SGD on whatever a network trains, at a learning rate an epoch.

It knows nothing of cycles or methods; a stage (supermask/stages.py) prepares the network and calls it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.data import Loaded
from supermask.evaluate import Batch, selected_once

Precision = Literal["float32", "bfloat16"]


class NonFiniteError(ArithmeticError):
    """The loss or a score became NaN or infinite; the message names the step, the layer at fault and what to try."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """SGD and its schedule: warm-up, then cosine, constant within an epoch.

    Attributes:
        epochs: of one cycle.
        lr: learning rate at its highest.
        momentum, weight_decay: of torch.optim.SGD, on the scores.
        warmup: epochs in which the rate rises linearly to `lr`.
        label_smoothing: of the cross-entropy.
        precision: dtype of weights and activations; scores and masks are float32 in either.
        compile: run the network through torch.compile.
    """

    epochs: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: int = 0
    label_smoothing: float = 0.0
    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: expected at least one")
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(f"warmup={self.warmup}: expected 0 to {self.epochs - 1}, less than the epochs")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr={self.lr}: expected a positive learning rate")

    def rates(self, length: int = 1) -> list[float]:
        """Learning rate of each epoch of a cycle that takes `length` times the epochs, in one cosine."""
        epochs = self.epochs * length
        return [self._rate(epoch, epochs) for epoch in range(epochs)]

    def _rate(self, epoch: int, epochs: int) -> float:
        if epoch < self.warmup:
            return self.lr * (epoch + 1) / self.warmup
        return self.lr * (1 + math.cos(math.pi * (epoch - self.warmup) / (epochs - self.warmup))) / 2

    def optimiser(self, parameters: Sequence[Tensor]) -> torch.optim.SGD:
        """A fresh optimiser, momentum zero."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Means over the training batches of one epoch."""

    loss: float
    accuracy: float


@dataclass(kw_only=True)
class Loop:
    """A network, its data and its optimiser, trained an epoch at a time.

    Attributes:
        model: the network; `runner` is the same network, compiled or not.
        step: optimiser steps taken so far.
        epoch: epochs taken so far, which orders the batches.
    """

    model: nn.Module
    loaded: Loaded
    training: Training
    device: torch.device
    step: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        self.runner: Callable[[Tensor], Tensor] = torch.compile(self.model) if self.training.compile else self.model

    def run_epoch(
        self, optimiser: torch.optim.Optimizer, lr: float, on_batch: Callable[[], object] = lambda: None
    ) -> EpochResult:
        """One epoch at the rate `lr`; `on_batch` is called after each step.

        Raises:
            NonFiniteError: for the loss at once on CPU, and at the end of the epoch where reading it would stall the
                device; for scores at the end of the epoch.
        """
        for group in optimiser.param_groups:
            group["lr"] = lr
        self.model.train()
        losses: list[Tensor] = []
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        count = 0
        batch: Batch | None = None
        for batch in self.loaded.train(self.epoch):
            inputs, labels = batch
            with self._autocast(), selected_once(self.model):
                logits = self.runner(_channels_last(inputs))
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.training.label_smoothing)
                if self.device.type == "cpu" and not math.isfinite(loss.item()):
                    raise self._non_finite(self.step, loss.item(), inputs)
                loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            right += (logits.detach().argmax(dim=1) == labels).sum()
            count += len(labels)
            self.step += 1
            on_batch()
        if batch is None:
            raise ValueError("the training data gave no batch")
        values = torch.stack(losses).tolist()
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                raise self._non_finite(self.step - len(values) + offset, value, batch[0])
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise self._non_finite(self.step - 1, values[-1], batch[0])
        self.epoch += 1
        return EpochResult(loss=sum(values) / len(values), accuracy=int(right) / count)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bfloat16")

    def _non_finite(self, step: int, loss: float, inputs: Tensor) -> NonFiniteError:
        layer = first_non_finite(self.model, _channels_last(inputs))
        return NonFiniteError(
            f"training broke down at step {step} with loss {loss}; first non-finite values: "
            f"{layer or 'in the loss itself'}. Try a lower learning rate than {self.training.lr}, a longer warm-up or "
            "precision float32; look for NaN in the data"
        )


@torch.no_grad()
def first_non_finite(model: nn.Module, inputs: Tensor) -> str | None:
    """Where values stop being finite when `model` runs on `inputs`: the inputs, a parameter or a module's output."""
    if not torch.isfinite(inputs).all():
        return "the input batch"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter {name}"
    found: list[str] = []
    with _on_output(model, lambda name: found.append(f"output of layer {name}")):
        model(inputs)
    return found[0] if found else None


@contextmanager
def _on_output(model: nn.Module, report: Callable[[str], object]) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def check(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                report(name)

        return check

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _channels_last(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
