"""The original network of a ticket: weights made from the seed once, zeros where the mask does not select, and no layer
of this library."""

from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.tickets.assemble import Parts, allocate, read_parts, unfolded
from supermask.tickets.errors import TicketError, named
from supermask.tickets.info import TicketInfo
from supermask.tickets.match import names_in, norms, slots

__all__ = ["dense", "dense_of"]


def dense(file: str | Path | BinaryIO, *, model: nn.Module | None = None) -> nn.Module:
    """The original network with dense weights, in eval mode, all of it frozen. Torch's random state is not touched.

    Weights that the mask does not select are 0, biases that the search dropped 0, and a normalisation without scale and
    shift has 1 and 0; a folded batch norm has its statistics 0 and 1 - eps. The state dict is that of the network as it
    is built, in names, shapes and dtypes: it loads strictly into any other. The logits are those of
    `load(file, weights="cached")` to the bit; with nn.MultiheadAttention, where torch hands the whole layer to a kernel
    that adds up in another order, only after `torch.backends.mha.set_fastpath_enabled(False)`.

    Args:
        file: as `supermask.load` takes it.
        model: the original network, to be filled in place, where the ticket names no architecture or another one is
            wanted. It keeps its dtypes, and its device.

    Raises:
        TicketError: a file that is not a whole, consistent ticket, or a model that does not fit it, has masked layers,
            or has no place for a bias or a folded batch norm of the ticket. It is then as it was.
    """
    return dense_of(file, model)[0]


def dense_of(file: str | Path | BinaryIO, model: nn.Module | None) -> tuple[nn.Module, TicketInfo]:
    """`dense`, and what the ticket holds."""
    if isinstance(model, nn.Module) and (there := all_edges(model)):
        where = str(file) if isinstance(file, str | Path) else named(file)
        raise TicketError(
            f"{where}: {type(model).__name__} has masked layers, {', '.join(map(repr, there))}: dense weights go into "
            "the original network, as it is before supermask.convert or load"
        )
    parts = read_parts(file, model=model, weights="materialised", device="cpu")
    info, network, values = parts.info, parts.network, _values(parts)
    if parts.is_skeleton and allocate(network, values):
        assert info.architecture is not None  # it was the skeleton's
        network = info.architecture.build()
    with torch.no_grad():
        for name, tensor in _first_names(network).items():
            value = values[name]
            tensor.copy_(value(torch.float32) if isinstance(value, PackedEdges) else value)
    return network.requires_grad_(False).eval(), info


def _values(parts: Parts) -> dict[str, Tensor | PackedEdges]:
    """What each tensor of the original network is filled with, by the first of its names; edges are for their weights,
    made one layer at a time."""
    info, network, tensors = parts.info, parts.network, parts.tensors
    own = _first_names(network)
    values: dict[str, Tensor | PackedEdges] = {name: tensor for name, tensor in tensors.items() if name in own}
    places = slots(network)
    for layer, edges in parts.edges.items():
        place, bias = places[layer], tensors.get(f"{layer}.bias".lstrip("."))
        values[place.weight] = edges
        if place.bias in own:
            values[place.bias] = torch.zeros(place.outputs) if bias is None else bias
        elif bias is not None:
            raise TicketError(
                f"{info.path}: layer {layer!r} has a bias in the ticket, and none in {type(network).__name__}: give a "
                "model= whose layer has one"
            )
    for name, norm in norms(network).items():
        inside = names_in(name, norm)
        neutral = {"weight": torch.ones(()), "bias": torch.zeros(())}
        if name in info.folded:
            if not neutral.keys() <= inside.keys():
                raise TicketError(
                    f"{info.path}: batch norm {name!r} is folded to a scale and a shift, and has neither in "
                    f"{type(network).__name__}: give a model= where it is affine, or save the ticket with fold=False"
                )
            neutral = unfolded(name, tensors, float(norm.eps))  # type: ignore[arg-type]
        elif not {inside.get(part) for part in neutral}.isdisjoint(tensors):
            continue
        values |= {inside[part]: value for part, value in neutral.items() if part in inside}
    return values


def _first_names(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of the state dict, those with several names under the first."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())
