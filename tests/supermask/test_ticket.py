"""Tickets: what is saved comes back to the bit, and a file that is anything else is refused by name."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kernels.bits import popcount, unpack
from supermask.convert import convert
from supermask.draws import WeightInit
from supermask.edges import PackedEdges, all_edges
from supermask.layers import SupermaskConv2d, SupermaskLinear
from supermask.networks import Architecture
from supermask.ticket import TicketError, TicketInfo, inspect, load, save

WEIGHTS = get_args(WeightInit)
MODES = ("cached", "on_the_fly")
Mutation = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def mlp(*sizes: int) -> Architecture:
    return Architecture(name="mlp", arguments={"sizes": list(sizes)})


def lived(model: nn.Module, *shape: int, seed: int = 0) -> nn.Module:
    """`model` after some steps' worth of change to its batch-norm statistics, scores and left parameters."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        model(torch.randn(shape, generator=generator))
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("bias"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
    return model.eval()


def searched(architecture: Architecture, *shape: int, seed: int = 7, **conversion: Any) -> nn.Module:
    return lived(convert(architecture.build(), seed, **conversion), *shape)


def check_round_trip(
    model: nn.Module, folder: Path, x: torch.Tensor, architecture: Architecture | None, fresh: nn.Module | None = None
) -> TicketInfo:
    """Logits to the bit in both modes, masks as they were, everything frozen, and the same bytes when saved again."""
    path, again = folder / "a.safetensors", folder / "b.safetensors"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(model, path, architecture=architecture)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expected = model.eval()(x)
    for mode in MODES:
        network = load(path, model=pickle.loads(pickle.dumps(fresh)), weights=mode)
        assert torch.equal(network(x), expected)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        source, edges = all_edges(model), all_edges(network)
        assert source.keys() == edges.keys()
        for name, layer in edges.items():
            assert isinstance(layer, PackedEdges)
            assert torch.equal(layer.mask(), source[name].mask())
            assert (layer.weight is None) == (mode == "on_the_fly")
        save(network, again, architecture=architecture)
        assert again.read_bytes() == path.read_bytes()
    return inspect(path)


class ConvNet(nn.Module):
    """Odd sizes, groups, a transposed convolution, batch and layer norms, a frozen parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(6, 10, 3, stride=2, groups=2, padding_mode="reflect", padding=1)
        self.up = nn.ConvTranspose2d(10, 4, 3, stride=2, output_padding=1)
        self.average = nn.BatchNorm2d(4, momentum=None)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.bn(self.stem(x * self.scale)).relu())
        return self.fc(self.norm(self.pool(self.average(self.up(x.relu()))).flatten(1)))


@pytest.fixture
def ticket(tmp_path: Path) -> Path:
    """A small good ticket with batch-norm statistics and a mask whose last byte is not full."""
    path = tmp_path / "good.safetensors"
    save(searched(mlp(9, 5, 3), 4, 9), path, architecture=mlp(9, 5, 3))
    return path


@pytest.mark.parametrize("sizes", [(9, 5, 3), (64, 256, 10), (131, 33, 7, 1), (8, 8), (1, 1)])
def test_mlp(sizes: tuple[int, ...], tmp_path: Path) -> None:
    model = searched(mlp(*sizes), 6, sizes[0], remaining=0.6)
    info = check_round_trip(model, tmp_path, torch.randn(5, sizes[0]), mlp(*sizes))
    assert info.edges == sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    assert info.kept == sum(int(popcount(edges.mask()).sum()) for edges in all_edges(model).values())


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_distribution(weights: WeightInit, tmp_path: Path) -> None:
    model = searched(mlp(13, 21, 4), 6, 13, weights=weights, remaining=0.3, overrides={"fc2": 1.0})
    info = check_round_trip(model, tmp_path, torch.randn(5, 13), mlp(13, 21, 4))
    assert [layer.weights for layer in info.layers] == [weights, weights]
    assert info.layers[1].kept == 21 * 4


@pytest.mark.parametrize("bias", ["drop", "freeze", "train"])
@pytest.mark.parametrize("norm", ["non_affine", "freeze", "train"])
def test_policies_on_a_convolutional_network(bias: Any, norm: Any, tmp_path: Path) -> None:
    model = lived(convert(ConvNet(), 3, bias=bias, norm=norm), 4, 3, 8, 8)
    info = check_round_trip(model, tmp_path, torch.randn(2, 3, 8, 8), None, ConvNet())
    names = {tensor.name for tensor in info.tensors}
    assert {"scale", "bn.running_mean", "average.num_batches_tracked"} <= names
    assert ("fc.bias" in names) == ("up.bias" in names) == (bias != "drop")
    assert ("norm.weight" in names) == ("bn.bias" in names) == (norm != "non_affine")
    assert not any("score" in name or "edges" in name or "kept" in name for name in names)


def test_resnet18(tmp_path: Path) -> None:
    architecture = Architecture(name="torchvision/resnet18", arguments={"num_classes": 10})
    model = searched(architecture, 2, 3, 32, 32, remaining=0.1, overrides={"fc": 1.0})
    info = check_round_trip(model, tmp_path, torch.randn(2, 3, 32, 32), architecture)
    assert len(info.layers) == 21
    assert info.architecture == architecture
    assert info.bits_per_edge < 1.1
    assert 28 < info.dense_bytes / info.file_bytes < 32


def test_attention_and_skipped_layers(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True)

    class Wrapped(nn.Module):
        """Forward in training mode's path: the fused one reads dense weights."""

        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
            self.other = nn.MultiheadAttention(12, 3, batch_first=True)
            self.fc = nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.attention(x, x, x, need_weights=False)[0]
            return self.fc(self.other(x, x, x, need_weights=False)[0])

    globals()["Wrapped"] = Wrapped
    Wrapped.__qualname__ = "Wrapped"
    model = lived(convert(Wrapped(), 3, bias="freeze", skip=["other.*", "fc"]), 2, 5, 12)
    info = check_round_trip(model, tmp_path, torch.randn(2, 5, 12), None, Wrapped())
    assert [layer.name for layer in info.layers] == ["attention.in_proj", "attention.out_proj"]
    assert {"other.in_proj_weight", "fc.weight", "attention.in_proj.bias"} <= {t.name for t in info.tensors}
