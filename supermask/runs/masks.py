"""Masks of whatever has them: runs, tickets and mask files; as arrays, and what two of them have in common."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from supermask.edges.overlap import Masks, NetworkOverlap
from supermask.edges.overlap import overlap as overlap_of
from supermask.kernels.base.bits import pack
from supermask.runs.read import RunRecord, read_masks, read_run
from supermask.runs.records import METRICS
from supermask.tickets.file import reading

Masked = str | Path | BinaryIO | RunRecord | Masks | Mapping[str, NDArray[np.bool_]]


def masks(source: Masked, cycle: int = -1) -> dict[str, NDArray[np.bool_]]:
    """The mask of each layer, True where an edge is selected, in the shape of the layer's weight with its outputs
    first.

    Args:
        source: a run folder or a run that was read, a ticket, a file masks/cycle-N.safetensors, masks as they are.
        cycle: of a run, its number, from 1; below zero counts from the last cycle that has a mask.

    Raises:
        RunReadError, TicketError, MaskFileError: a path that is none of these, or is damaged.
        ValueError: the run has no mask of that cycle.
    """
    return packed(source, cycle).arrays()


def overlap(a: Masked, b: Masked) -> NetworkOverlap:
    """What two masks have in common, and what independent ones of the same densities would.

    Args:
        a, b: as `masks` takes them; of a run the last mask.

    Raises:
        RunReadError, TicketError, MaskFileError: a path that is none of these, or is damaged.
        ValueError: they mask different networks, or a run has no mask.
    """
    return overlap_of(packed(a, name="a"), packed(b, name="b"))


def packed(source: Masked, cycle: int = -1, name: str = "masks") -> Masks:
    """As packed bits; arguments and errors are those of `masks`; `name` is for arrays, which have none."""
    if isinstance(source, Masks):
        return source
    if isinstance(source, Mapping):
        return _of_arrays(source, name)
    if isinstance(source, RunRecord):
        return source.packed_mask(cycle)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir() and ((path / METRICS).is_file() or not (path / "model.safetensors").is_file()):
            return read_run(path).packed_mask(cycle)
        if _holds_masks(path):
            return read_masks(path)
    return _of_ticket(source)


def _holds_masks(path: Path) -> bool:
    """A file of masks alone; what cannot be read is left to the reader of tickets, which says why."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
    except (SafetensorError, OSError):
        return False
    return "supermask" not in said and bool({"cols", "shapes"} & said.keys())


def _of_arrays(arrays: Mapping[str, NDArray[np.bool_]], name: str) -> Masks:
    bits, cols, shapes = {}, {}, {}
    for layer, mask in arrays.items():
        if mask.dtype != np.bool_ or mask.ndim == 0:
            raise ValueError(f"{name}: layer {layer!r} is {mask.dtype} {mask.shape}: expected an array of bool")
        shapes[layer] = mask.shape
        matrix = np.ascontiguousarray(mask).reshape(mask.shape[0], math.prod(mask.shape[1:]))
        bits[layer], cols[layer] = pack(torch.from_numpy(matrix)), matrix.shape[1]
    return Masks(name=name, bits=bits, cols=cols, shapes=shapes)


def _of_ticket(file: str | Path | BinaryIO) -> Masks:
    with reading(file) as reader:
        layers = reader.info.layers
        return Masks(
            name=reader.info.path,
            bits={layer.name: reader.planes(layer)["mask"] for layer in layers},
            cols={layer.name: math.prod(layer.shape[1:]) for layer in layers},
            shapes={layer.name: tuple(layer.shape) for layer in layers},
        )
