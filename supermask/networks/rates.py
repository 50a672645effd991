"""The rate of a whole network."""

import warnings

from torch import nn

from supermask.checks import SearchWarning
from supermask.edges.in_model import owned_edges, searched_edges
from supermask.edges.selection import selected_edges
from supermask.networks.layers import MaskedLayer


class SparseLayerWarning(SearchWarning):
    """A layer keeps fewer edges than it has outputs, so some outputs have no input at all."""


def set_remaining(model: nn.Module, remaining: float) -> None:
    """Set the rate of every searched layer that is not pinned; warn of layers that keep too few edges, and if nothing
    changes, since all are pinned.

    Raises:
        ValueError: a rate outside (0, 1], or more edges than hard pruning left.
    """
    layers = [edges for edges in searched_edges(model).values() if not edges.pinned]
    for edges in layers:  # all are checked before any is changed
        edges.check_remaining(remaining)
    for edges in layers:
        edges.remaining = remaining
    if not layers:
        warnings.warn(
            f"remaining={remaining} changes nothing: all {len(searched_edges(model))} layers have a rate of their own, "
            "from overrides; leave some out of them",
            SearchWarning,
            stacklevel=2,
        )
    warn_of_sparse_layers(model)


def warn_of_sparse_layers(model: nn.Module) -> None:
    """Warn, in the name of whoever called the caller, of searched layers that keep fewer edges than outputs."""
    starved = []
    layers = owned_edges(model)
    for name, kept in selected_edges(model).items():
        layer, edges = layers[name]
        outputs = layer.outputs if isinstance(layer, MaskedLayer) else edges.rows
        if kept < outputs:
            starved.append(f"{name} keeps {kept} of {edges.count} edges for {outputs} outputs")
    if starved:
        warnings.warn(
            f"{'; '.join(starved)}: outputs without an input are constant; raise the rate of these layers with "
            "overrides",
            SparseLayerWarning,
            stacklevel=3,
        )
