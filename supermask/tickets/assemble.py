"""A ticket's parts, and the network that they are put into: what `load` and the exported forms share."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from supermask.checks import join
from supermask.edges.base import Edges
from supermask.edges.making import Making
from supermask.edges.packed import PackedEdges
from supermask.edges.stored import Stored
from supermask.edges.wrappers import names_inside, wrapped_part
from supermask.networks.anatomy import Anatomy, carve
from supermask.networks.architecture import Architecture
from supermask.networks.convert import replace_layers
from supermask.networks.convertible import unmade, unshaped
from supermask.networks.layers import MaskedLayer
from supermask.networks.norms import set_norm
from supermask.networks.undo import as_it_was
from supermask.tickets.errors import TicketError
from supermask.tickets.file import Reader, reading
from supermask.tickets.info import LayerInfo, TicketInfo
from supermask.tickets.match import check_fit, same_bits

__all__ = ["Parts", "masked", "parts_of", "read_parts", "realised", "skeleton", "skeleton_of", "unfolded"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """A ticket, read, and a network that it fits.

    Attributes:
        network: as it was: the caller's, or the skeleton of `architecture`.
        architecture: what the network is rebuilt from, which the ticket names; None where it is the caller's.
        edges: of the masked layers, by name.
        tensors: the others, by name, widened to what they were before they were narrowed for the file.
    """

    info: TicketInfo
    network: Anatomy
    architecture: Architecture | None
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
        return parts_of(reader, model=model, weights=weights, device=device)


def parts_of(reader: Reader, *, model: nn.Module | None, weights: Making, device: torch.device | str) -> Parts:
    """`read_parts` of an open ticket."""
    info = reader.info
    if model is not None:
        _check_given(info.path, model)
    network = carve(model if model is not None else skeleton_of(info))
    called = str(info.architecture) if model is None else type(model).__name__
    check_fit(network, called, info)
    if model is not None and (wrong := unmade(model)):
        raise TicketError(f"{info.path}: {called}: {wrong}")
    return Parts(
        info=info,
        network=network,
        architecture=info.architecture if model is None else None,
        edges={layer.name: _packed(reader, layer, weights, device) for layer in info.layers},
        tensors={tensor.name: _widened(reader.tensor(tensor.name), info) for tensor in info.tensors},
    )


def _check_given(where: str, model: nn.Module) -> None:
    """Raise TicketError of a network that no ticket can be put into."""
    called = type(model).__name__
    if part := wrapped_part(model):
        raise TicketError(f"{where}: {called} wraps a network: give the one inside, its .{part}, and wrap that again")
    if wrong := unshaped(model):
        raise TicketError(f"{where}: {called}: {wrong}")


def masked(parts: Parts) -> nn.Module:
    """The network of a ticket over its edges, in eval mode and frozen.

    Raises:
        TicketError: the network does not take them.
    """
    try:
        with as_it_was(parts.network.model):
            network = realised(parts, partial(_attached, parts), parts.tensors)
            _fill(network, parts)
    except Exception as error:  # modules raise whatever they stumble over as they load
        said = str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        raise TicketError(f"{parts.info.path}: the network does not take the ticket: {said}") from error
    return network.requires_grad_(False).eval()


def realised(parts: Parts, change: Callable[[Anatomy], nn.Module], names: Collection[str]) -> nn.Module:
    """The network of a ticket after `change`, with memory.

    Args:
        names: of the tensors that are going to be filled.
    """
    network = change(parts.network)
    if parts.architecture is not None and not _allocated(network, names):
        # Something is computed where the architecture is built, and not stored: it takes the network itself.
        network = change(carve(parts.architecture.build()))
    return network


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
    stored = Stored(planes=reader.planes(layer), values=layer.values)
    try:
        return PackedEdges.of(
            stored,
            layer.shape,
            seed=reader.info.seed,
            layer=layer.index,
            generation=layer.generation,
            weights=layer.weights,
            making=making,
            device=device,
        )
    except ValueError as error:
        raise TicketError(f"{reader.info.path}: layer {layer.name!r}: {error}") from error


def _widened(tensor: Tensor, info: TicketInfo) -> Tensor:
    return tensor.float() if info.narrowed and tensor.dtype is torch.bfloat16 else tensor


def _attached(parts: Parts, network: Anatomy) -> nn.Module:
    """The network with masked layers over the ticket's edges, and normalisation as affine as the ticket's."""
    model = _replaced(parts, network)
    for name, slot in network.slots.items():
        if slot.edges is not None and slot.owner is not None:
            _renew(slot.owner, slot.edges, parts.edges[name], _bias(parts, name))
    for name, norm in network.norms.items():
        if name in parts.info.folded:
            _unfold(norm.module, name, parts.tensors)
        elif {network.first[full] for full in norm.affine}.isdisjoint(parts.tensors):
            set_norm(norm.module, "non_affine")
    return model


def _replaced(parts: Parts, network: Anatomy) -> nn.Module:
    """The network with masked layers in the place of dense ones."""
    waiting = {name: edges for name, edges in parts.edges.items() if network.slots[name].owner is None}
    if not waiting:
        return network.model

    def build(name: str, *_dense: Tensor | None) -> tuple[Edges, Tensor | None] | None:
        return (waiting.pop(name), _bias(parts, name)) if name in waiting else None

    model = replace_layers(network.model, build)
    if waiting:
        raise ValueError(f"layers {sorted(waiting)} cannot be masked in it")
    return model


def _bias(parts: Parts, layer: str) -> Tensor | None:
    """A copy of the ticket's bias of one layer."""
    stored = parts.tensors.get(join(layer, "bias"))
    return None if stored is None else stored.clone()


