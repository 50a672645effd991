"""Tickets with a right digest that say what is not so, each refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.supermask.tickets.crafted import Change, Header, Tensors, craft, field, parts_of
from tests.supermask.tickets.networks import mlp, refused


def layer(name: str, value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header["layers"][1][name] = value

    return change


def plane(name: str, value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header["layers"][1]["planes"]["mask"][name] = value

    return change


def constant(value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header["layers"][1]["values"]["constant"]["value"] = value

    return change


def tensor(name: str, change_of: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        tensors[name] = change_of(tensors[name])

    return change


def both(*changes: Change) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        for one in changes:
            one(header, tensors)

    return change


def full_byte(mask: np.ndarray) -> np.ndarray:
    mask[-1] |= 0x80
    return mask


LIES: dict[str, tuple[Change, list[str]]] = {
    "version": (field("version", 7), ["version 7", "reads 1 to 3", "upgrade supermask"]),
    "version of another structure": (
        both(field("version", 4), field("layers", {"all": "different"})),
        ["version 4", "upgrade supermask"],
    ),
    "version true": (field("version", True), ["version True"]),
    "no version": (lambda header, _: header.pop("version"), ["version", "fields"]),
    "prng": (field("prng", {"name": "philox4x32", "rounds": 7}), ["'rounds': 7", "'rounds': 10"]),
    "other prng": (field("prng", {"name": "mt19937", "rounds": 10}), ["mt19937", "philox4x32"]),
    "negative seed": (field("seed", -1), ["seed -1"]),
    "long seed": (field("seed", 1 << 64), ["seed 18446744073709551616"]),
    "seed as text": (field("seed", "7"), ["seed '7'", "int"]),
    "seed as float": (field("seed", 7.0), ["seed 7.0", "int"]),
    "unknown field": (field("planes", []), ["planes"]),
    "no layers": (field("layers", []), ["no layers"]),
    "layers of another kind": (field("layers", [3]), ["layer 0", "int"]),
    "architecture of another kind": (field("architecture", {"import": "os"}), ["architecture", "'import': 'os'"]),
    "architecture unknown": (field("architecture", {"name": "mlq", "arguments": {}}), ["'mlq'", "'mlp'"]),
    "architecture of other sizes": (
        field("architecture", mlp(9, 5, 4).to_json()),
        ["layer 'fc2': shape (3, 5) in the ticket, (4, 5) in the network"],
    ),
    "architecture of absurd size": (
        field("architecture", mlp(9, 1 << 40, 1 << 40).to_json()),
        ["cannot be built"],
    ),
    "architecture with wrong arguments": (
        field("architecture", {"name": "mlp", "arguments": {"size": 3}}),
        ["mlp", "size"],
    ),
    "architecture with trained weights": (
        field("architecture", {"name": "torchvision/resnet18", "arguments": {"weights": "DEFAULT"}}),
        ["weights='DEFAULT'"],
    ),
    "shape too large": (layer("shape", [3, 6]), ["'fc2'", "[2]", "[3, 6]", "[3]"]),
    "shape of other edges": (layer("shape", [5, 3]), ["'fc2'", "(5, 3)", "(3, 5)"]),
    "shape absurd": (layer("shape", [1 << 40, 1 << 40]), ["'fc2'", "1099511627776"]),
    "shape huge": (layer("shape", [10**4000, 10**4000]), ["'fc2'", "shape"]),
    "shape zero": (layer("shape", [0, 5]), ["'fc2'", "[0, 5]"]),
    "shape negative": (layer("shape", [-3, -5]), ["'fc2'", "[-3, -5]"]),
    "shape empty": (layer("shape", []), ["'fc2'", "[]"]),
    "shape of floats": (layer("shape", [3.0, 5]), ["'fc2'", "3.0"]),
    "kept": (plane("kept", 9), ["'fc2'", "kept 9", "selects 8"]),
    "kept true": (plane("kept", True), ["kept True", "int"]),
    "index negative": (layer("index", -1), ["'fc2'", "index -1"]),
    "index large": (layer("index", 1 << 32), ["'fc2'", "index 4294967296"]),
    "index twice": (layer("index", 0), ["'fc1'", "'fc2'", "index 0"]),
    "name twice": (layer("name", "fc1"), ["'fc1'", "two layers"]),
    "name of no mask": (layer("name", "fc3"), ["'fc3'", "'fc3.mask'"]),
    "weights": (layer("weights", "binomial"), ["'fc2'", "'binomial'", "'signed_constant'"]),
    "constant infinite": (constant(1e400), ["'fc2'", "constant inf"]),
    "constant nan": (constant(float("nan")), ["'fc2'", "constant nan"]),
    "constant not float32": (constant(0.1), ["'fc2'", "constant 0.1", "float32"]),
    "constant beyond float32": (constant(1e300), ["'fc2'", "constant 1e+300"]),
    "constant an integer": (constant(1), ["constant 1", "float"]),
    "planes": (layer("planes", 2), ["planes 2", "dict"]),
    "encoding": (plane("encoding", "zip"), ["'fc2'", "'zip'", "'raw'", "'ans'"]),
    "generation": (layer("generation", 1 << 22), ["'fc2'", "generation 4194304"]),
    "layer without a field": (lambda header, _: header["layers"][1].pop("planes"), ["layer 1", "planes"]),
    "no mask": (lambda _, tensors: tensors.pop("fc2.mask"), ["'fc2'", "'fc2.mask'"]),
    "short mask": (tensor("fc2.mask", lambda mask: mask[:-1]), ["'fc2'", "[1]", "[2]"]),
    "long mask": (tensor("fc2.mask", lambda mask: np.append(mask, mask)), ["'fc2'", "[4]", "[2]"]),
    "mask of floats": (tensor("fc2.mask", lambda mask: mask.astype(np.float32)), ["'fc2'", "F32", "U8"]),
    "mask of two dimensions": (tensor("fc2.mask", lambda mask: mask[None]), ["'fc2'", "[1, 2]", "[2]"]),
    "bits beyond the last edge": (both(tensor("fc2.mask", full_byte), plane("kept", 9)), ["'fc2'", "last byte"]),
    "tensor missing": (lambda _, tensors: tensors.pop("norm1.running_var"), ["'norm1.running_var': not in the ticket"]),
    "tensor unexpected": (
        lambda _, tensors: tensors.update(extra=np.zeros(3, np.float32)),
        ["'extra': not in the network"],
    ),
    "tensor of another shape": (tensor("norm1.running_var", lambda x: x[:4]), ["'norm1.running_var'", "(4,)", "(5,)"]),
    "tensor of another kind": (
        tensor("norm1.running_var", lambda x: x.astype(np.int64)),
        ["'norm1.running_var'", "torch.int64", "torch.float32"],
    ),
    "tensor of an unknown dtype": (tensor("norm1.running_var", lambda x: x.astype(np.uint16)), ["U16"]),
    "bias of another shape": (
        lambda _, tensors: tensors.update({"fc2.bias": np.zeros(4, np.float32)}),
        ["'fc2.bias'", "(4,)", "(3,)"],
    ),
    "name that hides": (
        lambda _, tensors: tensors.update({"fc2\x1b[2K": np.zeros(3, np.float32)}),
        [r"'fc2\x1b[2K'", "printable"],
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_lies_with_a_right_digest(case: str, ticket: Path, tmp_path: Path) -> None:
    change, parts = LIES[case]
    header, tensors = parts_of(ticket)
    change(header, tensors)
    refused(craft(tmp_path / "bad", header, tensors), *parts)
