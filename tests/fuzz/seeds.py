"""Small tickets of every kind, for fuzzing to start from: python -m tests.fuzz.seeds FOLDER"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import supermask
from supermask.networks.architecture import Architecture
from tests.fuzz.mutations import Pairs, Parts, join, set_planes, split

__all__ = ["seeds"]


def seeds() -> dict[str, bytes]:
    """Tickets by what each has that others have not."""
    small = Architecture(name="mlp", arguments={"sizes": [9, 5, 3]})
    wide = Architecture(name="mlp", arguments={"sizes": [64, 24, 2], "norm": False})
    images = Architecture(
        name="conv2",
        arguments={"channels": 1, "size": 4, "widths": [3, 4], "hidden": [6], "num_classes": 2, "norm": True},
    )
    found = {
        "raw": _saved(_searched(small), small, encoding="raw"),
        "no_architecture": _saved(_searched(small), None, encoding="raw"),
        "folded": _saved(_searched(images), images, fold=True),
        "narrowed": _saved(_searched(images), images, precision="bfloat16", encoding="raw"),
        "one_layer": _saved(supermask.convert(nn.Linear(10, 3), 3, bias="train"), None),
        "every_edge": _saved(_searched(small, remaining=1.0), small),
        "kaiming_normal": _saved(_searched(small, weights="kaiming_normal"), small),
        "kaiming_uniform": _saved(_searched(small, weights="kaiming_uniform", seed=2**64 - 1), small),
        "unsigned": _saved(_searched(small, weights="unsigned_constant"), small),
        "ans_flat": _saved(_searched(wide, remaining=0.04, scores=True), wide),
        "ans_absolute": _saved(_searched(wide, remaining=0.3), wide),
        "ans_signed": _saved(_searched(wide, remaining=0.2, magnitude="raw"), wide),
        "ans_levels": _saved(_by_rows(wide), wide),
    }
    found |= {
        "coats": _rewritten(found["raw"], coats=3, flips=False),
        "flips": _rewritten(found["raw"], coats=1, flips=True),
        "coats_and_flips": _rewritten(found["ans_absolute"], coats=2, flips=True),
    }
    return found | {
        "version_1": _version_1(found["raw"]),
        "version_2": _version_2(found["raw"]),
        "version_2_coats_and_flips": _version_2(found["coats_and_flips"]),
    }


def _searched(
    architecture: Architecture, *, seed: int = 7, remaining: float = 0.5, scores: bool = False, **conversion: Any
) -> nn.Module:
    model = supermask.convert(architecture.build(), seed, remaining=remaining, **conversion)
    if scores:  # that have nothing to do with the initial ones
        generator = torch.Generator().manual_seed(seed)
        for edges in supermask.searched_edges(model).values():
            edges.scores.data.copy_(torch.randn(edges.shape, generator=generator))
    return model.eval()


def _by_rows(architecture: Architecture) -> nn.Module:
    """Rows and columns that differ much in how many of their edges are selected."""
    model = _searched(architecture, remaining=0.4)
    generator = torch.Generator().manual_seed(5)
    for edges in supermask.searched_edges(model).values():
        rows, cols = edges.shape
        noise = 0.2 * torch.randn(edges.shape, generator=generator)
        edges.scores.data.copy_(torch.linspace(1, 2, rows)[:, None] + torch.linspace(0, 1, cols) + noise)
    return model


def _saved(model: nn.Module, architecture: Architecture | None, **how: Any) -> bytes:
    file = io.BytesIO()
    supermask.save(model, file, architecture=architecture, **how)
    return file.getvalue()


def _parts(data: bytes) -> Parts:
    parts = split(data)
    assert parts is not None
    return parts


def _rewritten(data: bytes, *, coats: int, flips: bool) -> bytes:
    """The ticket with other planes in its first layer."""
    parts, numbers = _parts(data), np.random.default_rng(3)
    layer = parts.header["layers"][0]
    planes = [numbers.random(layer["shape"]) < 0.6]
    while len(planes) < coats:
        planes.append(planes[-1] & (numbers.random(layer["shape"]) < 0.4))
    turned = planes[0] & (numbers.random(layer["shape"]) < 0.1) if flips else None
    set_planes(parts, layer, planes, flips=turned, encodings=["raw", "ans", "ans", "ans"][: coats + flips])
    return join(parts)


def _version_2(data: bytes) -> bytes:
    parts = _parts(data)
    layers = []
    for layer in parts.header["layers"]:
        planes = dict(layer["planes"])
        flips = planes.pop("flips", None)
        coats = [planes[f"mask.{number}" if number else "mask"] for number in range(len(planes))]
        told = [("coats", coats), ("flips", flips), ("constant", layer["values"]["constant"]["value"])]
        layers.append(Pairs([*(pair for pair in layer if pair[0] not in ("planes", "values")), *told]))
    parts.header.put("layers", layers)
    parts.header.put("version", 2)
    return join(parts)


def _version_1(data: bytes) -> bytes:
    parts = _parts(_version_2(data))
    layers = [
        Pairs([pair for pair in layer if pair[0] not in ("coats", "flips")] + [("coats", 1), *layer["coats"][0]])
        for layer in parts.header["layers"]
    ]
    kept = [pair for pair in parts.header if pair[0] not in ("folded", "narrowed", "layers", "version")]
    parts.header = Pairs([*kept, ("layers", layers), ("version", 1)])
    return join(parts)


def write_seeds(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (folder / f"seed_{name}").write_bytes(data)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