def _renew(owner: nn.Module, old: Edges, edges: Edges, bias: Tensor | None) -> None:
    """Put a ticket's edges in the place of those that a masked layer has, and its bias."""
    if isinstance(owner, MaskedLayer):
        owner.edges = edges
        del owner.bias
        owner.register_buffer("bias", bias)
    else:
        setattr(owner, next(name for name, module in owner.named_children() if module is old), edges)


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
    scale, shift = (tensors[join(name, part)] for part in ("weight", "bias"))
    return {
        "weight": scale,
        "bias": shift,
        "running_mean": torch.zeros_like(scale),
        "running_var": torch.full_like(scale, 1 - eps),
        "num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def _allocated(model: nn.Module, names: Collection[str]) -> bool:
    """Give tensors without memory some, to be filled; whether those in `names`, which are to be, are all there are.

    Tensors that are one stay one.
    """
    made: dict[int, Tensor] = {}
    filled = {id(tensor) for name, tensor in model.state_dict(keep_vars=True).items() if name in names}
    for owner in model.modules():
        if isinstance(owner, Edges):  # there, and on the device asked for
            continue
        parameters = owner.named_parameters(recurse=False, remove_duplicate=False)
        buffers = owner.named_buffers(recurse=False, remove_duplicate=False)
        for name, tensor in [*parameters, *buffers]:
            if not tensor.is_meta:
                continue
            if id(tensor) not in made:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                made[id(tensor)] = nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty
            setattr(owner, name, made[id(tensor)])
    return made.keys() <= filled


def _fill(model: nn.Module, parts: Parts) -> None:
    """Have the network load the ticket's tensors, in the ticket's dtypes; tensors that are one stay one.

    They are of the version of a state dict that its modules write.
    """
    state, inside = model.state_dict(keep_vars=True), names_inside(model)
    called, first = {name: inside(name) for name in state}, parts.network.first
    sources = {name: own if own in parts.tensors else first.get(own, own) for name, own in called.items()}
    found = {name: parts.tensors[source] for name, source in sources.items() if source in parts.tensors}
    stored = OrderedDict(found)
    stored._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
    with torch.no_grad():
        for name, value in found.items():
            state[name].data = torch.empty_like(value, device=state[name].device)  # what was there stays as it was
        model.load_state_dict(stored, strict=False)  # edges have theirs
    state = model.state_dict(keep_vars=True)  # a module may have loaded into tensors that it made anew
    if wrong := [name for name, value in found.items() if not same_bits(state[name].detach().cpu(), value)]:
        raise ValueError(f"{called[wrong[0]]} is another after it was loaded: a module changes what it loads")
