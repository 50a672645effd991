"""The original network of a ticket: weights made from the seed once, zeros where the mask does not select, and no layer
of this library."""

from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from supermask.checks import join
from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.edges.wrappers import names_inside
from supermask.networks.anatomy import BatchNorm
from supermask.tickets.assemble import Parts, read_parts, realised, unfolded
from supermask.tickets.errors import TicketError, named
from supermask.tickets.info import TicketInfo

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
    values = _values(parts)
    network = realised(parts, lambda original: original.model, values)
    inside = names_inside(network)
    state = {inside(name): tensor for name, tensor in network.state_dict(keep_vars=True).items()}
    turned = {slot.weight for slot in parts.network.slots.values() if slot.turned}
    with torch.no_grad():
        for name in parts.network.tensors:
            value = values[name]
            filled = value(torch.float32) if isinstance(value, PackedEdges) else value
            state[name].copy_(filled.T if name in turned else filled)
    for module in network.modules():
        _compute_plainly(module)
    return network.requires_grad_(False).eval(), parts.info


def _compute_plainly(module: nn.Module) -> None:
    """Have torch compute a transformer layer as the ticket's network does: its fused kernel makes padded positions
    zero."""
    if isinstance(module, nn.TransformerEncoder):
        module.use_nested_tensor = False
    elif isinstance(module, nn.TransformerEncoderLayer):
        module.activation_relu_or_gelu = 0  # which that kernel asks for


def _values(parts: Parts) -> dict[str, Tensor | PackedEdges]:
    """What each tensor of the original network is filled with, by the first of its names; edges are for their weights,
    made one layer at a time."""
    network, tensors = parts.network, parts.tensors
    values: dict[str, Tensor | PackedEdges] = {
        name: tensor for name, tensor in tensors.items() if name in network.tensors
    }
    for layer, edges in parts.edges.items():
        slot, bias = network.slots[layer], tensors.get(join(layer, "bias"))
        values[slot.weight] = edges
        if slot.bias in network.tensors:
            values[slot.bias] = torch.zeros(slot.outputs) if bias is None else bias
        elif bias is not None:
            raise TicketError(
                f"{parts.info.path}: layer {layer!r} has a bias in the ticket, and none in "
                f"{type(network.model).__name__}: give a model= whose layer has one"
            )
    for name, norm in network.norms.items():
        if name in parts.info.folded and isinstance(norm, BatchNorm):
            values |= _unfolded(parts, name, norm)
        elif norm.affine.isdisjoint(tensors):
            neutral = {"weight": torch.ones(()), "bias": torch.zeros(())}
            values |= {norm.names[part]: value for part, value in neutral.items() if part in norm.names}
    return values


def _unfolded(parts: Parts, name: str, norm: BatchNorm) -> dict[str, Tensor]:
    """The tensors of a batch norm that the ticket has as a scale and a shift."""
    if norm.weight is None or norm.bias is None:
        raise TicketError(
            f"{parts.info.path}: batch norm {name!r} is folded to a scale and a shift, and has neither in "
            f"{type(parts.network.model).__name__}: give a model= where it is affine, or save the ticket with "
            "fold=False"
        )
    found = unfolded(name, parts.tensors, norm.eps)
    return {norm.names[part]: value for part, value in found.items() if part in norm.names}
