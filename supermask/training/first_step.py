"""What the gradients of a first step tell: layers that a search is not going to change."""

import math
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from supermask.checks import SearchWarning
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges

_GAP = 1e-4  # between the steps of a layer and the next: without anything cut off they lie side by side
_NAMED = 5


@torch.no_grad()
def warn_of_untouched(model: nn.Module, *, of_weights: bool) -> None:
    """Warn of masked layers without a gradient, and of those whose gradient is next to nothing beside that of others.

    Called once, after a backward; it reads from the device.

    Args:
        of_weights: the gradients are those of the effective weights (supermask/training/score_sgd.py).
    """
    layers = {name: edges for name, edges in searched_edges(model).items() if edges.scores.requires_grad}
    traced = any(type(edges.constant) is not Tensor or edges.constant.is_meta for edges in layers.values())
    if traced or _capturing():
        return
    if missing := [name for name, edges in layers.items() if edges.scores.grad is None]:
        _warn(
            f"masked layers without a gradient in the first step: {_listed(missing)}: their masks stay as drawn; they "
            "take no part in the loss, or the network calls other layers than those that are its submodules"
        )
    steps = dict(_steps(layers, of_weights))
    falling = sorted(steps.values(), reverse=True)
    if falling and falling[0] <= 0:
        _warn("the first step moves no score: every gradient is zero; look for what cuts the loss off from the network")
        return
    for before, step in pairwise(falling):
        if before > 0 and step <= _GAP * before:
            hardly = [name for name, one in steps.items() if one <= step]
            _warn(
                f"masked layers whose scores the first step hardly moves: {_listed(hardly)}: by {step / before:.1g} of "
                "what it moves those of any other; look for a branch that is scaled to nothing or cut off"
            )
            return


def _steps(layers: dict[str, SearchedEdges], of_weights: bool) -> Iterator[tuple[str, float]]:
    """How far a step moves the scores of each layer, beside their own size."""
    found = []
    names = [name for name, edges in layers.items() if edges.scores.grad is not None]
    for name in names:
        edges = layers[name]
        gradient: Any = edges.scores.grad
        factor = edges.constant if of_weights else torch.ones_like(edges.constant)
        found.append((gradient.norm() * factor / edges.scores.norm().clamp_min(1e-30)).reshape(1))
    values = torch.cat(found).tolist() if found else []
    yield from ((name, value) for name, value in zip(names, values, strict=True) if math.isfinite(value))


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _warn(sentence: str) -> None:
    warnings.warn(sentence, SearchWarning, stacklevel=4)
