"""The rate of a whole network."""

import warnings
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from supermask.checks import SearchWarning
from supermask.edges.base import Edges
from supermask.edges.in_model import owned_edges, searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import selected_edges
from supermask.kernels.base.bits import count_bits
from supermask.networks.allocation import UNIFORM, Allocator, Shape, check_ranked
from supermask.networks.layers import MaskedLayer


class SparseLayerWarning(SearchWarning):
    """A layer keeps fewer edges than it has outputs, so some outputs have no input at all."""


def set_remaining(model: nn.Module, remaining: float, allocate: Allocator = UNIFORM) -> None:
    """Set the rate of every searched layer that is not pinned; warn of layers that keep too few edges, and if nothing
    changes, since all are pinned.

    Args:
        remaining: fraction kept of the edges of these layers.
        allocate: how many of them each layer keeps.

    Raises:
        ValueError: a rate outside (0, 1], more edges than hard pruning left, or an allocation that cannot be met.
    """
    layers = share_remaining(model, remaining, allocate)
    if not layers:
        warnings.warn(
            f"remaining={remaining} changes nothing: all {len(searched_edges(model))} layers have a rate of their own, "
            "from overrides; leave some out of them",
            SearchWarning,
            stacklevel=2,
        )
    warn_of_sparse_layers(model)


def share_remaining(model: nn.Module, remaining: float, allocate: Allocator = UNIFORM) -> Mapping[str, SearchedEdges]:
    """`set_remaining` without a warning: the layers whose rate was set, by name."""
    rates = shared(model, remaining, allocate)
    layers = {name: edges for name, edges in searched_edges(model).items() if name in rates}
    for name, edges in layers.items():  # all are checked before any is changed
        edges.check_remaining(rates[name])
    for name, edges in layers.items():
        edges.remaining = rates[name]
    return layers


def shared(
    model: nn.Module, remaining: float, allocate: Allocator, room: Mapping[str, int] = MappingProxyType({})
) -> dict[str, float]:
    """The rate of each searched layer that is not pinned, by name.

    Args:
        room: edges that a layer can keep; by default those that hard pruning left.

    Raises:
        ValueError: an allocation that cannot be met, or one of layers that are ranked together.
    """
    every = searched_edges(model)
    layers = {name: edges for name, edges in every.items() if not edges.pinned}
    ranked = any(edges.rule.together for edges in layers.values())
    if ranked:
        check_ranked(allocate)
    elif allocate.by_layer:
        return dict.fromkeys(layers, remaining)
    owners = owned_edges(model)
    left = {name: room.get(name, _left(edges)) for name, edges in layers.items()}
    shapes = {
        # One ranking gives a layer what it finds: only all layers together have so much room.
        name: Shape(weight=e.shape, outputs=_outputs(owners[name][0], e), room=e.count if ranked else left[name])
        for name, e in layers.items()
    }
    pinned = {name: int(edges.kept[0]) / edges.count if edges.pinned else None for name, edges in every.items()}
    counts = allocate.counts(shapes, remaining, exact=ranked, pinned=pinned)
    if (total := sum(counts.values())) > sum(left.values()):
        raise ValueError(
            f"remaining={remaining} keeps {total} edges of the network, but hard pruning left {sum(left.values())}: "
            "lower the rate, or give the edges back with survivors = None"
        )
    return {name: count / shapes[name].edges for name, count in counts.items()}


def _left(edges: SearchedEdges) -> int:
    return edges.count if edges.survivors is None else count_bits(edges.survivors)


def _outputs(layer: nn.Module, edges: Edges) -> int:
    return layer.outputs if isinstance(layer, MaskedLayer) else edges.rows


def warn_of_sparse_layers(model: nn.Module) -> None:
    """Warn, in the name of whoever called the caller, of searched layers that keep fewer edges than outputs."""
    starved, ranked = [], False
    layers = owned_edges(model)
    for name, kept in selected_edges(model).items():
        layer, edges = layers[name]
        outputs = _outputs(layer, edges)
        if kept < outputs:
            starved.append(f"{name} keeps {kept} of {edges.count} edges for {outputs} outputs")
            ranked |= isinstance(edges, SearchedEdges) and edges.rule.together
    if starved:
        remedy = "come down to this rate slowly (anneal, more cycles)" if ranked else "allocate with a floor"
        warnings.warn(
            f"{'; '.join(starved)}: outputs without an input are constant; raise the rate of these layers with "
            f"overrides, or {remedy}",
            SparseLayerWarning,
            stacklevel=3,
        )
