"""Layers of several coats, and of signs that are not the seed's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from supermask import SupermaskConv2d, SupermaskLinear, load, save
from supermask.edges.packed import PackedEdges
from supermask.kernels.base.bits import pack, unpack
from supermask.tickets.errors import TicketError
from tests.devices import DEVICE


def coated(shape: tuple[int, ...], coats: int, seed: int, *, flips: bool) -> PackedEdges:
    """Edges with nested coats, and some signs flipped, also of edges that are not selected."""
    generator = torch.Generator().manual_seed(seed)
    rows, cols = shape[0], torch.Size(shape[1:]).numel()
    drawn = torch.rand(rows, cols, generator=generator)
    masks = torch.stack([pack(drawn < 0.6 / (coat + 1)) for coat in range(coats)])
    turned = pack(torch.rand(rows, cols, generator=generator) < 0.3) if flips else None
    return PackedEdges(
        shape, masks, flips=turned, seed=seed, layer=0, weights="signed_constant", constant=0.3, making="cached",
        device=DEVICE,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["raw", "ans"])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("coats", [1, 2, 3, 5])
def test_coats_and_flips(coats: int, flips: bool, encoding: Any, tmp_path: Path) -> None:
    """Weights count their coats, with the seed's signs or the other ones; planes take as many bits as they have."""
    edges = coated((7, 33), coats, 5, flips=flips)
    layer = SupermaskLinear(33, 7, seed=5, device=DEVICE)
    layer.edges = edges
    info = save(layer, tmp_path / "t", architecture=None, encoding=encoding)
    plain = PackedEdges((7, 33), torch.full((7, 4), -1, dtype=torch.int32), seed=5, layer=0, weights="signed_constant",
                        constant=0.3, device=DEVICE)  # fmt: skip
    counts = unpack(edges.coats.reshape(-1, 4), 33).view(coats, 7, 33).sum(0)
    sign = plain(torch.float32).sign()
    if edges.flips is not None:
        sign = sign * (1 - 2 * unpack(edges.flips, 33).float())
    expected = sign * counts * torch.tensor(0.3)
    x = torch.randn(4, 33).to(DEVICE)
    for making in ("cached", "materialised", "on_the_fly", "auto"):
        network: Any = load(tmp_path / "t", model=SupermaskLinear(33, 7, seed=1), weights=making, device=DEVICE)
        assert torch.equal(network.edges(torch.float32), expected)
        torch.testing.assert_close(network(x), x @ expected.T)
        again = save(network, tmp_path / "again", architecture=None, encoding=encoding)
        assert (tmp_path / "again").read_bytes() == (tmp_path / "t").read_bytes()
        assert again.layers == info.layers
    (only,) = info.layers
    kept = [int(torch.count_nonzero(counts > coat)) for coat in range(coats)]
    assert [coat.kept for coat in only.coats] == kept
    if encoding == "raw":
        bits = [231, *kept[:-1], *([kept[0]] if flips else [])]
        assert only.bytes == sum(-(-count // 8) for count in bits)


def test_coats_of_a_convolution_and_in_other_dtypes(tmp_path: Path) -> None:
    edges = coated((6, 4, 3, 3), 3, 9, flips=True)
    layer = SupermaskConv2d(4, 6, 3, seed=9, device=DEVICE)
    layer.edges = edges
    save(layer, tmp_path / "t", architecture=None)
    place: dict[str, Any] = {"device": DEVICE}
    network: Any = load(tmp_path / "t", model=SupermaskConv2d(4, 6, 3, seed=1), weights="cached", **place)
    x = torch.randn(2, 4, 8, 8).to(DEVICE)
    assert torch.equal(network(x), torch.nn.functional.conv2d(x, edges(torch.float32)))
    made: Any = load(tmp_path / "t", model=SupermaskConv2d(4, 6, 3, seed=1), weights="materialised", **place)
    assert torch.equal(made.edges(torch.bfloat16), edges(torch.float32).bfloat16())
    assert torch.equal(network.state_dict()["edges.flips"], edges.flips & edges.coats[0])  # type: ignore[operator]


def test_coats_that_are_not_nested_are_not_saved(tmp_path: Path) -> None:
    edges = coated((7, 33), 2, 5, flips=False)
    layer = SupermaskLinear(33, 7, seed=5)
    layer.edges = edges
    edges.packed[1, 0, 0] = ~edges.packed[0, 0, 0]
    with pytest.raises(TicketError, match="coats are not nested"):
        save(layer, tmp_path / "t", architecture=None)
    with pytest.raises(ValueError, match="flips with weights='unsigned_constant'"):
        PackedEdges((1, 4), torch.ones(1, 4, dtype=torch.int32), flips=torch.ones(1, 4, dtype=torch.int32), seed=1,
                    layer=0, weights="unsigned_constant", constant=1)  # fmt: skip


def test_flips_that_change_change_the_weights() -> None:
    for making in ("auto", "cached", "materialised", "on_the_fly"):
        edges = coated((7, 33), 1, 5, flips=True)
        place: dict[str, Any] = {"seed": 5, "layer": 0, "weights": "signed_constant", "constant": 0.3, "device": DEVICE}
        edges = PackedEdges((7, 33), edges.packed, flips=edges.flips, **place, making=making)  # type: ignore[arg-type]
        plain = PackedEdges((7, 33), edges.packed, **place)
        assert not torch.equal(edges(torch.float32), plain(torch.float32))
        assert edges.flips is not None
        edges.flips.zero_()
        assert torch.equal(edges(torch.float32), plain(torch.float32))


@pytest.mark.parametrize("bits", [torch.ones(6, 4, dtype=torch.int32), torch.ones(7, 8, dtype=torch.int32)])
def test_planes_of_another_shape_are_refused(bits: torch.Tensor) -> None:
    mask = torch.ones(7, 4, dtype=torch.int32)
    place: dict[str, Any] = {"seed": 5, "layer": 0, "weights": "signed_constant", "constant": 1.0}
    with pytest.raises(ValueError, match="flips"):
        PackedEdges((7, 33), mask, flips=bits, **place)
    with pytest.raises(ValueError, match="mask"):
        PackedEdges((7, 33), bits, **place)


def test_shared_edges_are_no_ticket(tmp_path: Path) -> None:
    first = SupermaskLinear(4, 4, seed=1)
    second = SupermaskLinear(4, 4, seed=1)
    second.edges = first.edges
    with pytest.raises(TicketError, match="several layers share the edges of '0'"):
        save(nn.Sequential(first, second), tmp_path / "t", architecture=None)
