"""The ticket file: its format from the description alone, and every file that is damaged refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from supermask.edges.packed import PackedEdges
from supermask.kernels.base.bits import pack
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskLinear
from supermask.tickets.errors import TicketError
from supermask.tickets.load import inspect, load
from supermask.tickets.save import save
from tests.supermask.tickets.crafted import canonical, craft, parts_of
from tests.supermask.tickets.networks import ConvNet, lived, mlp, refused, searched


def test_the_format_is_as_described(ticket: Path, tmp_path: Path) -> None:
    header, tensors = parts_of(ticket)
    assert craft(tmp_path / "crafted", header, tensors).read_bytes() == ticket.read_bytes()
    assert header["layers"][1] == {
        "generation": 0,
        "index": 1,
        "name": "fc2",
        "planes": {"mask": {"encoding": "raw", "kept": 8}},
        "shape": [3, 5],
        "values": {"constant": {"coding": "float32", "value": float(np.float32((2 / 5) ** 0.5))}},
        "weights": "signed_constant",
    }
    assert header["prng"] == {"name": "philox4x32", "rounds": 10}
    assert (header["version"], header["seed"], header["folded"], header["narrowed"]) == (3, 7, [], False)
    assert header["architecture"] == {"name": "mlp", "arguments": {"sizes": [9, 5, 3]}}


def test_order_of_the_bits_of_a_mask(tmp_path: Path) -> None:
    """Edge i is bit i % 8 of byte i // 8, and rows are not padded."""
    model = SupermaskLinear(5, 3, seed=0, remaining=3 / 15)
    with torch.no_grad():
        model.edges.scores.zero_()[0, 1] = model.edges.scores[1, 3] = model.edges.scores[2, 4] = 1  # type: ignore[index,operator]
    save(model, tmp_path / "t", architecture=None, encoding="raw")
    assert parts_of(tmp_path / "t")[1]["mask"].tolist() == [1 << 1, 1 << 0 | 1 << 6]


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
    edges = PackedEdges((4, 4), pack(torch.ones(4, 4, dtype=torch.bool)), seed=1, layer=0, weights="signed_constant",
                        constant=1e-5)  # fmt: skip
    save(nn.Sequential(SupermaskLinear(4, 4, edges=edges)), tmp_path / "t", architecture=None)
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


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(searched(mlp(4, 2), 2, 4), "t", architecture=mlp(4, 2))
    load("t")
