"""Tickets: a searched network as a file of about one bit an edge, and back.

    save(model, "ticket.safetensors", architecture=architecture)
    network = load("ticket.safetensors")
    print(inspect("ticket.safetensors"))

The file holds masks, the seed, and what else the network computes with (supermask/ticket_file.py); the weights are made
from the seed. A reloaded network gives the searched one's logits to the bit, on the device both run on.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kernels.bits import pack, unpack
from supermask import ticket_file
from supermask.convert import NORMS, convertible, replace_layers, set_norm
from supermask.draws import check_choice
from supermask.edges import Edges, SearchedEdges
from supermask.layers import Bias, MaskedLayer
from supermask.making import Making
from supermask.networks import Architecture
from supermask.packed_edges import PackedEdges
from supermask.selection import all_edges
from supermask.ticket_file import LayerInfo, TensorInfo, TicketError, TicketInfo

__all__ = ["LayerInfo", "TensorInfo", "TicketError", "TicketInfo", "inspect", "load", "save"]

_NAMED = 12  # differences that an error names


@torch.no_grad()
def save(model: nn.Module, path: str | Path, *, architecture: Architecture | None) -> None:
    """Write the ticket of `model`, with the masks of this moment; the file appears whole or not at all.

    Args:
        model: network with masked layers, searched or loaded from a ticket. It is not changed.
        architecture: what the network is rebuilt from; None where whoever loads it will bring the model.

    Raises:
        TicketError: nothing masked, more than one seed, an architecture that is not the model's, a file that cannot be
            written. What was at `path` is then still there.
    """
    path = Path(path)
    if not isinstance(architecture, Architecture | None):
        raise TypeError(f"architecture is {architecture!r}: expected a supermask.Architecture or None")
    edges = all_edges(model)
    if not edges:
        raise TicketError(f"{path}: {type(model).__name__} has no masked layer, so there is no ticket to save")
    seeds = {layer.seed: name for name, layer in edges.items()}
    if len(seeds) > 1:
        each = ", ".join(f"{name!r} has {seed}" for seed, name in seeds.items())
        raise TicketError(f"{path}: a ticket has one seed, and layer {each}")
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in _others(model, path).items()
    }
    layers = []
    masks = {}
    for name, layer in sorted(edges.items(), key=lambda item: item[1].layer):
        if isinstance(layer, SearchedEdges) and torch.isnan(layer.scores).any():
            raise TicketError(
                f"{path}: layer {name!r}: scores are NaN, so its mask means nothing: the search broke down"
            )
        bits = unpack(layer.mask().cpu(), layer.cols).numpy()
        info = LayerInfo(
            name=name,
            index=layer.layer,
            shape=layer.shape,
            weights=layer.weights,
            constant=float(layer.constant),
            kept=int(bits.sum()),
            generation=layer.generation,
        )
        if not math.isfinite(info.constant):
            raise TicketError(f"{path}: layer {name!r}: constant {info.constant}: expected a finite number")
        if info.mask_name in tensors:
            raise TicketError(f"{path}: layer {name!r}: a tensor of the model has its mask's name {info.mask_name!r}")
        layers.append(info)
        masks[info.mask_name] = torch.from_numpy(np.packbits(bits.reshape(-1), bitorder="little"))
    if architecture is not None:
        _check_fit(path, _skeleton(path, architecture), str(architecture), layers, tensors)
    ticket_file.write(path, masks | tensors, seed=next(iter(seeds)), architecture=architecture, layers=layers)


def load(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    weights: Making = "auto",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The network of a ticket, in eval mode, all of it frozen. Torch's random state is not touched.

    Args:
        model: dense or masked network to turn into the ticket's, in place, where the ticket names no architecture or
            another one is wanted. One that does not fit is left as it was.
        weights: how layers come by them. "cached": made once, float32, and kept. "materialised": made at each forward,
            a layer at a time. "on_the_fly": inside the product, from one bit an edge; what has no such product (1-d,
            3-d and transposed convolutions, and on CPU 2-d ones) is materialised. "auto": what costs least for the
            call (supermask/making.py). The weights have the same bits in all of them, and with the first two so do the
            logits; products that make their weights add up in another order. Transforms of torch.func and forward-mode
            gradients take the first two only.
        device: where the network goes.

    Raises:
        TicketError: a file that is not a whole, consistent ticket, or a model that does not fit it, each difference
            named. The file is checked before a network is built.
    """
    check_choice("weights", weights, Making)
    path = Path(path)
    info, tensors = ticket_file.read(path)
    others = {tensor.name: tensors[tensor.name] for tensor in info.tensors}
    if model is not None:
        _check_fit(path, model, type(model).__name__, info.layers, others)
    elif info.architecture is None:
        raise TicketError(f"{path}: the ticket names no architecture: give the network it belongs to as model=")
    else:
        _check_fit(path, _skeleton(path, info.architecture), str(info.architecture), info.layers, others)
        model = info.architecture.build()
    edges = {
        layer.name: PackedEdges(
            layer.shape,
            _words(layer, tensors[layer.mask_name]),
            seed=info.seed,
            layer=layer.index,
            generation=layer.generation,
            weights=layer.weights,
            constant=layer.constant,
            making=weights,
            device=device,
        )
        for layer in info.layers
    }
    try:
        model = _attach(model, edges, others)
        _fill(model, others)
    except (ValueError, RuntimeError) as error:
        raise TicketError(f"{path}: the network does not take the ticket: {error}") from error
    return model.requires_grad_(False).eval().to(device)


