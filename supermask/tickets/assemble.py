"""A ticket's parts, and the network that they are put into: what `load` and the exported forms share."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from supermask.edges.base import Edges
from supermask.edges.in_model import all_edges
from supermask.edges.making import Making
from supermask.edges.packed import PackedEdges
from supermask.networks.architecture import Architecture
from supermask.networks.convert import replace_layers
from supermask.networks.layers import Bias, MaskedLayer
from supermask.networks.norms import set_norm
from supermask.tickets.errors import TicketError
from supermask.tickets.file import Reader, reading
from supermask.tickets.info import LayerInfo, TicketInfo
from supermask.tickets.match import check_fit, first_names, names_in, norms

__all__ = ["Parts", "allocate", "masked", "read_parts", "skeleton", "skeleton_of", "unfolded"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """A ticket, read, and a network that it fits.

    Attributes:
        network: as it was: the caller's, or the skeleton of the architecture that the ticket names.
        is_skeleton: whether it is that, without memory.
        edges: of the masked layers, by name.
        tensors: the others, by name, widened to what they were before they were narrowed for the file.
    """

    info: TicketInfo
    network: nn.Module
    is_skeleton: bool
    edges: Mapping[str, PackedEdges]
    tensors: Mapping[str, Tensor]


def read_parts(
    file: str | Path | BinaryIO, *, model: nn.Module | None, weights: Making, device: torch.device | str
) -> Parts:
    """The parts of a ticket, as `load` takes it.

    Raises:
        TicketError: a file that is not a whole, consistent ticket, or a model that does not fit it; the model is as it
            was. The file is checked before a network is built.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model is {model!r}: expected an nn.Module, a network and not its class")
    with reading(file) as reader:
        info = reader.info
        network = model if model is not None else skeleton_of(info)
        called = str(info.architecture) if model is None else type(model).__name__
        check_fit(info.path, network, called, info)
        if model is not None and (empty := [n for n, t in model.state_dict(keep_vars=True).items() if t.is_meta]):
            raise TicketError(
                f"{info.path}: tensor {empty[0]!r} of {called} is on the meta device: build it on a real one"
            )
        edges = {layer.name: _packed(reader, layer, weights, device) for layer in info.layers}
        tensors = {tensor.name: _widened(reader.tensor(tensor.name), info) for tensor in info.tensors}
    return Parts(info=info, network=network, is_skeleton=model is None, edges=edges, tensors=tensors)


def masked(parts: Parts) -> nn.Module:
    """The network of a ticket over its edges, in eval mode and frozen.

    Raises:
        TicketError: the network does not take them.
    """
    info = parts.info
    try:
        network = _attach(parts.network, parts)
        if parts.is_skeleton and (unfilled := allocate(network, parts.tensors)):
            # Something is computed where the architecture is built, and not stored: it takes the network itself.
            assert info.architecture is not None, unfilled
            network = _attach(info.architecture.build(), parts)
        _fill(network, parts.tensors)
    except (ValueError, RuntimeError) as error:
        raise TicketError(f"{info.path}: the network does not take the ticket: {error}") from error
    return network.requires_grad_(False).eval()


def skeleton(where: str, architecture: Architecture) -> nn.Module:
    try:
        return architecture.skeleton()
    except ValueError as error:
        raise TicketError(f"{where}: {error}") from error


def skeleton_of(info: TicketInfo) -> nn.Module:
    """The network that a ticket names, without memory."""
    if info.architecture is None:
        raise TicketError(
            f"{info.path}: the ticket names no architecture: give the network it belongs to as model=, in Python"
        )
    return skeleton(info.path, info.architecture)


