"""What the gradients of a first step tell: layers that a search is not going to change."""

import math
import statistics
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from supermask.checks import SearchWarning
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges

_HARDLY = 1e-4  # of what a step does to the scores of the median layer
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
    moved = [step for step in steps.values() if step > 0]
    if not moved:
        return
    usual = statistics.median(moved)
    if hardly := {name: step for name, step in steps.items() if not step > _HARDLY * usual}:
        least = min(hardly.values()) / usual
        _warn(
            f"masked layers whose scores the first step hardly moves: {_listed(list(hardly))}: down to {least:.1g} of "
            "the median layer's; look for a branch that is scaled to nothing or cut off"
        )


def _steps(layers: dict[str, SearchedEdges], of_weights: bool) -> Iterator[tuple[str, float]]:
    """How far a step moves the scores of each layer, beside their own size."""
    found = []
    names = [name for name, edges in layers.items() if edges.scores.grad is not None]
    for name in names:
        edges = layers[name]
        gradient = edges.scores.grad
        if gradient is None:
            continue
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
