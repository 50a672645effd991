"""How two tickets of one network differ: masks, seed, and every other tensor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from supermask.checks import join
from supermask.edges.overlap import Masks, Overlap, overlap
from supermask.networks.architecture import Architecture
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

    @property
    def apart(self) -> list[str]:
        """In what they differ, in words: seed, architecture, rates, masks, what weights are made of, other tensors."""
        found = []
        for name, (one, other) in self.fields.items():
            if name == "seed":
                found.append(f"the seed ({one} and {other})")
            elif name == "architecture":
                found.append(_architectures(one, other))
        layers = self.layers.values()
        rates = sum(layer.a != layer.b for layer in layers)
        masks = sum(layer.a == layer.b != layer.common for layer in layers)
        parts: dict[str, int] = {}
        for name in self.fields.keys() - {"seed", "architecture"}:
            part = name.removeprefix(max((join(layer, "") for layer in self.layers if _within(name, layer)), key=len))
            parts[part] = parts.get(part, 0) + 1
        counted = {"rates": rates, "masks": masks} | dict(sorted(parts.items()))
        found += [f"{part} of {count} of {len(self.layers)} layers" for part, count in counted.items() if count]
        tensors = sum(bool(value) for value in self.tensors.values())
        return found + [f"{tensors} of {len(self.tensors)} other tensors"] * bool(tensors)


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


def _within(name: str, layer: str) -> bool:
    return name.startswith(join(layer, ""))


def _architectures(one: Architecture | None, other: Architecture | None) -> str:
    """How two of them differ."""
    if one is None or other is None or one.name != other.name:
        return f"the architecture ({one or 'none'} and {other or 'none'})"
    given = [architecture.arguments for architecture in (one, other)]
    named = sorted(name for name in given[0].keys() | given[1].keys() if given[0].get(name) != given[1].get(name))
    said = (f"{name} {given[0].get(name, 'not given')} and {given[1].get(name, 'not given')}" for name in named)
    return f"the arguments of {one.name} ({', '.join(said)})"


def _check_same_layers(one: Reader, two: Reader) -> None:
    shapes = [{layer.name: layer.shape for layer in reader.info.layers} for reader in (one, two)]
    for name in dict.fromkeys((*shapes[0], *shapes[1])):
        if shapes[0].get(name) != shapes[1].get(name):
            said = [str(found.get(name, "not there")) for found in shapes]
            made = one.info.architecture, two.info.architecture
            why = f", which differ in {_architectures(*made)}" if made[0] != made[1] else ""
            raise TicketError(
                f"layer {name!r}: {said[0]} in {one.info.path}, {said[1]} in {two.info.path}: "
                f"of different networks{why}"
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
