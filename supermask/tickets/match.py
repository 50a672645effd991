"""Whether a ticket is that of a network: the places where masked layers can go, and every difference by name."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supermask.edges.base import Edges
from supermask.edges.in_model import all_edges
from supermask.networks.convertible import convertible
from supermask.networks.layers import MaskedLayer
from supermask.networks.norms import NORMS, is_batch_norm
from supermask.tickets.container import DTYPES
from supermask.tickets.errors import TicketError
from supermask.tickets.info import LayerInfo, TensorInfo, TicketInfo

__all__ = ["Slot", "check_fit", "first_names", "folding", "names_in", "norms", "others", "slots"]

_NAMED = 12  # differences that an error names


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where a masked layer can go.

    Attributes:
        shape: of the weight.
        outputs: length of a bias.
        weight, bias: names of the dense tensors whose place it takes; "" where it is masked already.
        masked: whether it is.
    """

    shape: tuple[int, ...]
    outputs: int = 0
    weight: str = ""
    bias: str = ""
    masked: bool = False


def slots(model: nn.Module) -> dict[str, Slot]:
    """The places for masked layers in `model`, by the names that those have."""
    found = {name: Slot(shape=edges.shape, masked=True) for name, edges in all_edges(model).items()}
    uses = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for name, module in model.named_modules():
        at = f"{name}.".lstrip(".")
        if isinstance(module, MaskedLayer):
            found[name] = Slot(shape=module.edges.shape, outputs=module.outputs, bias=f"{at}bias", masked=True)
        elif not convertible(module) or any(uses[id(p)] > 1 for p in module.parameters(recurse=False)):
            continue
        elif isinstance(module, nn.MultiheadAttention):
            size = module.embed_dim
            for part, outputs, joint in (("in_proj", 3 * size, "_"), ("out_proj", size, ".")):
                weight, bias = f"{at}{part}{joint}weight", f"{at}{part}{joint}bias"
                found[at + part] = Slot(shape=(outputs, size), outputs=outputs, weight=weight, bias=bias)
        else:
            dense: Any = module
            found[name] = Slot(
                shape=tuple(dense.weight.shape),
                outputs=dense.out_features if isinstance(module, nn.Linear) else dense.out_channels,
                weight=f"{at}weight",
                bias=f"{at}bias",
            )
    return found


def others(model: nn.Module, where: str) -> dict[str, Tensor]:
    """State-dict entries that are not of edges; a tensor with several names is there once, under the first.

    Raises:
        TicketError: one that a ticket cannot hold.
    """
    inside = tuple(
        f"{name}.".lstrip(".")
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Edges)
    )
    found: dict[str, Tensor] = {}
    seen = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise TicketError(
                f"{where}: {name!r} of the state dict is no dense tensor, and a ticket holds nothing else"
            )
        if not name.startswith(inside) and id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """Normalisation layers, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}


def folding(model: nn.Module) -> dict[str, nn.BatchNorm1d]:
    """The batch norms that are a scale and a shift in eval mode, by name: those with running statistics."""
    return {
        name: module
        for name, module in norms(model).items()
        if is_batch_norm(module) and module.running_mean is not None
    }


def first_names(model: nn.Module) -> dict[str, str]:
    """State-dict names, each with the first name of the same tensor: a ticket has it under that one."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in model.state_dict(keep_vars=True).items()}


def names_in(name: str, module: nn.Module) -> dict[str, str]:
    """State-dict names of the tensors of one module, by their names in it."""
    return {own: f"{name}.{own}".lstrip(".") for own in module.state_dict()}


def check_fit(where: str, model: nn.Module, called: str, info: TicketInfo) -> None:
    """Nothing, if the layers and tensors of a ticket are those of `model`.

    Raises:
        TicketError: they are not; every difference is named.
    """
    check_parts(where, model, called, info.layers, {tensor.name: tensor for tensor in info.tensors}, info.folded)


def check_parts(
    where: str,
    model: nn.Module,
    called: str,
    layers: Sequence[LayerInfo],
    tensors: Mapping[str, TensorInfo],
    folded: Collection[str],
) -> None:
    """`check_fit` of what a ticket is to be made of."""
    places = slots(model)
    names = {layer.name for layer in layers}
    wrong = [f"layer {name!r}: not in the network" for name in names - places.keys()]
    wrong += [
        f"layer {name!r}: masked in the network, not in the ticket"
        for name, slot in places.items()
        if slot.masked and name not in names
    ]
    expected = {name: (tuple(t.shape), t.dtype) for name, t in others(model, where).items()}
    can_fold = folding(model)
    wrong += [
        f"batch norm {name!r}: folded in the ticket, not in the network" for name in folded if name not in can_fold
    ]
    for name, module in norms(model).items():
        own = names_in(name, module)
        affine = {own.get("weight"), own.get("bias")}
        if name in folded and name in can_fold:
            expected = {key: value for key, value in expected.items() if key not in own.values()}
            for part in ("weight", "bias"):
                expected[f"{name}.{part}".lstrip(".")] = (can_fold[name].num_features,), torch.float32
        elif not affine & tensors.keys():
            expected = {key: value for key, value in expected.items() if key not in affine}
    for layer in layers:
        if layer.name not in places:
            continue
        slot = places[layer.name]
        if slot.shape != layer.shape:
            wrong.append(f"layer {layer.name!r}: shape {layer.shape} in the ticket, {slot.shape} in the network")
        expected = {key: value for key, value in expected.items() if key not in (slot.weight, slot.bias)}
        bias = f"{layer.name}.bias".lstrip(".")
        if slot.outputs and bias in tensors:
            expected[bias] = (slot.outputs,), torch.float32
    wrong += [f"tensor {name!r}: not in the ticket" for name in expected.keys() - tensors.keys()]
    wrong += [f"tensor {name!r}: not in the network" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        (shape, dtype), found = expected[name], tensors[name]
        stored = DTYPES[found.dtype]
        floating = dtype.is_floating_point and stored.is_floating_point
        if shape != found.shape or not (dtype is stored or floating):
            wrong.append(f"tensor {name!r}: {stored} {found.shape} in the ticket, {dtype} {shape} in the network")
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        named = "; ".join(sorted(wrong)[:_NAMED]) + more
        raise TicketError(f"{where}: the ticket is of another network than {called}: {named}")