def _packed(reader: Reader, layer: LayerInfo, making: Making, device: torch.device | str) -> PackedEdges:
    """The edges of one layer of a ticket."""
    bits = reader.bits(layer)
    try:
        return PackedEdges(
            layer.shape,
            bits.coats[0] if len(bits.coats) == 1 else torch.stack(bits.coats),
            flips=bits.flips,
            seed=reader.info.seed,
            layer=layer.index,
            generation=layer.generation,
            weights=layer.weights,
            constant=layer.constant,
            making=making,
            device=device,
        )
    except ValueError as error:
        raise TicketError(f"{reader.info.path}: layer {layer.name!r}: {error}") from error


def _widened(tensor: Tensor, info: TicketInfo) -> Tensor:
    return tensor.float() if info.narrowed and tensor.dtype is torch.bfloat16 else tensor


def _attach(model: nn.Module, parts: Parts) -> nn.Module:
    """`model` with masked layers over the ticket's edges, and normalisation as affine as the ticket's."""
    tensors = parts.tensors
    waiting = dict(parts.edges)

    def bias(layer: str) -> Tensor | None:
        stored = tensors.get(f"{layer}.bias".lstrip("."))
        return None if stored is None else stored.clone()

    def build(name: str, _weight: Tensor, _bias: Tensor | None) -> tuple[Edges, Bias] | None:
        return (waiting.pop(name), bias(name)) if name in waiting else None

    there = {id(module): name for name, module in all_edges(model).items()}
    for owner in list(model.modules()):
        for child, module in list(owner.named_children()):
            if id(module) in there:
                name = there[id(module)]
                setattr(owner, child, waiting.pop(name))
                if isinstance(owner, MaskedLayer):
                    owner._parameters.pop("bias", None)
                    owner._buffers.pop("bias", None)
                    owner.register_buffer("bias", bias(name))
    if waiting:
        model = replace_layers(model, build)
    if waiting:
        raise ValueError(f"layers {sorted(waiting)} cannot be masked in it")
    first = first_names(model)
    for name, norm in norms(model).items():
        own = names_in(name, norm)
        affine = {first[own[part]] for part in ("weight", "bias") if part in own}
        if name in parts.info.folded:
            _unfold(norm, name, tensors)
        elif affine.isdisjoint(tensors):
            set_norm(norm, "non_affine")
    return model


def _unfold(norm: Any, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Make a batch norm a scale and a shift."""
    values = unfolded(name, tensors, norm.eps)
    norm.affine = True
    norm.weight, norm.bias = nn.Parameter(values["weight"].clone()), nn.Parameter(values["bias"].clone())
    norm.running_mean, norm.running_var = values["running_mean"], values["running_var"]
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked = values["num_batches_tracked"]


def unfolded(name: str, tensors: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """The tensors of a folded batch norm, by their names in it: its statistics those by which it changes nothing."""
    scale, shift = (tensors[f"{name}.{part}".lstrip(".")] for part in ("weight", "bias"))
    return {
        "weight": scale,
        "bias": shift,
        "running_mean": torch.zeros_like(scale),
        "running_var": torch.full_like(scale, 1 - eps),
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def allocate(model: nn.Module, names: Collection[str]) -> list[str]:
    """Give tensors without memory some, to be filled; the names of those that are not in `names`, which are to be.

    Tensors that are one stay one.
    """
    made: dict[int, Tensor] = {}
    filled: set[int] = {id(t) for name, t in model.state_dict(keep_vars=True).items() if name in names}
    left = []
    for owner_name, owner in model.named_modules():
        if isinstance(owner, Edges):  # there, and on the device asked for
            continue
        for kind in (owner._parameters, owner._buffers):
            for name, tensor in kind.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in filled:
                    left.append(f"{owner_name}.{name}".lstrip("."))
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    made[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
                kind[name] = made[id(tensor)]
    return left


def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the ticket's tensors into the network, in the ticket's dtypes; tensors that are one stay one."""
    with torch.no_grad():
        state = model.state_dict(keep_vars=True)
        stored = {name: tensors[first] for name, first in first_names(model).items() if first in tensors}
        for name, value in stored.items():
            state[name].data = state[name].data.to(value.dtype)
        model.load_state_dict(stored, strict=False)  # edges have theirs
