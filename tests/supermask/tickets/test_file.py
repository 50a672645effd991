"""The ticket file: its format from the description alone, and every other file refused by name."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from supermask.edges.in_model import all_edges
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskLinear
from supermask.tickets.errors import TicketError
from supermask.tickets.load import inspect, load
from supermask.tickets.save import save
from tests.supermask.tickets.test_save import ConvNet, lived, mlp, one_linear, refused, searched, ticket

__all__ = ["ticket"]

Header = dict[str, Any]
Tensors = dict[str, np.ndarray]
Change = Callable[[Header, Tensors], None]
DTYPES = {"uint8": "U8", "float32": "F32", "int64": "I64", "complex64": "C64"}


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


def test_the_format_is_as_described(ticket: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(ticket)
    assert craft(tmp_path / "crafted", header, tensors).read_bytes() == ticket.read_bytes()
    assert header["layers"][1] == {
        "coats": [{"encoding": "raw", "kept": 8}],
        "constant": float(np.float32((2 / 5) ** 0.5)),
        "flips": None,
        "generation": 0,
        "index": 1,
        "name": "fc2",
        "shape": [3, 5],
        "weights": "signed_constant",
    }
    assert header["prng"] == {"name": "philox4x32", "rounds": 10}
    assert (header["version"], header["seed"], header["folded"], header["narrowed"]) == (2, 7, [], False)
    assert header["architecture"] == {"name": "mlp", "arguments": {"sizes": [9, 5, 3]}}


def test_order_of_the_bits_of_a_mask(tmp_path: Path) -> None:
    """Edge i is bit i % 8 of byte i // 8, and rows are not padded."""
    model = SupermaskLinear(5, 3, seed=0, remaining=3 / 15)
    with torch.no_grad():
        model.edges.scores.zero_()[0, 1] = model.edges.scores[1, 3] = model.edges.scores[2, 4] = 1  # type: ignore[index,operator]
    save(model, tmp_path / "t", architecture=None, encoding="raw")
    assert parts_of(tmp_path / "t")[1]["mask"].tolist() == [1 << 1, 1 << 0 | 1 << 6]


