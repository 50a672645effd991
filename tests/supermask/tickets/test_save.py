"""Tickets: a network comes back to the bit."""

import dataclasses
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from supermask.edges.draws import WeightInit
from supermask.edges.in_model import all_edges
from supermask.edges.packed import PackedEdges
from supermask.kernels.base.bits import popcount
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskConv2d, SupermaskLinear
from supermask.tickets.info import TicketInfo
from supermask.tickets.load import inspect, load
from supermask.tickets.save import save
from tests.devices import DEVICE
from tests.supermask.tickets.networks import Attention, ConvNet, Masked, Tied, lived, mlp, searched


def check_round_trip(
    model: nn.Module,
    folder: Path,
    x: torch.Tensor,
    architecture: Architecture | None,
    fresh: Callable[[], nn.Module] = lambda: None,  # type: ignore[assignment,return-value]
) -> TicketInfo:
    """Logits to the bit from dense weights, masks as they were, everything frozen, the same bytes when saved again; on
    the device that tests take."""
    path, again = folder / "a.safetensors", folder / "b.safetensors"
    model, x = model.to(DEVICE), x.to(DEVICE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(model, path, architecture=architecture)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        expected = model.eval()(x)
    real = any(layer.weights.startswith("kaiming") for layer in all_edges(model).values())
    for mode in ("cached", "materialised", "auto", *(() if real else ("on_the_fly",))):
        network = load(path, model=fresh(), weights=mode, device=DEVICE)  # type: ignore[arg-type]
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(module.training for module in network.modules())
        logits = network(x)
        assert logits.dtype == expected.dtype
        if mode in ("cached", "materialised"):
            assert torch.equal(logits, expected)
        torch.testing.assert_close(logits, expected)
        source, edges = all_edges(model), all_edges(network)
        assert source.keys() == edges.keys()
        for name, layer in edges.items():
            assert isinstance(layer, PackedEdges)
            assert torch.equal(layer.mask(), source[name].mask())
            assert mode == "auto" or (layer.weight is None) == (mode != "cached")
            assert torch.equal(layer(torch.float32), source[name](torch.float32))
            assert (layer.seed, layer.layer, layer.generation) == (source[name].seed, source[name].layer, 0)
        save(network, again, architecture=architecture)
        assert again.read_bytes() == path.read_bytes()
    return inspect(path)


@pytest.mark.parametrize("sizes", [(9, 5, 3), (64, 256, 10), (131, 33, 7, 1), (8, 8), (1, 1)])
def test_mlp(sizes: tuple[int, ...], tmp_path: Path) -> None:
    model = searched(mlp(*sizes), 6, sizes[0], remaining=0.6)
    info = check_round_trip(model, tmp_path, torch.randn(5, sizes[0]), mlp(*sizes))
    assert info.edges == sum(a * b for a, b in pairwise(sizes))
    assert info.kept == sum(int(popcount(edges.mask()).sum()) for edges in all_edges(model).values())


@pytest.mark.parametrize("weights", get_args(WeightInit))
def test_every_distribution(weights: WeightInit, tmp_path: Path) -> None:
    """Layer fc2 is pinned at every edge."""
    model = searched(mlp(13, 21, 4), 6, 13, weights=weights, remaining=0.3, overrides={"fc2": 1.0})
    info = check_round_trip(model, tmp_path, torch.randn(5, 13), mlp(13, 21, 4))
    assert [layer.weights for layer in info.layers] == [weights, weights]
    assert info.layers[1].kept == 21 * 4


@pytest.mark.parametrize("bias", ["drop", "freeze", "train"])
@pytest.mark.parametrize("norm", ["non_affine", "freeze", "train"])
def test_policies_on_a_convolutional_network(bias: Any, norm: Any, tmp_path: Path) -> None:
    model = lived(convert(ConvNet(), 3, bias=bias, norm=norm), 4, 3, 8, 8)
    info = check_round_trip(model, tmp_path, torch.randn(2, 3, 8, 8), None, ConvNet)
    names = {tensor.name for tensor in info.tensors}
    assert {"scale", "bn.running_mean", "average.num_batches_tracked"} <= names
    assert ("fc.bias" in names) == ("up.bias" in names) == (bias != "drop")
    assert ("norm.weight" in names) == ("bn.bias" in names) == (norm != "non_affine")
    assert not any(part in name for name in names for part in ("scores", "edges", "kept", "source", "survivors"))


def test_resnet18(tmp_path: Path) -> None:
    architecture = Architecture(name="torchvision/resnet18", arguments={"num_classes": 10})
    model = searched(architecture, 2, 3, 32, 32, remaining=0.1, overrides={"fc": 1.0})
    info = check_round_trip(model, tmp_path, torch.randn(2, 3, 32, 32), architecture)
    assert len(info.layers) == 21
    assert info.architecture == architecture
    assert info.bits_per_edge < 1.1


def test_attention_and_skipped_layers(tmp_path: Path) -> None:
    model = lived(convert(Attention(), 3, bias="freeze", skip=["second.*", "fc"]), 2, 5, 12)
    info = check_round_trip(model, tmp_path, torch.randn(2, 5, 12), None, Attention)
    assert [layer.name for layer in info.layers] == ["first.in_proj", "first.out_proj"]
    assert {"second.in_proj_weight", "fc.weight", "first.in_proj.bias"} <= {tensor.name for tensor in info.tensors}


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    model = lived(convert(Tied(), 3, bias="train"), 4, 9)
    info = check_round_trip(model, tmp_path, torch.randn(4, 9), None, Tied)
    assert [tensor.name for tensor in info.tensors] == ["embedding.weight", "twice.bias"]
    network: Any = load(tmp_path / "a.safetensors", model=Tied())
    assert network.out.weight is network.embedding.weight
    assert network.again is network.twice


@pytest.mark.parametrize("fresh", [Masked, lambda: Masked(seed=6), lambda: convert_free(Masked())])
def test_hand_written_masked_layers(fresh: Callable[[], nn.Module], tmp_path: Path) -> None:
    info = check_round_trip(lived(Masked(), 3, 2, 6, 6), tmp_path, torch.randn(3, 2, 6, 6), None, fresh)
    assert [(layer.name, layer.index) for layer in info.layers] == [("fc", 2), ("conv", 8)]


def convert_free(model: nn.Module) -> nn.Module:
    """`model` with its biases gone, as a network may come whose biases the ticket has."""
    for module in model.modules():
        if isinstance(module, SupermaskConv2d | SupermaskLinear):
            del module.bias
            module.register_parameter("bias", None)
    return model


def test_model_that_is_one_layer(tmp_path: Path) -> None:
    model = lived(convert(nn.Linear(10, 3), 3, bias="train"), 2, 10)
    info = check_round_trip(model, tmp_path, torch.randn(2, 10), None, lambda: nn.Linear(10, 3))
    assert (info.layers[0].name, list(info.layers[0].planes)) == ("", ["mask"])


def test_dtypes_are_kept(tmp_path: Path) -> None:
    model = searched(mlp(9, 5, 3), 4, 9).to(torch.bfloat16)
    info = check_round_trip(model, tmp_path, torch.randn(2, 9, dtype=torch.bfloat16), mlp(9, 5, 3))
    assert {tensor.dtype for tensor in info.tensors} == {"BF16", "I64"}


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 140), min_size=2, max_size=4),
    remaining=st.floats(0.01, 1),
    seed=st.integers(0, 2**64 - 1) | st.integers(2**63, 2**64 - 1),
    weights=st.sampled_from(get_args(WeightInit)),
    magnitude=st.sampled_from(["abs", "raw"]),
    data=st.integers(0, 1000),
)
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_any_small_network(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    remaining: float,
    seed: int,
    weights: WeightInit,
    magnitude: Any,
    data: int,
) -> None:
    model = convert(mlp(*sizes).build(), seed, remaining=remaining, weights=weights, magnitude=magnitude)
    x = torch.randn(3, sizes[0], generator=torch.Generator().manual_seed(data))
    info = check_round_trip(lived(model, 3, sizes[0], seed=data), tmp_path_factory.mktemp("any"), x, mlp(*sizes))
    assert info.seed == seed
    for layer in info.layers:
        assert layer.kept == max(1, round(remaining * layer.edges))


