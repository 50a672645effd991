"""Commands on ticket files: inspect, verify, diff, convert, eval."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from supermask.data.base import Data, DataMissing, Loaded, Part
from supermask.data.digits import Digits
from supermask.data.digits32 import Digits32
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10, CIFAR100, MNIST, SVHN
from supermask.devices import device_named
from supermask.edges.making import Making
from supermask.tickets import exports
from supermask.tickets.diff import diff
from supermask.tickets.errors import TicketError
from supermask.tickets.file import recode
from supermask.tickets.load import inspect, load, verify
from supermask.tickets.tables import diff_json, diff_table, inspect_json, inspect_table

__all__ = ["COMMANDS"]

DataName = Literal["digits", "digits32", "mnist", "svhn", "cifar10", "cifar100", "imagenet"]
Form = Literal["raw", "ans", "state-dict", "export", "aoti", "onnx"]
File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
Files = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...")]

_DATA: dict[DataName, Data] = {
    "digits": Digits(),
    "digits32": Digits32(),
    "mnist": MNIST(),
    "svhn": SVHN(),
    "cifar10": CIFAR10(),
    "cifar100": CIFAR100(),
    "imagenet": ImageFolder(),
}


def inspect_command(file: File, /, json: bool = False) -> None:
    """Say what a ticket holds: layers, shapes, density, bits an edge, sizes, seed, digest. The header, sizes and digest
    are checked, and no mask is decoded.

    Args:
        file: ticket, or a folder with one called model.safetensors.
        json: print JSON in place of a table.
    """
    info = inspect(file)
    _print(inspect_json(info) if json else inspect_table(info))


def verify_command(files: Files, /) -> None:
    """Make every check there is: header, sizes, digest, each mask decoded and counted, and the architecture's layers.

    Exits with 2 at the first ticket that fails one.

    Args:
        files: tickets.
    """
    if not files:
        raise TicketError("verify: no file: name one at least")
    for file in files:
        info = verify(file)
        _print(
            f"{info.path}: whole: {len(info.layers)} layers, {info.kept:,} of {info.edges:,} edges, "
            f"{info.file_bytes:,} bytes, sha256 {info.sha256}"
        )


def diff_command(a: File, b: File, /, json: bool = False) -> None:
    """Compare two tickets of one network: the overlap of their masks by layer, and what else differs.

    Args:
        a: a ticket.
        b: another.
        json: print JSON in place of a table.
    """
    found = diff(a, b)
    _print(diff_json(found) if json else diff_table(found, str(a), str(b)))


def convert_command(
    file: File, out: File, /, to: Form, input_shape: tuple[int, ...] | None = None, packed: bool = False
) -> None:
    """Write a ticket in another form. What is written is read again and compared with the ticket.

    raw and ans: a ticket, its masks in that encoding. state-dict: the dense weights as safetensors, for the original
    network. export: a torch.export program (.pt2). aoti: an AOTInductor package (.pt2). onnx: an ONNX model.

    Args:
        file: ticket.
        out: where to write.
        to: the form.
        input_shape: of one input, without the batch, for export, aoti and onnx; by default the architecture's own.
        packed: for export: keep two bits an edge in the program, in place of dense weights.
    """
    if packed and to != "export":
        raise TicketError(f"--packed with --to {to}: it is for --to export")
    if input_shape is not None and to in ("raw", "ans", "state-dict"):
        raise TicketError(f"--input-shape with --to {to}: it is for export, aoti and onnx")
    if to in ("raw", "ans"):
        recode(file, out, encoding=to)
    elif to == "state-dict":
        exports.write_state_dict(file, out)
    elif to == "export":
        exports.write_program(file, out, shape=input_shape, packed=packed)
    elif to == "aoti":
        exports.write_aoti(file, out, shape=input_shape)
    else:
        exports.write_onnx(file, out, shape=input_shape)
    _print(f"{out}: {to}, {out.stat().st_size:,} bytes")


def eval_command(
    file: File,
    /,
    data: DataName,
    root: Path | None = None,
    weights: Making = "auto",
    device: str = "auto",
    json: bool = False,
) -> None:
    """Classify a data set's test images and print the accuracy.

    Args:
        file: ticket that names its architecture.
        data: the data set; imagenet is any folder of images by class.
        root: its folder, where it is not in its usual place under data/.
        weights: how layers come by them (supermask.load).
        device: auto, cpu, cuda or cuda:N.
        json: print JSON in place of a sentence.
    """
    try:
        where = device_named(device)
    except ValueError as error:
        raise TicketError(str(error)) from error
    info = inspect(file)
    shape = None if info.architecture is None else exports.input_shape(info.architecture)
    chosen = _data(data, root, flat=shape is not None and len(shape) == 1)
    begun = time.perf_counter()
    try:
        loaded = chosen.open(seed=0, device=where)
    except DataMissing as error:
        raise TicketError(
            f"{data} is not there: name its folder with --root; where it can be fetched, a recipe does, with "
            f"--data.download ({error})"
        ) from error
    right, count = _right(load(file, weights=weights, device=where), loaded, info.path, data)
    if json:
        _print({"file": info.path, "data": data, "images": count, "right": right, "accuracy": right / count})
    else:
        took = time.perf_counter() - begun
        _print(f"{info.path}: {right / count:.2%} of {count:,} test images of {data} right, in {took:.1f} s")


def _right(network: nn.Module, loaded: Loaded, path: str, data: DataName) -> tuple[int, int]:
    """Test images that a ticket's network classifies right, and all of them."""
    right = count = 0
    with torch.inference_mode():
        for inputs, labels in loaded.test(Part()):
            try:
                logits = network(inputs)
            except (RuntimeError, ValueError) as error:
                shape = tuple(inputs.shape[1:])
                raise TicketError(f"{path}: does not take inputs of {data}, of shape {shape}: {error}") from error
            if logits.ndim != 2 or logits.shape[1] != loaded.classes:
                shape = tuple(logits.shape[1:])
                raise TicketError(f"{path}: outputs of shape {shape}, and {data} has {loaded.classes} classes")
            right += int((logits.argmax(1) == labels).sum())
            count += len(labels)
    return right, count


COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": inspect_command,
    "verify": verify_command,
    "diff": diff_command,
    "convert": convert_command,
    "eval": eval_command,
}


def _data(name: DataName, root: Path | None, *, flat: bool) -> Data:
    data: Any = _DATA[name]
    if isinstance(data, Digits | Digits32) and root is not None:
        raise TicketError(f"--root {root}: {name} come with scikit-learn and need no folder")
    if isinstance(data, Digits):
        return replace(data, layout="flat" if flat else "image")
    return data if root is None else replace(data, root=root)


def _print(what: str | Table | dict[str, Any]) -> None:
    if isinstance(what, Table):
        console = Console()
        # Piped, a table is as wide as it needs to be: lines that break at 80 columns are of use to nobody.
        Console(width=None if console.is_terminal else 200, soft_wrap=not console.is_terminal).print(what)
    else:
        print(what if isinstance(what, str) else json.dumps(what, indent=1))
