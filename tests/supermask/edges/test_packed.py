"""Packed edges: the searched weights to the bit, products by every way, and the rule that chooses among them."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.edges import packed as packed_module
from supermask.edges.making import choose
from supermask.edges.packed import PackedEdges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base import native
from supermask.kernels.base.bits import pack, unpack
from supermask.networks.layers import SupermaskConv2d, SupermaskLinear
from tests.devices import CPU, DEVICE, ON_GPU, kernels_of

KINDS = ["signed_constant", "scaled_signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_uniform"]
GPU = torch.device("cuda")


def searched_of(shape: tuple[int, ...], **options: Any) -> SearchedEdges:
    return SearchedEdges(shape, **{"device": DEVICE} | options)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype).to(DEVICE)


def chances(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def packed_of(searched: SearchedEdges, **changes: Any) -> PackedEdges:
    """What a ticket would hold of `searched`."""
    return PackedEdges(
        searched.shape,
        searched.mask(),
        seed=searched.seed,
        layer=searched.layer,
        weights=searched.weights,
        constant=searched.constant.item(),
        device=searched.constant.device,
        **changes,
    )


@pytest.mark.parametrize("weights", KINDS)
@pytest.mark.parametrize("making", ["auto", "materialised", "cached"])
@pytest.mark.parametrize("shape", [(9, 5, 3, 3), (9, 45)])
def test_they_make_the_searched_weights(weights: Any, making: Any, shape: tuple[int, ...]) -> None:
    searched = searched_of(shape, seed=2**64 - 1, layer=6, remaining=0.3, weights=weights)
    packed = packed_of(searched, making=making)
    for each in (packed, copy.deepcopy(packed), copy.deepcopy(packed).half(), copy.deepcopy(packed).double()):
        assert torch.equal(each.mask(), searched.mask())
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            assert each(dtype).dtype is dtype
            assert torch.equal(each(dtype), searched(dtype))
        assert not list(each.parameters())
        assert list(each.state_dict()) == ["source", "packed"]


@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_what_is_held_beside_the_mask(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels)
    dense, conv = searched_of((64, 256), seed=1, remaining=0.3), searched_of((64, 16, 4, 4), seed=1, remaining=0.3)

    def bits(edges: SearchedEdges, **changes: Any) -> float:
        buffers = dict(packed_of(edges, **changes).named_buffers())
        return 8 * sum(buffers[name].nbytes for name in buffers.keys() - {"source", "constant"}) / edges.count

    signs = 0 if ON_GPU else 1  # which a GPU draws as quickly as it reads
    assert bits(dense, making="cached") == bits(conv, making="cached") == 33
    assert bits(conv) == bits(dense, making="materialised") == 1 + signs
    assert 1 + signs <= bits(dense) <= (4 if native.usable() and not ON_GPU else 1 + signs)


@pytest.mark.parametrize("making", ["auto", "materialised", "cached"])
def test_they_take_the_state_of_their_own_ticket_only(making: Any) -> None:
    def packed(seed: int, weights: Any, ones: bool) -> PackedEdges:
        mask = torch.full((9, 20), ones) if ones else torch.eye(9, 20, dtype=torch.bool)
        return PackedEdges(
            (9, 20), pack(mask), seed=seed, layer=0, weights=weights, constant=0.25, making=making, device=DEVICE
        )

    x = torch.ones(2, 20, device=DEVICE)
    for weights in ("signed_constant", "unsigned_constant", "kaiming_uniform"):
        edges, other = packed(1, weights, False), packed(1, weights, True)
        edges.load_state_dict(other.state_dict())
        assert torch.equal(edges.mask(), other.mask())
        assert torch.equal(edges(torch.float32), other(torch.float32))
        assert torch.equal(edges.linear(x, None, torch.float32), other.linear(x, None, torch.float32))
        before = edges(torch.float32)
        with pytest.raises(RuntimeError, match=r"\(2, 0, 0, .*\(1, 0, 0, "):
            edges.load_state_dict(packed(2, weights, False).state_dict())
        assert torch.equal(edges(torch.float32), before)


def small_net(making: Any, device: torch.device = DEVICE) -> nn.Module:
    """A convolution and a linear layer over packed edges."""
    conv = searched_of((8, 3, 3, 3), seed=3, remaining=0.4, device=device)
    fc = searched_of((10, 288), seed=3, layer=1, remaining=0.2, device=device)
    biases = torch.arange(8.0, device=device), torch.arange(10.0, device=device)
    return nn.Sequential(
        SupermaskConv2d(3, 8, 3, stride=2, padding=1, bias=biases[0], edges=packed_of(conv, making=making)),
        nn.ReLU(),
        nn.Flatten(),
        SupermaskLinear(288, 10, bias=biases[1], edges=packed_of(fc, making=making)),
    ).eval()


@pytest.mark.parametrize(
    ("kernels", "dtype"),
    [
        ("native", torch.float32),
        ("torch", torch.float32),
        ("triton", torch.float32),
        ("native", torch.float64),
        ("torch", torch.float64),
    ],
)
@pytest.mark.parametrize("making", ["auto", "on_the_fly", "materialised"])
def test_every_way_gives_the_dense_product(
    kernels: str, dtype: torch.dtype, making: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CPU if dtype is torch.float64 else DEVICE  # no kernel of a GPU takes float64
    x = drawn(2, 3, 12, 12, dtype=dtype).to(device).requires_grad_()
    expected = small_net("cached", device)(x)
    (grad,) = torch.autograd.grad(expected.square().sum(), x)
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels_of(kernels))
    found = small_net(making, device)(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], grad)


def test_autocast_chooses_the_dtype() -> None:
    x = drawn(2, 3, 12, 12)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        found, expected = small_net("on_the_fly")(x), small_net("cached")(x)
    assert found.dtype is expected.dtype is torch.bfloat16
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("making", ["auto", "on_the_fly", "materialised", "cached"])
def test_a_packed_network_is_traced_whole(kernels: str, making: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels)
    torch._dynamo.reset()
    net, x = small_net(making), drawn(2, 3, 12, 12)
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), expected)
        exported = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
        for batch in (x, torch.cat([x, x + 1, x])):
            torch.testing.assert_close(exported.module()(batch), net(batch))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_inductor(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels)
    torch._dynamo.reset()
    net, x = small_net("auto"), drawn(1, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, fullgraph=True)(x), net(x))


def test_a_call_with_large_activations_keeps_its_weights() -> None:
    edges = packed_of(searched_of((8, 3, 3, 3), seed=3, remaining=0.4))
    layer = SupermaskConv2d(3, 8, 3, edges=edges)
    with torch.inference_mode():
        layer(torch.ones(1, 3, 3, 3, device=DEVICE))
        assert edges.weight is None
        layer(torch.ones(4, 3, 32, 32, device=DEVICE))
    assert edges.weight is not None
    x = torch.ones(4, 3, 32, 32, device=DEVICE, requires_grad=True)
    layer(x).sum().backward()  # no tensor of inference mode is left behind


def test_few_rows_are_multiplied_from_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, ...]] = []

    def spy(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        called.append(tuple(x.shape))
        return F.linear(x, torch.zeros(64, 256, device=DEVICE))

    for name in ("masked_mm", "by_tables"):
        monkeypatch.setattr(packed_module, name, spy)
    searched = searched_of((64, 256), seed=1, remaining=0.3)
    for making, calls in (("auto", 1), ("on_the_fly", 1), ("materialised", 0), ("cached", 0)):
        called.clear()
        SupermaskLinear(256, 64, edges=packed_of(searched, making=making))(torch.ones(3, 256, device=DEVICE))
        assert len(called) == calls, making


@pytest.mark.parametrize(
    ("device", "itemsize", "rows", "fused", "kept", "may_keep", "expected"),
    [
        (CPU, 4, 1, True, False, True, "on_the_fly"),
        (CPU, 4, 4096, True, False, True, "on_the_fly"),
        (CPU, 4, 1, False, False, True, "materialised"),
        (CPU, 4, 1, False, True, True, "cached"),
        (CPU, 4, 4096, False, False, True, "cached"),
        (CPU, 4, 4096, False, False, False, "materialised"),
        (CPU, 2, 4096, False, True, True, "materialised"),  # converting the kept float32 costs more
        (GPU, 4, 1, True, True, True, "on_the_fly"),
        (GPU, 2, 512, True, False, True, "on_the_fly"),
        (GPU, 4, 4096, True, False, True, "cached"),
        (GPU, 2, 4096, True, False, False, "materialised"),
    ],
)
def test_the_rule(
    *, device: torch.device, itemsize: int, rows: int, fused: bool, kept: bool, may_keep: bool, expected: str
) -> None:
    sizes = {"edges": 4096 * 4096, "activations": 8192 * rows, "itemsize": itemsize}
    assert choose(device=device, rows=rows, fused=fused, kept=kept, may_keep=may_keep, **sizes) == expected


def test_what_cannot_be_made_in_a_product_is_refused() -> None:
    searched = searched_of((8, 16), seed=0, weights="kaiming_normal")
    with pytest.raises(ValueError, match=r"weights='kaiming_normal'.*use 'materialised'"):
        packed_of(searched, making="on_the_fly")
    with pytest.raises(ValueError, match="making='lazy'"):
        packed_of(searched, making="lazy")


def test_what_was_made_of_a_mask_follows_it() -> None:
    searched, x = searched_of((24, 40), seed=3, remaining=0.4), drawn(2, 40)
    other = pack(chances(24, 40) < 0.2)
    for making in ("auto", "on_the_fly", "cached"):
        edges, replaced = packed_of(searched, making=making), packed_of(searched, making=making)
        edges.packed.copy_(other)
        replaced.packed = other
        dense = edges(torch.float32)
        assert torch.equal(dense != 0, unpack(other, 40))
        expected = F.linear(x, dense)
        for each in (edges, replaced):
            torch.testing.assert_close(each.linear(x, None, torch.float32), expected)


@pytest.mark.parametrize("making", ["auto", "on_the_fly", "materialised", "cached"])
def test_an_input_of_another_width_is_refused(making: Any) -> None:
    layer = SupermaskLinear(36, 64, edges=packed_of(searched_of((64, 36), seed=1), making=making))
    for width in (19, 35, 37):
        with pytest.raises((ValueError, RuntimeError), match=f"{width}"):
            layer(torch.ones(3, width, device=DEVICE))


def test_wrapped_tensors_take_the_op_or_are_refused() -> None:
    layer = SupermaskLinear(36, 64, edges=packed_of(searched_of((64, 36), seed=1)))
    x = drawn(3, 36)
    expected = layer(x)
    assert torch.equal(torch.func.functionalize(layer)(x), expected)
    assert torch.equal(layer(torch._neg_view(-x)), expected)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(ValueError, match="tangent"):
        layer(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("making", ["auto", "on_the_fly", "materialised", "cached"])
def test_an_image_of_other_channels_is_refused(making: Any) -> None:
    edges = packed_of(searched_of((8, 3, 3, 3), seed=3), making=making)
    for groups, channels in ((1, 2), (1, 4), (2, 3), (2, 8)):
        layer = SupermaskConv2d(3 * groups, 8, 3, padding=1, groups=groups, edges=edges)
        with pytest.raises(ValueError, match=rf"\(2, {channels}, 6, 6\): the layer takes \[N, {3 * groups}, H, W\]"):
            layer(torch.ones(2, channels, 6, 6, device=DEVICE))


@pytest.mark.parametrize("making", ["auto", "on_the_fly", "materialised", "cached"])
def test_turned_signs_follow_moves_writes_and_state_dicts(making: Any) -> None:
    searched, x = searched_of((24, 40), seed=3, remaining=0.4), drawn(2, 40)
    flips = pack(chances(24, 40) < 0.5)
    turned = torch.where(unpack(flips, 40), -1.0, 1.0) * searched(torch.float32).detach()

    def check(edges: PackedEdges, expected: Tensor) -> None:
        assert torch.equal(edges(torch.float32), expected)
        torch.testing.assert_close(edges.linear(x, None, torch.float32), F.linear(x, expected))

    edges = packed_of(searched, making=making, flips=flips.clone())
    check(edges, turned)
    check(copy.deepcopy(edges).half(), turned)
    other = packed_of(searched, making=making, flips=torch.zeros_like(flips))
    check(other, searched(torch.float32).detach())
    other.load_state_dict(edges.state_dict())
    check(other, turned)
    edges.flips.zero_()
    check(edges, searched(torch.float32).detach())


def test_what_is_made_again_is_shared_with_the_rest() -> None:
    """By whom processes share a network, and no process holds signs of its own."""
    layer = SupermaskLinear(40, 8, seed=0)
    mask = layer.edges.mask()
    packed = PackedEdges((8, 40), mask, seed=0, layer=0, weights="signed_constant", constant=0.5)
    for edges in (layer.edges, packed):
        edges.share_memory()
        assert all(buffer.is_shared() for buffer in edges.buffers())
        assert edges.signs is not None