def test_tensors_that_are_views(tmp_path: Path) -> None:
    """Strided, overlapping and broadcast tensors are stored as their values."""

    def fresh() -> nn.Module:
        model, base = nn.Sequential(nn.Linear(4, 4)), torch.arange(12.0)
        for name, view in {"a": base[:8], "b": base[4:], "c": base.view(3, 4).T, "d": base[:1].expand(5)}.items():
            model.register_buffer(name, view)
        return model

    save(convert(fresh(), 3), tmp_path / "t", architecture=None)
    model = nn.Sequential(nn.Linear(4, 4))
    for name, buffer in fresh().named_buffers():
        model.register_buffer(name, torch.zeros(buffer.shape))
    loaded = dict(load(tmp_path / "t", model=model).named_buffers())
    assert all(torch.equal(loaded[name], buffer) for name, buffer in fresh().named_buffers())


def test_masks_are_of_the_moment_of_saving(tmp_path: Path) -> None:
    model = searched(mlp(9, 5, 3), 4, 9)
    save(model, tmp_path / "a", architecture=None)
    with torch.no_grad():
        for edges in all_edges(model).values():
            edges.scores.copy_(torch.randn(edges.shape))  # type: ignore[operator]
    save(model, tmp_path / "b", architecture=None)
    x = torch.randn(3, 9)
    assert torch.equal(load(tmp_path / "b", model=mlp(9, 5, 3).build(), weights="cached")(x), model(x))
    assert not torch.equal(load(tmp_path / "a", model=mlp(9, 5, 3).build())(x), model(x))


