"""Commands on tickets, run as a user runs them, and the tables behind them."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from supermask import Architecture, Digits, SupermaskLinear, inspect, load, save
from supermask.__main__ import main
from supermask.data.base import Part
from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.networks.convert import convert
from supermask.tickets.diff import diff
from supermask.tickets.errors import TicketError
from tests.places import VERSION_1
from tests.recipes.command import run
from tests.supermask.tickets.networks import lived, mlp, searched

CONV = Architecture(
    name="conv2",
    arguments={"channels": 1, "size": 8, "widths": [8, 8], "hidden": [16], "num_classes": 10, "norm": True},
)


def command(*arguments: str | Path, status: int = 0) -> str:
    """What the command prints; to stderr where it is to fail."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["supermask", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    assert code == status, err.getvalue()
    return err.getvalue() if status else out.getvalue()


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tickets of three networks: an MLP and a convolutional one for digits, and one without an architecture."""
    folder = tmp_path_factory.mktemp("tickets")
    save(searched(mlp(64, 32, 10), 8, 64, remaining=0.3), folder / "mlp", architecture=mlp(64, 32, 10))
    save(searched(CONV, 8, 1, 8, 8, remaining=0.4), folder / "conv", architecture=CONV, fold=True, precision="bfloat16")
    coats = torch.tensor([[[7, 0, 0, 0]], [[5, 0, 0, 0]]], dtype=torch.int32)
    layer = SupermaskLinear(4, 1, seed=3)
    flips = torch.tensor([[1, 0, 0, 0]], dtype=torch.int32)
    layer.edges = PackedEdges((1, 4), coats, flips=flips, seed=3, layer=0, weights="signed_constant", constant=0.5)
    save(layer, folder / "coats", architecture=None)
    return {path.name: path for path in folder.iterdir()}


def test_inspect(tickets: dict[str, Path]) -> None:
    info = inspect(tickets["conv"])
    shown = command("inspect", tickets["conv"])
    for part in ("conv1", "8 x 1 x 3 x 3", "signed_constant", info.sha256, "seed 7", "folded", "bfloat16", "version 3"):
        assert part in shown
    said = json.loads(command("inspect", tickets["conv"], "--json"))
    assert (said["sha256"], said["seed"], said["version"]) == (info.sha256, 7, 3)
    assert said["architecture"] == CONV.to_json()
    assert said["bytes"]["file"] == tickets["conv"].stat().st_size
    assert sum(layer["bytes"] for layer in said["layers"]) == said["bytes"]["masks"]
    assert [layer["kept"] for layer in said["layers"]] == [layer.kept for layer in info.layers]
    assert said["bytes"]["one_bit_an_edge"] == -(-info.edges // 8)
    assert (said["folded"], said["narrowed"]) == (["fc_norm1", "norm1", "norm2"], True)
    many = command("inspect", tickets["coats"])
    assert "3 > 2, 1 flipped" in many
    assert "(network)" in many


def test_from_the_shell(tickets: dict[str, Path], tmp_path: Path) -> None:
    for path, status in ((tickets["mlp"], 0), (tmp_path / "none", 2)):
        ran = run("supermask", "verify", path, cwd=tmp_path)
        assert ran.returncode == status
        assert ": whole: " in ran.stdout or "no such file" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_verify(tickets: dict[str, Path], tmp_path: Path) -> None:
    shown = command("verify", *tickets.values())
    assert shown.count(": whole: ") == len(tickets)
    data = bytearray(tickets["mlp"].read_bytes())
    data[-5] ^= 4
    (tmp_path / "bad").write_bytes(data)
    assert "damaged: its SHA-256 is" in command("verify", tickets["mlp"], tmp_path / "bad", status=2)
    assert "no such file" in command("verify", tmp_path / "none", status=2)
    assert "no file" in command("verify", status=2)


def test_convert_between_encodings(tickets: dict[str, Path], tmp_path: Path) -> None:
    """There and back to the same bytes, also of tickets without an architecture, and from version 1."""
    for name, path in tickets.items():
        command("convert", path, tmp_path / "raw", "--to", "raw")
        assert {layer.encoding for layer in inspect(tmp_path / "raw").layers} == {"raw"}
        command("convert", tmp_path / "raw", tmp_path / name, "--to", "ans")
        assert (tmp_path / name).read_bytes() == path.read_bytes()
    old = VERSION_1 / "version1_mlp.safetensors"
    command("convert", old, tmp_path / "new", "--to", "raw")
    assert inspect(tmp_path / "new").version == 3
    assert diff(old, tmp_path / "new").same


def test_eval(tickets: dict[str, Path]) -> None:
    for name in ("mlp", "conv"):
        said = json.loads(command("eval", tickets[name], "--data", "digits", "--json"))
        network = load(tickets[name])
        layout: Any = "flat" if name == "mlp" else "image"
        batches = Digits(layout=layout).open(seed=0, device=torch.device("cpu")).test(Part())
        right = sum(int((network(x).argmax(1) == y).sum()) for x, y in batches)
        assert (said["images"], said["right"], said["accuracy"]) == (797, right, right / 797)
    assert "797 test images of digits right" in command("eval", tickets["mlp"], "--data", "digits")


def test_what_eval_refuses(tickets: dict[str, Path], tmp_path: Path) -> None:
    assert "names no architecture" in command("eval", tickets["coats"], "--data", "digits", status=2)
    assert "need no folder" in command("eval", tickets["mlp"], "--data", "digits", "--root", tmp_path, status=2)
    assert str(tmp_path) in command("eval", tickets["mlp"], "--data", "cifar10", "--root", tmp_path, status=2)
    assert "device 'tpu'" in command("eval", tickets["mlp"], "--data", "digits", "--device", "tpu", status=2)
    save(searched(mlp(9, 3), 4, 9), tmp_path / "small", architecture=mlp(9, 3))
    save(searched(mlp(64, 3), 4, 64), tmp_path / "few", architecture=mlp(64, 3))
    assert "outputs of shape (3,), and digits has 10" in command("eval", tmp_path / "few", "--data", "digits", status=2)
    said = command("eval", tmp_path / "small", "--data", "digits", status=2)
    assert "does not take inputs of digits, of shape (64,)" in said


def test_diff(tickets: dict[str, Path], tmp_path: Path) -> None:
    assert "the same network" in command("diff", tickets["mlp"], tickets["mlp"])
    model = searched(mlp(64, 32, 10), 8, 64, remaining=0.3)
    with torch.no_grad():
        model.norm1.running_mean[3] += 0.5  # type: ignore[index,operator]
        model.fc1.edges.scores.mul_(torch.rand(32, 64, generator=torch.Generator().manual_seed(0)))  # type: ignore[operator,union-attr]
    save(model, tmp_path / "b", architecture=mlp(64, 32, 10))
    said = json.loads(command("diff", tickets["mlp"], tmp_path / "b", "--json"))
    masks = [load(path).fc1.edges.mask().numpy() for path in (tickets["mlp"], tmp_path / "b")]  # type: ignore[union-attr,operator]
    common = sum(bin(int(word) & 0xFFFFFFFF).count("1") for word in (masks[0] & masks[1]).ravel())
    assert said["layers"]["fc1"]["common"] == common
    assert said["layers"]["fc1"]["overlap"] == common / round(0.3 * 64 * 32)
    assert said["layers"]["fc2"]["overlap"] == 1
    assert said["tensors"]["norm1.running_mean"] == pytest.approx(0.5, abs=1e-6)
    assert (said["same"], said["fields"]) == (False, {})
    shown = " ".join(command("diff", tickets["mlp"], tmp_path / "b").split())
    assert "apart: masks of 1 of 2 layers, 1 of 3 other tensors" in shown
    assert "of different networks" in command("diff", tickets["mlp"], tickets["conv"], status=2)


def test_what_two_tickets_of_one_architecture_differ_in(tmp_path: Path) -> None:
    def write(name: str, seed: int = 1, remaining: float = 0.3, norm: bool | None = None) -> Path:
        architecture = mlp(64, 32, 10)
        said = (
            architecture if norm is None else replace(architecture, arguments={**architecture.arguments, "norm": norm})
        )
        save(convert(architecture.build(), seed, remaining=remaining), tmp_path / name, architecture=said)
        return tmp_path / name

    a = write("a")
    assert diff(a, a).apart == []
    assert diff(a, write("seed", seed=2)).apart == ["the seed (1 and 2)", "masks of 2 of 2 layers"]
    assert diff(a, write("rate", remaining=0.5)).apart == ["rates of 2 of 2 layers"]
    other = write("arguments", norm=True)
    assert diff(a, other).apart == ["the arguments of mlp (norm not given and True)"]
    assert json.loads(command("diff", a, other, "--json"))["fields"]["architecture"][1]["name"] == "mlp"
    shown = " ".join(command("diff", a, tmp_path / "seed").split())
    assert shown.endswith("layers of the same names and shapes; apart: the seed (1 and 2), masks of 2 of 2 layers")
    wide = Architecture(name="mlp", arguments={"sizes": [64, 16, 10]})
    save(convert(wide.build(), 1, remaining=0.3), tmp_path / "wide", architecture=wide)
    said = command("diff", a, tmp_path / "wide", status=2)
    assert "of different networks, which differ in the arguments of mlp (sizes [64, 32, 10] and [64, 16, 10])" in said


def test_diff_of_seeds_coats_and_flips(tmp_path: Path) -> None:
    def write(name: str, seed: int, outer: int | None, flips: int | None) -> Path:
        planes = [7] if outer is None else [7, outer]
        coats = torch.tensor([[[bits, 0, 0, 0]] for bits in planes], dtype=torch.int32)
        layer = SupermaskLinear(4, 1, seed=seed)
        words = None if flips is None else torch.tensor([[flips, 0, 0, 0]], dtype=torch.int32)
        layer.edges = PackedEdges((1, 4), coats, flips=words, seed=seed, layer=0, weights="signed_constant", constant=1)
        save(layer, tmp_path / name, architecture=None)
        return tmp_path / name

    a = write("a", 3, 5, None)
    assert diff(a, a).same
    assert diff(a, write("b", 4, 5, None)).fields == {"seed": (3, 4)}
    assert diff(a, write("c", 3, 6, None)).fields == {"mask.1": ("a's edges", "b's edges")}
    assert diff(a, write("d", 3, None, None)).fields == {"mask.1": ("a's edges", "none")}
    assert diff(a, write("e", 3, 5, 1)).fields == {"flips": ("none", "b's edges")}
    assert diff(a, write("f", 3, 5, 0)).same


def test_diff_of_other_networks(tmp_path: Path, tickets: dict[str, Path]) -> None:
    model = convert(nn.Sequential(nn.Linear(4, 4)), 1)
    save(model, tmp_path / "a", architecture=None)
    with pytest.raises(TicketError, match=r"layer '0': \(4, 4\) in .*, not there in"):
        diff(tmp_path / "a", tickets["mlp"])
    save(lived(model, 3, 4), tmp_path / "b", architecture=None)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert found.total.a == found.total.b == int(sum(int(e.kept) for e in all_edges(model).values()))  # type: ignore[arg-type]


def test_convert_refuses(tickets: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "it is for --to export" in command("convert", tickets["mlp"], out, "--to", "onnx", "--packed", status=2)
    said = command("convert", tickets["mlp"], out, "--to", "raw", "--input-shape", "3", status=2)
    assert "it is for export, aoti and onnx" in said
    assert not list(tmp_path.iterdir())
