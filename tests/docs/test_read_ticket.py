"""docs/ticket-format.md suffices: a reader written from it alone finds the library's masks, weights and logits."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from supermask.edges.draws import WeightInit, initial_scores
from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.packed import SIGNED, PackedEdges
from supermask.kernels.base.bits import pack
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskConv2d, SupermaskConvTranspose2d, SupermaskLinear
from supermask.tickets.coding.levels import Levels
from supermask.tickets.load import inspect, load
from supermask.tickets.save import save
from tests.docs.reading import OLDER, READER, TICKETS_1, TICKETS_2, conv2, reader, searched


def check_weights(path: Path, network: nn.Module) -> None:
    """The reader's weights are those of `network`, to the bit, and so are its masks."""
    _, weights, _ = reader.read(path)
    layers = all_edges(network)
    assert weights.keys() == layers.keys()
    for name, layer in layers.items():
        found, expected = weights[name], layer(torch.float32).numpy()
        assert (found.dtype, found.shape) == (np.float32, layer.shape)
        assert np.array_equal(pack(torch.from_numpy(found != 0).reshape(layer.rows, -1)), layer.mask())
        if layer.weights == "kaiming_normal":
            np.testing.assert_array_max_ulp(found, expected, 2)
        else:
            assert np.array_equal(found.view(np.int32), expected.view(np.int32))


def levels_of(path: Path, layer: str, plane: str = "mask") -> Levels:
    """What the odds of an entropy-coded plane go by; not all edges have the same."""
    info = inspect(path)
    data = safetensors.numpy.load_file(path)[f"{layer}.{plane}"].tobytes()
    assert data[0] == 1
    grid = next(known.grid(info.seed) for known in info.layers if known.name == layer)
    return Levels.from_bytes(data[1:], grid)[0]