def inspect(path: str | Path) -> TicketInfo:
    """What a ticket holds, after all checks that `load` makes of the file; no network is built.

    Raises:
        TicketError: a file that is not a whole, consistent ticket.
    """
    return ticket_file.read(Path(path))[0]


def _others(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """State-dict entries that are not of edges; a tensor with several names is there once, under the first."""
    inside = tuple(
        f"{name}.".lstrip(".")
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Edges)
    )
    others: dict[str, Tensor] = {}
    seen = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise TicketError(f"{path}: {name!r} of the state dict is no dense tensor, and a ticket holds nothing else")
        if not name.startswith(inside) and id(value) not in seen:
            seen.add(id(value))
            others[name] = value
    return others


def _skeleton(path: Path, architecture: Architecture) -> nn.Module:
    try:
        return architecture.skeleton()
    except ValueError as error:
        raise TicketError(f"{path}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """Where a masked layer can go: its weight's shape, its outputs, and the tensors that it takes the place of."""

    shape: tuple[int, ...]
    outputs: int = 0
    replaces: tuple[str, ...] = ()
    masked: bool = False


def _slots(model: nn.Module) -> dict[str, _Slot]:
    slots = {name: _Slot(shape=edges.shape, masked=True) for name, edges in all_edges(model).items()}
    uses = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for name, module in model.named_modules():
        at = f"{name}.".lstrip(".")
        if isinstance(module, MaskedLayer):
            slots[name] = _Slot(shape=module.edges.shape, outputs=module.outputs, replaces=(f"{at}bias",), masked=True)
        elif not convertible(module) or any(uses[id(p)] > 1 for p in module.parameters(recurse=False)):
            continue
        elif isinstance(module, nn.MultiheadAttention):
            size = module.embed_dim
            for part, outputs, replaces in (
                ("in_proj", 3 * size, ("in_proj_weight", "in_proj_bias")),
                ("out_proj", size, ("out_proj.weight", "out_proj.bias")),
            ):
                slots[at + part] = _Slot(
                    shape=(outputs, size), outputs=outputs, replaces=tuple(at + tensor for tensor in replaces)
                )
        else:
            dense: Any = module
            slots[name] = _Slot(
                shape=tuple(dense.weight.shape),
                outputs=dense.out_features if isinstance(module, nn.Linear) else dense.out_channels,
                replaces=(f"{at}weight", f"{at}bias"),
            )
    return slots


def _check_fit(
    path: Path, model: nn.Module, called: str, layers: Sequence[LayerInfo], others: Mapping[str, Tensor]
) -> None:
    """Raise TicketError, naming every difference, unless the layers and tensors of a ticket are those of `model`."""
    slots = _slots(model)
    names = {layer.name for layer in layers}
    wrong = [f"layer {name!r}: not in the network" for name in names - slots.keys()]
    wrong += [
        f"layer {name!r}: masked in the network, not in the ticket"
        for name, slot in slots.items()
        if slot.masked and name not in names
    ]
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in _others(model, path).items()}
    for norm in _norms(model).values():
        if not norm & others.keys():
            expected = {name: kind for name, kind in expected.items() if name not in norm}
    for layer in layers:
        if layer.name not in slots:
            continue
        slot = slots[layer.name]
        if slot.shape != layer.shape:
            wrong.append(f"layer {layer.name!r}: shape {layer.shape} in the ticket, {slot.shape} in the network")
        expected = {name: kind for name, kind in expected.items() if name not in slot.replaces}
        bias = f"{layer.name}.bias".lstrip(".")
        if slot.outputs and bias in others:
            expected[bias] = (slot.outputs,), torch.float32
    wrong += [f"tensor {name!r}: not in the ticket" for name in expected.keys() - others.keys()]
    wrong += [f"tensor {name!r}: not in the network" for name in others.keys() - expected.keys()]
    for name in expected.keys() & others.keys():
        (shape, dtype), found = expected[name], others[name]
        floating = dtype.is_floating_point and found.is_floating_point()
        if shape != found.shape or not (dtype is found.dtype or floating):
            wrong.append(
                f"tensor {name!r}: {found.dtype} {tuple(found.shape)} in the ticket, {dtype} {shape} in the network"
            )
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        named = "; ".join(sorted(wrong)[:_NAMED]) + more
        raise TicketError(f"{path}: the ticket is of another network than {called}: {named}")


