"""Steps of training that are timed and forgotten: on a copy of the network, with nothing of a run touched."""

import copy
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from supermask.data.base import Batch, Loaded, Part
from supermask.edges.selection import selected_once
from supermask.methods.method import Method
from supermask.training.hooks import Hooks
from supermask.training.loop import Loop

if TYPE_CHECKING:
    from supermask.runs.configuration import Configuration

Clock = Callable[[], float]
LONG = 10.0
"""Seconds: a step that takes longer is timed once, cold."""


def trial(
    says: "Configuration", model: nn.Module, loaded: Loaded, batch: Batch, device: torch.device
) -> Callable[[], None]:
    """A function that takes a step of training, neither compiled nor captured, on a copy of `model`.

    Of the method it asks the optimiser and the loss; hooks that may tell others of a step are not called, and neither
    are those of the network.

    Args:
        loaded: what the network is trained on; nothing is read of it.
        batch: what each step sees.
    """
    copied = _without_hooks(copy.deepcopy(model)).to(device)
    training = replace(says.training, compile=False, capture=False)
    if says.cycles:
        optimiser = says.method.optimiser(copied, training, says.cycles[0])
    else:
        optimiser = training.make_optimiser(copied)
    own = None if says.method.whole_gradients else getattr(optimiser, "searching", None)
    loop = Loop(
        model=copied.train(), hooks=_LossOf(says.method), loaded=loaded, training=training, device=device,
        seed=says.run.seed,
    )  # fmt: skip

    def step() -> None:
        loop.take_step(optimiser, batch, own or partial(selected_once, copied))
        loop.tally.own_losses.clear()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _without_hooks(model: nn.Module) -> nn.Module:
    """The same network, without what its owner hung on forward and backward: it may count, or tell others."""
    for module in model.modules():
        for name, held in vars(module).items():
            if name.startswith(("_forward_", "_backward_")) and isinstance(held, dict):
                held.clear()
    return model


class _LossOf(Hooks):
    """The loss of a method, and nothing else of it."""

    whole_gradients = False

    def __init__(self, method: Method) -> None:
        self._method = method

    def loss(
        self, model: nn.Module, network: Callable[[Tensor], Tensor], batch: Batch, label_smoothing: float
    ) -> tuple[Tensor, Tensor | None]:
        return self._method.loss(model, network, batch, label_smoothing)


def batch_of(loaded: Loaded, size: int) -> Batch:
    """As many test inputs as a training batch has: no order of training is touched."""
    batches = loaded.test(Part())
    found = next(batches)
    if close := getattr(batches, "close", None):
        close()
    return first(found, size)


def first(batch: Batch, count: int) -> Batch:
    """The first `count` of a batch, the last one repeated where it has fewer; what is no tensor stays whole."""
    inputs, labels = batch
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor):
        return batch
    chosen = torch.arange(count, device=inputs.device).clamp(max=len(inputs) - 1)
    return inputs[chosen], labels[chosen.to(labels.device)]


def seconds_of(
    step: Callable[[], object], clock: Clock = time.perf_counter, *, steps: int = 2, warm: bool = True
) -> float:
    """Duration of a step: the mean of `steps`, after one to `warm` up, or of that one alone where it is long."""
    if warm:
        began = clock()
        step()
        first = clock() - began
        if first > LONG:
            return first
    began = clock()
    for _ in range(steps):
        step()
    return (clock() - began) / steps


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """After the block all global random states are what they were; warnings are left to the steps of a run."""
    states = random.getstate(), np.random.get_state()
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