def layer(name: str, value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header["layers"][1][name] = value

    return change


def plane(name: str, value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header["layers"][1]["coats"][0][name] = value

    return change


def field(name: str, value: Any) -> Change:
    def change(header: Header, tensors: Tensors) -> None:
        header[name] = value

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
    "version": (field("version", 7), ["version 7", "reads 1 and 2", "upgrade supermask"]),
    "version of another structure": (
        both(field("version", 3), field("layers", {"all": "different"})),
        ["version 3", "upgrade supermask"],
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
    "constant infinite": (layer("constant", 1e400), ["'fc2'", "constant inf"]),
    "constant nan": (layer("constant", float("nan")), ["'fc2'", "constant nan"]),
    "constant not float32": (layer("constant", 0.1), ["'fc2'", "constant 0.1", "float32"]),
    "constant beyond float32": (layer("constant", 1e300), ["'fc2'", "constant 1e+300"]),
    "constant an integer": (layer("constant", 1), ["constant 1", "float"]),
    "coats": (layer("coats", 2), ["coats 2", "list"]),
    "encoding": (plane("encoding", "zip"), ["'fc2'", "'zip'", "'raw'", "'ans'"]),
    "generation": (layer("generation", 1 << 22), ["'fc2'", "generation 4194304"]),
    "layer without a field": (lambda header, _: header["layers"][1].pop("coats"), ["layer 1", "coats"]),
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
    "tensor of an unknown dtype": (tensor("norm1.running_var", lambda x: x.astype(np.complex64)), ["C64"]),
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


def test_digest(ticket: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(ticket)
    good = header["sha256"]
    tensors["norm1.running_mean"][0] += 1
    safetensors.numpy.save_file(tensors, tmp_path / "bad", {"supermask": canonical(header)})
    craft(tmp_path / "crafted", header, tensors)
    refused(tmp_path / "bad", good, header["sha256"], "SHA-256")


@pytest.mark.parametrize("spelling", [{"indent": 1}, {"sort_keys": False}, {"separators": (", ", ": ")}])
def test_header_of_another_spelling(spelling: dict[str, Any], ticket: Path, tmp_path: Path) -> None:
    """One text a header, so that no bit of it is without meaning."""
    header, tensors = parts_of(ticket)
    header = dict(reversed(header.items()))
    text = json.dumps(header, **({"sort_keys": True, "separators": (",", ":")} | spelling))
    safetensors.numpy.save_file(tensors, tmp_path / "bad", {"supermask": text})
    refused(tmp_path / "bad", "spelt")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"text"', "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{}", '{"version":null}'],
)
def test_metadata_that_is_no_header(text: str, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "bad", {"supermask": text})
    refused(tmp_path / "bad")


@pytest.mark.parametrize("depth", [100, 400, 900, 5000])
def test_deep_arguments(depth: int, ticket: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(ticket)
    text = canonical(header).replace("[9,5,3]", "[" * depth + "]" * depth)
    safetensors.numpy.save_file(tensors, tmp_path / "bad", {"supermask": text})
    refused(tmp_path / "bad")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"supermasks": "{}"}])
def test_other_safetensors_files(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "bad", metadata)
    refused(tmp_path / "bad", "not a ticket", "'supermask'")


def test_other_metadata_is_left_alone(ticket: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(ticket)
    safetensors.numpy.save_file(tensors, tmp_path / "t", {"supermask": canonical(header), "format": "pt"})
    x = torch.randn(2, 9)
    assert torch.equal(load(tmp_path / "t")(x), load(ticket)(x))


def test_truncated_at_every_length(ticket: Path, tmp_path: Path) -> None:
    data, bad = ticket.read_bytes(), tmp_path / "bad"
    for length in range(len(data)):
        bad.write_bytes(data[:length])
        with pytest.raises(TicketError, match="bad: "):
            inspect(bad)
    for more in (b"\0", b" ", b"}", bytes(1000)):
        bad.write_bytes(data + more)
        refused(bad)


def test_one_flipped_bit_at_every_byte(ticket: Path, tmp_path: Path) -> None:
    data, bad = ticket.read_bytes(), tmp_path / "bad"
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (5 * position + 2) % 8
        bad.write_bytes(flipped)
        with pytest.raises(TicketError, match="bad: "):
            inspect(bad)


def test_case_of_an_exponent_is_seen(tmp_path: Path) -> None:
    """1e-05 and 1E-05 are one number and differ in one bit."""
    model = nn.Sequential(one_linear(seed=1))
    all_edges(model)["0"].constant.fill_(1e-5)
    save(model, tmp_path / "t", architecture=None)
    data = (tmp_path / "t").read_bytes()
    assert data.count(b"e-06") == 1 or data.count(b"e-05") == 1
    (tmp_path / "t").write_bytes(data.replace(b"e-0", b"E-0"))
    refused(tmp_path / "t", "spelt")


@settings(max_examples=150)
@given(data=st.data())
def test_any_flipped_bit_is_refused_by_load(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    good, bad = folder / "flip_good", folder / "flip_bad"
    if not good.exists():
        save(lived(convert(ConvNet(), 3, bias="freeze", norm="freeze"), 4, 3, 8, 8), good, architecture=None)
    content = bytearray(good.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    bad.write_bytes(content)
    refused(bad, model=ConvNet())


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_other_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("size", [0, 7, 8, 1 << 20, 100_000_001, (1 << 64) - 1])
def test_header_length_that_lies(size: int, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(size.to_bytes(8, "little") + b"{}" + bytes(100))
    refused(tmp_path / "bad", "truncated or damaged")


def test_huge_header(ticket: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(ticket)
    header["architecture"]["arguments"]["sizes"] = [0.5] * 100_000
    path = craft(tmp_path / "bad", header, tensors)
    with pytest.raises(TicketError, match="cannot be built") as caught:
        load(path)
    assert len(str(caught.value)) < 2000
    assert inspect(path).seed == 7


@pytest.mark.parametrize("path", ["missing", "missing/t", "file/t", "."])
def test_paths_that_are_no_file(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(tmp_path / path, "no such file")


@pytest.mark.parametrize("path", ["missing/t", "file/t", "folder"])
def test_paths_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TicketError, match="cannot be written") as caught:
        save(searched(mlp(4, 2), 2, 4), tmp_path / path, architecture=None)
    assert str(tmp_path / path) in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_proc_cannot_be_written() -> None:
    with pytest.raises(TicketError, match="/proc/t: cannot be written"):
        save(searched(mlp(4, 2), 2, 4), "/proc/t", architecture=None)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), TicketError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_failure_in_the_middle_leaves_the_old_file(
    call: str, error: BaseException, raised: type[BaseException], ticket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    before = ticket.read_bytes()
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(raised) as caught:
        save(searched(mlp(4, 2), 2, 4), ticket, architecture=None)
    if raised is TicketError:
        assert str(ticket) in str(caught.value)
        assert "No space left" in str(caught.value)
    assert [path.name for path in ticket.parent.iterdir()] == [ticket.name]
    assert ticket.read_bytes() == before


def test_what_would_not_read_back_is_not_written(ticket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = ticket.read_bytes(), os.fsync

    def damage(descriptor: int) -> None:
        os.pwrite(descriptor, b"\xff", os.fstat(descriptor).st_size - 1)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", damage)
    with pytest.raises(TicketError, match=r"good\.safetensors: damaged"):
        save(searched(mlp(4, 2), 2, 4), ticket, architecture=None)
    assert [path.name for path in ticket.parent.iterdir()] == [ticket.name]
    assert ticket.read_bytes() == before


def test_folder_that_cannot_be_synced(ticket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems cannot, which is no failure; one that can and fails is reported, the file being in place."""
    real = os.fsync

    def sync(code: int) -> None:
        def fsync(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(code, os.strerror(code))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    sync(errno.EINVAL)
    save(searched(mlp(4, 2), 2, 4), ticket, architecture=mlp(4, 2))
    sync(errno.EIO)
    with pytest.raises(TicketError, match="could not be synced"):
        save(searched(mlp(4, 3), 2, 4), ticket, architecture=mlp(4, 3))
    assert inspect(ticket).architecture == mlp(4, 3)


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save(searched(mlp(4, 2), 2, 4), tmp_path / "t", architecture=None)
    finally:
        os.umask(before)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o640


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(searched(mlp(4, 2), 2, 4), "t", architecture=mlp(4, 2))
    load("t")