def _norms(model: nn.Module) -> dict[nn.Module, set[str]]:
    """Normalisation layers with the names of their scale and shift."""
    return {
        module: {f"{at}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)}
        for at, module in model.named_modules()
        if isinstance(module, NORMS)
    }


def _words(layer: LayerInfo, mask: Tensor) -> Tensor:
    bits = np.unpackbits(mask.numpy(), count=layer.edges, bitorder="little")
    return pack(torch.from_numpy(bits).view(torch.bool).view(layer.shape[0], -1))


def _attach(model: nn.Module, edges: Mapping[str, PackedEdges], others: Mapping[str, Tensor]) -> nn.Module:
    """`model` with masked layers over `edges`, and normalisation as affine as the ticket's."""
    waiting = dict(edges)

    def bias(layer: str) -> Tensor | None:
        stored = others.get(f"{layer}.bias".lstrip("."))
        return None if stored is None else stored.clone()

    def build(name: str, _weight: Tensor, _bias: Tensor | None) -> tuple[Edges, Bias] | None:
        return (waiting.pop(name), bias(name)) if name in waiting else None

    masked = {id(module): name for name, module in all_edges(model).items()}
    for owner in list(model.modules()):
        for child, module in list(owner.named_children()):
            if id(module) in masked:
                name = masked[id(module)]
                setattr(owner, child, waiting.pop(name))
                if isinstance(owner, MaskedLayer):
                    owner._parameters.pop("bias", None)
                    owner._buffers.pop("bias", None)
                    owner.register_buffer("bias", bias(name))
    if waiting:
        model = replace_layers(model, build)
    if waiting:
        raise ValueError(f"layers {sorted(waiting)} cannot be masked in it")
    for norm, names in _norms(model).items():
        if not names & others.keys():
            set_norm(norm, "non_affine")
    return model


@torch.no_grad()
def _fill(model: nn.Module, others: Mapping[str, Tensor]) -> None:
    """Copy the ticket's tensors into the network, in the ticket's dtypes; tensors that are one stay one."""
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in state.items():
        stored = others.get(first.setdefault(id(tensor), name))
        if stored is not None:
            tensor.data = tensor.data.to(stored.dtype)
            state[name] = stored
    model.load_state_dict(state)
