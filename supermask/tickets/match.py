"""Whether a ticket is that of a network: every difference by name."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from supermask.checks import join
from supermask.networks.anatomy import Anatomy, BatchNorm
from supermask.tickets.container import DTYPES
from supermask.tickets.errors import TicketError
from supermask.tickets.info import Layer, TensorInfo, TicketInfo

__all__ = ["check_fit", "check_parts", "check_storable", "same_bits"]

_NAMED = 12  # differences that an error names
_Kind = tuple[tuple[int, ...], torch.dtype]


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors on one device are alike in dtype, shape and every bit."""
    if one.dtype is not two.dtype or one.shape != two.shape:
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, two)))


def check_fit(network: Anatomy, called: str, info: TicketInfo) -> None:
    """Nothing, if the layers and tensors of a ticket are those of `network`.

    Raises:
        TicketError: they are not; every difference is named.
    """
    stored = {tensor.name: tensor for tensor in info.tensors}
    check_parts(info.path, network, called, info.layers, stored, info.folded)


def check_parts(
    where: str,
    network: Anatomy,
    called: str,
    layers: Sequence[Layer],
    tensors: Mapping[str, TensorInfo],
    folded: Collection[str],
) -> None:
    """`check_fit` of what a ticket is to be made of."""
    check_storable(where, network)
    wrong = [*_of_layers(network, layers)]
    foldable = network.batch_norms
    wrong += [
        f"batch norm {name!r}: folded in the ticket, not in the network" for name in folded if name not in foldable
    ]
    wrong += _of_tensors(_expected(network, layers, tensors, set(folded)), tensors)
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        named = "; ".join(sorted(wrong)[:_NAMED]) + more
        raise TicketError(f"{where}: the ticket is of another network than {called}: {named}")


def check_storable(where: str, network: Anatomy) -> None:
    """Nothing, if a ticket can hold the state dict of `network`.

    Raises:
        TicketError: it cannot.
    """
    if network.odd:
        raise TicketError(
            f"{where}: {network.odd[0]!r} of the state dict is no dense tensor, and a ticket holds nothing else"
        )


def _of_layers(network: Anatomy, layers: Sequence[Layer]) -> Iterator[str]:
    """How the layers of a ticket differ from the places for them."""
    slots, names = network.slots, {layer.name for layer in layers}
    for layer in layers:
        if layer.name not in slots:
            yield f"layer {layer.name!r}: not in the network"
        elif (shape := slots[layer.name].shape) != layer.shape:
            yield f"layer {layer.name!r}: shape {layer.shape} in the ticket, {shape} in the network"
    for name in network.edges.keys() - names:
        yield f"layer {name!r}: masked in the network, not in the ticket"


def _expected(
    network: Anatomy, layers: Sequence[Layer], tensors: Mapping[str, TensorInfo], folded: set[str]
) -> dict[str, _Kind]:
    """The tensors that a ticket of `network` with these masked layers and folded norms has beside the planes."""
    expected: dict[str, _Kind] = {name: (tuple(t.shape), t.dtype) for name, t in network.tensors.items()}
    for name, norm in network.norms.items():
        if name in folded and isinstance(norm, BatchNorm):
            for full in norm.names.values():
                expected.pop(full, None)
            shape = tuple(norm.mean.shape)
            expected |= {join(name, part): (shape, torch.float32) for part in ("weight", "bias")}
        elif norm.affine.isdisjoint(tensors):
            for full in norm.affine:
                expected.pop(full, None)
    for layer in layers:
        if (slot := network.slots.get(layer.name)) is None:
            continue
        for full in (slot.weight, slot.bias):
            expected.pop(full, None)
        bias = join(layer.name, "bias")
        if slot.outputs and bias in tensors:
            expected[bias] = (slot.outputs,), torch.float32
    return expected


def _of_tensors(expected: Mapping[str, _Kind], tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """How the tensors of a ticket differ from those that are expected."""
    for name in expected.keys() - tensors.keys():
        yield f"tensor {name!r}: not in the ticket"
    for name in tensors.keys() - expected.keys():
        yield f"tensor {name!r}: not in the network"
    for name in expected.keys() & tensors.keys():
        (shape, dtype), found = expected[name], tensors[name]
        stored = DTYPES[found.dtype]
        floating = dtype.is_floating_point and stored.is_floating_point
        if shape != found.shape or not (dtype is stored or floating):
            yield f"tensor {name!r}: {stored} {found.shape} in the ticket, {dtype} {shape} in the network"
