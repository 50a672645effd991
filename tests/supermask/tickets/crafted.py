"""Tickets written from the description of their format alone, with a right digest for whatever they say."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import safe_open

Header = dict[str, Any]
Tensors = dict[str, np.ndarray]
Change = Callable[[Header, Tensors], None]
DTYPES = {"uint8": "U8", "float32": "F32", "int64": "I64", "uint16": "U16"}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def parts_of(path: Path) -> tuple[Header, Tensors]:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["supermask"]), {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118


def craft(path: Path, header: Header, tensors: Tensors) -> Path:
    """Write a ticket whose digest is right for whatever it says, from the description of the format alone."""
    del header["sha256"]
    digest = hashlib.sha256(f"{canonical(header)}\n".encode())
    for name in sorted(tensors):
        digest.update(f"{canonical([name, DTYPES[str(tensors[name].dtype)], tensors[name].shape])}\n".encode())
        digest.update(tensors[name].tobytes())
    header["sha256"] = digest.hexdigest()
    safetensors.numpy.save_file(tensors, path, {"supermask": canonical(header)})
    return path


def field(name: str, value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header[name] = value

    return change
