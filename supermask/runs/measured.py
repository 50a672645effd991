"""What a run measures of its network, on the test set or on held-out images; training goes on as if it had not."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from supermask.data.base import Batch, Part
from supermask.devices import set_seed
from supermask.training.evaluate import in_mode, right_of
from supermask.training.loop import Loop

Batches = Callable[[Part], Iterator[Batch]]


@torch.no_grad()
def measured(loop: Loop, model: nn.Module, batches: Batches) -> dict[str, float]:
    """What the loop's method measures of `model` on `batches`, by name.

    Raises:
        TypeError, ValueError: it gave something else than finite numbers by name.
    """
    devices = [loop.device] if loop.device.type == "cuda" else []
    with in_mode(model, training=False), torch.random.fork_rng(devices=devices):
        set_seed((loop.seed * 1_000_003 + loop.step) % (1 << 63), loop.device)
        found = loop.hooks.evaluate(model, lambda: accuracy_of(loop, model, batches))
    given = f"{type(loop.hooks).__name__}.evaluate gave"
    if not isinstance(found, Mapping):
        raise TypeError(f"{given} {found!r}: expected numbers by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, int | float):
            raise TypeError(f"{given} {name!r}: {value!r}: expected numbers by name")
        if not math.isfinite(value):
            raise ValueError(f"{given} {name} = {value}: a record holds finite numbers; leave it out where it is none")
    return {name: float(value) for name, value in found.items()}


def accuracy_of(loop: Loop, model: nn.Module, batches: Batches) -> float:
    """On `batches` of the loop's data, each process classifying its share."""
    counted = right_of(model, batches(loop.group.part())).to(loop.device)
    right, count = loop.group.sum(counted).tolist()
    if not count:
        raise ValueError(f"the {'test data' if batches is loop.loaded.test else 'held-out images'} gave no batch")
    return right / count


def accuracy_held_out(loop: Loop) -> float:
    """Of the network on the held-out images of the loop's data.

    Raises:
        ValueError: the method measures no accuracy, or there are no such images.
    """
    if loop.loaded.held_out is None:
        raise ValueError("validation without held-out images: open data that holds some out")
    with loop.autocast():
        found = measured(loop, loop.model, loop.loaded.held_out)
    if "accuracy" not in found:
        raise ValueError(
            f"{type(loop.hooks).__name__}.evaluate gave {', '.join(found) or 'nothing'}, and validation goes by "
            "accuracy: have it measure that, or leave validation out"
        )
    return found["accuracy"]