def logits(x: np.ndarray, weights: dict[str, np.ndarray], tensors: dict[str, np.ndarray]) -> np.ndarray:
    """The network `conv2` in float64."""
    for number in (1, 2):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]), (3, 3), (2, 3))
        x = np.einsum("nchwij,ocij->nohw", windows, weights[f"conv{number}"].astype(np.float64))
        x = np.maximum(normed(x, f"norm{number}", tensors), 0)
    images, channels, side, _ = x.shape
    x = x.reshape(images, channels, side // 2, 2, side // 2, 2).max(axis=(3, 5)).reshape(images, -1)
    x = np.maximum(normed(x @ weights["fc1"].T.astype(np.float64), "fc_norm1", tensors), 0)
    return x @ weights["fc2"].T.astype(np.float64) + tensors.get("fc2.bias", 0)


def normed(x: np.ndarray, name: str, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Batch norm, folded or not, with a scale and shift or without."""
    mean, var, weight, bias = (
        tensors.get(f"{name}.{part}", np.float32(default)).astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))
        for part, default in (("running_mean", 0), ("running_var", 1), ("weight", 1), ("bias", 0))
    )
    if f"{name}.running_var" in tensors:
        x = (x - mean) / np.sqrt(var + 1e-5)
    return x * weight + bias


@pytest.mark.parametrize("encoding", ["raw", "ans"])
@pytest.mark.parametrize("weights", get_args(WeightInit))
def test_every_distribution(weights: WeightInit, encoding: Any, tmp_path: Path) -> None:
    save(searched(weights=weights), tmp_path / "t", architecture=conv2(), encoding=encoding)
    assert encoding in {layer.encoding for layer in inspect(tmp_path / "t").layers}
    check_weights(tmp_path / "t", load(tmp_path / "t", weights="cached"))


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("precision", ["exact", "bfloat16"])
@pytest.mark.parametrize(("bias", "norm"), [("drop", "non_affine"), ("train", "train")])
def test_logits(bias: Any, norm: Any, precision: Any, fold: bool, tmp_path: Path) -> None:
    """They differ from PyTorch's in float32 by what float32 costs PyTorch itself, at most twice."""
    model = searched(weights="scaled_signed_constant", bias=bias, norm=norm)
    save(model, tmp_path / "t", architecture=conv2(), encoding="raw", precision=precision, fold=fold)
    header, weights, tensors = reader.read(tmp_path / "t")
    assert header["folded"] == (["fc_norm1", "norm1", "norm2"] if fold else [])
    assert header["narrowed"] == (precision == "bfloat16")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"} | (set() if fold else {"int64"})
    assert ("fc2.bias" in tensors) == (bias == "train")
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    single = load(tmp_path / "t", weights="cached")(x).double()
    double = load(tmp_path / "t", weights="cached").double()(x.double())
    found = logits(x.double().numpy(), weights, tensors)
    allowed = 2 * (single - double).abs().max() + np.finfo(np.float32).eps * double.abs().max()
    assert np.abs(found - single.numpy()).max() <= allowed.item()


@pytest.mark.parametrize("generation", [0, 3])
@pytest.mark.parametrize(("magnitude", "draws"), [("abs", 1), ("raw", 2)])
def test_masks_that_follow_initial_scores(magnitude: Any, draws: int, generation: int, tmp_path: Path) -> None:
    architecture = conv2((16, 16), 32)
    model = convert(architecture.build(), 2**64 - 1, remaining=0.3, magnitude=magnitude)
    for edges in searched_edges(model).values():
        edges.draw_scores(generation)
    save(model, tmp_path / "t", architecture=architecture)
    stored = safetensors.numpy.load_file(tmp_path / "t")
    for name in ("conv2", "fc1"):
        assert stored[f"{name}.mask"][:6].tolist() == [1, draws, generation, 0, 0, 0]
        assert len(levels_of(tmp_path / "t", name).thresholds) > 0
    check_weights(tmp_path / "t", load(tmp_path / "t", weights="cached"))


@pytest.mark.parametrize("drawn", [True, False])
def test_masks_that_are_denser_in_some_rows_channels_and_positions(drawn: bool, tmp_path: Path) -> None:
    """With initial scores in them, and without."""
    architecture, generator = conv2((16, 16), 32), torch.Generator().manual_seed(3)
    model = convert(architecture.build(), 5, remaining=0.2)
    with torch.no_grad():
        for edges in searched_edges(model).values():
            if not drawn:
                edges.scores.copy_(torch.randn(edges.shape, generator=generator))
            scores = edges.scores.view(*edges.shape[:2], -1)
            for axis, size in enumerate(scores.shape):
                places = [-1 if other == axis else 1 for other in range(3)]
                scores.mul_(torch.randn(size, generator=generator).mul(0.5).exp().view(places))
    save(model, tmp_path / "t", architecture=architecture)
    levels = levels_of(tmp_path / "t", "conv2")
    assert (levels.draws is not None) == drawn
    assert all(axis.any() for axis in levels.axes)
    check_weights(tmp_path / "t", load(tmp_path / "t", weights="cached"))


def dressed(shape: tuple[int, ...], *, layer: int, weights: WeightInit, coats: int, flips: bool) -> PackedEdges:
    """Edges with nested coats, each most of the one before in some rows and little of it in others, and a few flips."""
    rows, cols = shape[0], int(np.prod(shape[1:]))
    generator = torch.Generator().manual_seed(layer)
    selected, planes = torch.ones(rows, cols, dtype=torch.bool), []
    for _ in range(coats):
        rates = 0.05 + 0.9 * (torch.rand(rows, 1, generator=generator) < 0.7)
        selected = selected & (torch.rand(rows, cols, generator=generator) < rates)
        planes.append(pack(selected))
    turned = pack(torch.rand(rows, cols, generator=generator) < 0.1) if flips else None
    return PackedEdges(
        shape, torch.stack(planes), flips=turned, seed=9, layer=layer, generation=2, weights=weights, constant=0.3
    )


@pytest.mark.parametrize("encoding", ["raw", "ans"])
@pytest.mark.parametrize("weights", get_args(WeightInit))
def test_coats_and_flips(weights: WeightInit, encoding: Any, tmp_path: Path) -> None:
    flips = weights in SIGNED
    model = nn.Sequential(
        SupermaskConv2d(3, 64, 3, edges=dressed((64, 3, 3, 3), layer=0, weights=weights, coats=3, flips=flips)),
        SupermaskConvTranspose2d(
            64, 5, 3, edges=dressed((64, 5, 3, 3), layer=7, weights=weights, coats=2, flips=False)
        ),
        SupermaskLinear(200, 90, edges=dressed((90, 200), layer=2**31 - 1, weights=weights, coats=1, flips=flips)),
    )
    save(model, tmp_path / "t", architecture=None, encoding=encoding)
    header, found, tensors = reader.read(tmp_path / "t")
    turned = ["flips"] if flips else []
    assert [sorted(layer["planes"]) for layer in header["layers"]] == [
        [*turned, "mask", "mask.1", "mask.2"], ["mask", "mask.1"], [*turned, "mask"],
    ]  # fmt: skip
    assert tensors == {}
    dense = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ConvTranspose2d(64, 5, 3), nn.Linear(200, 90))
    check_weights(tmp_path / "t", load(tmp_path / "t", model=dense, weights="cached"))
    if "constant" in weights:
        assert np.unique(np.abs(found["0"])).tolist() == [np.float32(0.3) * np.float32(n) for n in range(4)]
    if encoding == "ans":
        for plane in (("0", "mask"), ("0", "mask.2"), ("1", "mask.1"), ("2", "mask")):
            assert levels_of(tmp_path / "t", *plane).axes[0].any()


class Alone(nn.Module):
    """A model that is nothing but edges, of any shape."""

    def __init__(self, edges: PackedEdges) -> None:
        super().__init__()
        self.edges = edges


@settings(max_examples=30)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 31]), min_size=1, max_size=4)
    | st.lists(st.sampled_from([1, 31, 33, 127, 128, 129, 257]), min_size=2, max_size=2),
    rates=st.lists(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]), min_size=1, max_size=4),
    flipped=st.sampled_from([None, 0.0, 0.1, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    layer=st.integers(0, 2**31 - 1),
    generation=st.integers(0, 2**22 - 1),
    weights=st.sampled_from(get_args(WeightInit)),
    kind=st.sampled_from(["drawn", "distance", "random"]),
)
def test_any_planes(
    tmp_path_factory: pytest.TempPathFactory,
    shape: list[int],
    rates: list[float],
    flipped: float | None,
    seed: int,
    layer: int,
    generation: int,
    weights: WeightInit,
    kind: str,
) -> None:
    """Each coat selects a rate of the edges by their initial scores, or at random; full and empty coats are there."""
    path, generator = tmp_path_factory.getbasetemp() / "any", torch.Generator().manual_seed(layer)
    rows, cols = shape[0], int(np.prod(shape[1:]))
    scores = initial_scores("kaiming_uniform", seed, layer, (rows, cols), generation=0, device=torch.device("cpu"))
    scores = {"drawn": scores, "distance": scores.abs(), "random": torch.rand(rows, cols, generator=generator)}[kind]
    selected, planes = torch.ones(rows, cols, dtype=torch.bool), []
    for rate in rates:
        highest = torch.zeros(rows * cols, dtype=torch.bool)
        highest[scores.flatten().topk(round(rate * scores.numel())).indices] = True
        selected = selected & highest.view(rows, cols)
        planes.append(pack(selected))
    flips = None
    if flipped is not None and weights in SIGNED:
        flips = pack(torch.rand(rows, cols, generator=generator) < flipped)
    edges = PackedEdges(
        shape, torch.stack(planes), flips=flips, seed=seed, layer=layer, generation=generation, weights=weights,
        constant=0.1,
    )  # fmt: skip
    save(Alone(edges), path, architecture=None)
    check_weights(path, Alone(edges))


def test_philox_of_the_paper() -> None:
    words = reader.words({"shape": [1], "index": 0}, 0, 0, 0, 4)
    assert [f"{word:08x}" for word in words[0].tolist()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_older_versions(path: Path, tmp_path: Path) -> None:
    header, weights, tensors = reader.read(path)
    assert header["version"] == (1 if path in TICKETS_1 else 2)
    network = load(path, weights="cached")
    check_weights(path, network)
    state = network.state_dict()
    assert {name for name in state if ".edges." not in name} == tensors.keys()
    assert all(np.array_equal(state[name], tensor) for name, tensor in tensors.items())
    save(network, tmp_path / "t", architecture=inspect(path).architecture)
    newer, same, _ = reader.read(tmp_path / "t")
    assert newer["version"] == 3
    assert all(np.array_equal(same[name].view(np.int32), one.view(np.int32)) for name, one in weights.items())
    for layer, other in zip(header["layers"], newer["layers"], strict=True):
        assert layer.keys() == other.keys()
        assert (layer["planes"].keys(), layer["values"]) == (other["planes"].keys(), other["values"])


def test_there_are_tickets_of_older_versions() -> None:
    assert (len(TICKETS_1), len(TICKETS_2)) == (2, 2)


def test_program_prints_a_line_a_layer_and_imports_numpy_alone(good: Path) -> None:
    code = (
        f"import runpy, sys\n"
        f"sys.path.append({str(Path(np.__file__).parents[1])!r})\n"
        f"runpy.run_path({str(READER)!r}, run_name='__main__')\n"
        f"names = {{name.partition('.')[0] for name in sys.modules}} - sys.stdlib_module_names - {{'__main__'}}\n"
        f"print(*names, file=sys.stderr)"
    )
    # Without site (-S), which imports what .pth files of the environment ask for.
    command = [sys.executable, "-S", "-c", code, str(good)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.split()) == (0, ["numpy"])
    _, weights, _ = reader.read(good)
    for line, layer in zip(ran.stdout.splitlines(), inspect(good).layers, strict=True):
        assert line.startswith(f"{layer.name} {list(layer.shape)} {layer.kept} {layer.encoding} ")
        assert float(line.split()[-1]) == weights[layer.name].sum(dtype=np.float64)
