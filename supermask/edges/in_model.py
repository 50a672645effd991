"""The edges in a model: found by layer, and their rate set together."""

import warnings

from torch import nn

from supermask.edges.base import Edges
from supermask.edges.searched import SearchedEdges


def all_edges(model: nn.Module) -> dict[str, Edges]:
    """The masked layers of `model`, by the name of the layer that owns the edges, in `named_modules()` order."""
    return {
        ("" if name == "edges" else name.removesuffix(".edges")): module
        for name, module in model.named_modules()
        if isinstance(module, Edges)
    }


def searched_edges(model: nn.Module) -> dict[str, SearchedEdges]:
    """The masked layers of `model` that are being searched.

    Raises:
        ValueError: there is none.
    """
    found = {name: edges for name, edges in all_edges(model).items() if isinstance(edges, SearchedEdges)}
    if not found and all_edges(model):
        raise ValueError(
            f"{type(model).__name__} has masked layers but no scores: a network from a ticket is not searched further"
        )
    if not found:
        raise ValueError(f"{type(model).__name__} has no searched layer: make it searchable with supermask.convert")
    return found


class SparseLayerWarning(UserWarning):
    """A layer keeps fewer edges than it has outputs, so some outputs have no input at all."""


def set_remaining(model: nn.Module, remaining: float) -> None:
    """Set the rate of every searched layer that is not pinned; warn of layers that keep too few edges.

    Raises:
        ValueError: a rate outside (0, 1], or more edges than hard pruning left.
    """
    layers = [edges for edges in searched_edges(model).values() if not edges.pinned]
    for edges in layers:  # all are checked before any is changed
        edges.check_remaining(remaining)
    for edges in layers:
        edges.remaining = remaining
    _warn_sparse(model)


def _warn_sparse(model: nn.Module) -> None:
    starved = []
    for name, edges in searched_edges(model).items():
        outputs = getattr(model.get_submodule(name), "outputs", edges.rows)
        if int(edges.kept) < outputs:
            starved.append(f"{name} keeps {int(edges.kept)} of {edges.count} edges for {outputs} outputs")
    if starved:
        warnings.warn(
            f"{'; '.join(starved)}: outputs without an input are constant; raise the rate of these layers with "
            "overrides",
            SparseLayerWarning,
            stacklevel=3,
        )
