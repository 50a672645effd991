"""How two tickets of one network differ: masks, seed, and every other tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from supermask.checks import join
from supermask.edges.overlap import Masks, Overlap, overlap
from supermask.tickets.errors import TicketError
from supermask.tickets.file import Planes, Reader, reading
from supermask.tickets.info import LayerInfo
from supermask.tickets.names import PLANES, VALUES

__all__ = ["Difference", "diff"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two tickets of one network differ.

    Attributes:
        layers: overlap of their masks (supermask/edges/overlap.py), by layer.
        total: of all layers.
        fields: by name, what their headers say differently: (of a, of b).
        tensors: largest difference of the elements of each other tensor; NaN where shapes differ or one is missing.
    """

    layers: Mapping[str, Overlap]
    total: Overlap
    fields: Mapping[str, tuple[Any, Any]]
    tensors: Mapping[str, float]

    @property
    def same(self) -> bool:
        """Whether they are one network: the same masks, seed and tensors."""
        masks = all(layer.a == layer.b == layer.common for layer in self.layers.values())
        return masks and not self.fields and not any(self.tensors.values())


def diff(a: str | Path | BinaryIO, b: str | Path | BinaryIO) -> Difference:
    """Compare two tickets whose layers have the same names and shapes.

    Raises:
        TicketError: one of them cannot be read, or they are of different networks.
    """
    with reading(a) as one, reading(b) as two:
        _check_same_layers(one, two)
        fields: dict[str, tuple[Any, Any]] = {}
        for name in ("seed", "architecture"):
            fields[name] = getattr(one.info, name), getattr(two.info, name)
        of_b = {layer.name: layer for layer in two.info.layers}
        planes: tuple[dict[str, Planes], dict[str, Planes]] = {}, {}
        for layer in one.info.layers:
            other = of_b[layer.name]
            planes[0][layer.name], planes[1][layer.name] = one.planes(layer), two.planes(other)
            for name, values in _of_layer(layer, other, planes[0][layer.name], planes[1][layer.name]).items():
                fields[join(layer.name, name)] = values
        found = overlap(_masks(one, planes[0]), _masks(two, planes[1]))
        names = [{tensor.name for tensor in reader.info.tensors} for reader in (one, two)]
        tensors = {
            name: _largest(one.tensor(name), two.tensor(name)) if name in names[0] & names[1] else math.nan
            for name in sorted(names[0] | names[1])
        }
    differing = {name: values for name, values in fields.items() if values[0] != values[1]}
    return Difference(layers=found.layers, total=found.total, fields=differing, tensors=tensors)


def _check_same_layers(one: Reader, two: Reader) -> None:
    shapes = [{layer.name: layer.shape for layer in reader.info.layers} for reader in (one, two)]
    for name in dict.fromkeys((*shapes[0], *shapes[1])):
        if shapes[0].get(name) != shapes[1].get(name):
            said = [str(found.get(name, "not there")) for found in shapes]
            raise TicketError(
                f"layer {name!r}: {said[0]} in {one.info.path}, {said[1]} in {two.info.path}: of different networks"
            )


def _of_layer(a: LayerInfo, b: LayerInfo, of_a: Planes, of_b: Planes) -> dict[str, tuple[Any, Any]]:
    """What makes the weights of one layer of both tickets, beside its mask."""
    found = {name: (getattr(a, name), getattr(b, name)) for name in ("index", "weights", "generation")}
    found |= {name: (a.values.get(name), b.values.get(name)) for name in VALUES}
    for name in PLANES:
        if name == "mask" or (name not in of_a and name not in of_b):
            continue
        one, two = (planes.get(name, torch.zeros_like(planes["mask"])) for planes in (of_a, of_b))
        said = ("a's edges" if one.any() else "none"), ("b's edges" if two.any() else "none")
        found[name] = (said[0], said[0]) if torch.equal(one, two) else said
    return found


def _masks(reader: Reader, planes: Mapping[str, Planes]) -> Masks:
    cols = {layer.name: math.prod(layer.shape[1:]) for layer in reader.info.layers}
    return Masks(name=reader.info.path, bits={name: bits["mask"] for name, bits in planes.items()}, cols=cols)


def _largest(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two tensors' elements; infinite where one has a NaN and the other has not."""
    if a.shape != b.shape:
        return math.nan
    if torch.equal(a, b) or not a.numel():
        return 0.0
    apart = (a.double() - b.double()).abs().nan_to_num(torch.inf)
    apart[(a == b) | (a.isnan() & b.isnan())] = 0
    return float(apart.max())