def test_model_is_converted_in_place(ticket: Path) -> None:
    model = mlp(9, 5, 3).build()
    assert load(ticket, model=model) is model


@pytest.mark.parametrize("where", ["meta", DEVICE], ids=str)
def test_device(where: Any, ticket: Path) -> None:
    network = load(ticket, weights="on_the_fly", device=where)
    found = {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]}
    assert found == {torch.device(where).type}


def test_a_ticket_is_the_same_from_every_device(ticket: Path, tmp_path: Path) -> None:
    save(load(ticket, device=DEVICE), tmp_path / "again", architecture=mlp(9, 5, 3))
    assert (tmp_path / "again").read_bytes() == ticket.read_bytes()
    searching = searched(mlp(9, 5, 3), 4, 9)
    save(searching, tmp_path / "a", architecture=None)
    save(searching.to(DEVICE), tmp_path / "b", architecture=None)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_random_state_is_untouched(ticket: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    save(load(ticket), tmp_path / "again", architecture=mlp(9, 5, 3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_pickle(ticket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a ticket is data, not a program")

    for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")]:
        monkeypatch.setattr(module, name, refuse)
    load(ticket)
    assert b"supermask." not in ticket.read_bytes()


def test_loaded_network_does_not_depend_on_the_file(tmp_path: Path) -> None:
    path, x = tmp_path / "t", torch.randn(2, 3, 8, 8)
    save(lived(convert(ConvNet(), 3, bias="freeze", norm="freeze"), 4, 3, 8, 8), path, architecture=None)
    network = load(path, model=ConvNet(), weights="on_the_fly")
    before = network(x)
    with open(path, "r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(network(x), before)


def test_inspect(ticket: Path) -> None:
    info = inspect(ticket)
    assert info.file_bytes == ticket.stat().st_size
    assert info.dense_bytes == 4 * (45 + 15) + 2 * 20 + 8
    assert [(layer.name, layer.index, layer.shape, layer.bytes) for layer in info.layers] == [
        ("fc1", 0, (5, 9), 6),
        ("fc2", 1, (3, 5), 2),
    ]
    assert info.bits_per_edge == 8 * info.file_bytes / 60
    text = str(info)
    for part in (ticket.name, "seed 7", "mlp(sizes=[9, 5, 3])", "fc2", "8 of 15", info.sha256, "signed_constant"):
        assert part in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.seed = 1  # type: ignore[misc]


def test_unknown_mode(ticket: Path) -> None:
    with pytest.raises(ValueError, match=r"weights='lazy': expected one of 'auto', 'on_the_fly', 'material"):
        load(ticket, weights="lazy")  # type: ignore[arg-type]
