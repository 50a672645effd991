"""The edges in a model, by layer."""

from torch import nn

from supermask.edges.base import Edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.wrappers import modules_inside


def owned_edges(model: nn.Module) -> dict[str, tuple[nn.Module, Edges]]:
    """The masked layers of `model`, by the name of the layer that owns the edges, in `named_modules()` order: the layer
    (the edges themselves, where their name is not `edges`), and its edges."""
    modules = dict(modules_inside(model))
    edges = ((layer_of(name), module) for name, module in modules.items() if isinstance(module, Edges))
    return {layer: (modules[layer], module) for layer, module in edges}


def all_edges(model: nn.Module) -> dict[str, Edges]:
    """The edges in `model`, by the name of the layer that owns them, in `named_modules()` order."""
    return {layer: edges for layer, (_, edges) in owned_edges(model).items()}


def layer_of(edges: str) -> str:
    """The name of the layer that owns the edges called so."""
    return "" if edges == "edges" else edges.removesuffix(".edges")


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
