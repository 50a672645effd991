"""Masked layers against torch.nn layers that hold the same weights, and everything that may happen to them."""

import copy
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import unpack
from supermask.networks.attention import SupermaskMultiheadAttention
from supermask.networks.convert import convert
from supermask.networks.layers import (
    DENSE_FORMS,
    SupermaskConv1d,
    SupermaskConv2d,
    SupermaskConv3d,
    SupermaskConvTranspose1d,
    SupermaskConvTranspose2d,
    SupermaskConvTranspose3d,
    SupermaskLinear,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

# Masked class, its torch.nn layer, arguments of both, input shape. Channel counts, kernels and strides differ from each
# other everywhere, so that a swapped pair of arguments or dimensions cannot go unseen.
CASES: dict[str, tuple[Any, Any, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "linear": (SupermaskLinear, nn.Linear, (37, 11), {}, (5, 37)),
    "linear_1d": (SupermaskLinear, nn.Linear, (37, 11), {}, (37,)),
    "linear_4d": (SupermaskLinear, nn.Linear, (131, 3), {}, (2, 3, 2, 131)),
    "conv1d": (SupermaskConv1d, nn.Conv1d, (6, 8, 3), {"stride": 2, "padding": 1}, (2, 6, 17)),
    "conv1d_unbatched": (SupermaskConv1d, nn.Conv1d, (6, 8, 3), {}, (6, 17)),
    "conv1d_groups": (SupermaskConv1d, nn.Conv1d, (6, 8, 5), {"groups": 2, "dilation": 3, "padding": 4}, (2, 6, 17)),
    "conv1d_same": (SupermaskConv1d, nn.Conv1d, (6, 8, 4), {"padding": "same", "dilation": 3}, (2, 6, 17)),
    "conv1d_reflect": (SupermaskConv1d, nn.Conv1d, (6, 8, 3), {"padding": 2, "padding_mode": "reflect"}, (2, 6, 17)),
    "conv2d": (
        SupermaskConv2d, nn.Conv2d, (6, 9, (3, 2)),
        {"stride": (2, 1), "padding": (1, 3), "dilation": (1, 2), "groups": 3}, (2, 6, 11, 7),
    ),
    "conv2d_depthwise": (SupermaskConv2d, nn.Conv2d, (6, 12, 3), {"groups": 6, "padding": 1}, (2, 6, 5, 7)),
    "conv2d_valid": (SupermaskConv2d, nn.Conv2d, (6, 9, (3, 2)), {"padding": "valid", "stride": 3}, (2, 6, 11, 7)),
    "conv2d_same": (SupermaskConv2d, nn.Conv2d, (6, 9, (4, 2)), {"padding": "same"}, (2, 6, 11, 7)),
    "conv2d_same_circular": (
        SupermaskConv2d, nn.Conv2d, (6, 9, (4, 3)),
        {"padding": "same", "dilation": (1, 2), "padding_mode": "circular"}, (2, 6, 11, 7),
    ),
    "conv2d_valid_reflect": (
        SupermaskConv2d, nn.Conv2d, (6, 9, 3), {"padding": "valid", "padding_mode": "reflect"}, (2, 6, 11, 7),
    ),
    "conv2d_reflect": (
        SupermaskConv2d, nn.Conv2d, (6, 9, 3),
        {"padding": (3, 1), "padding_mode": "reflect", "stride": (1, 2)}, (2, 6, 11, 7),
    ),
    "conv2d_replicate": (
        SupermaskConv2d, nn.Conv2d, (6, 9, 3), {"padding": (2, 0), "padding_mode": "replicate"}, (2, 6, 11, 7),
    ),
    "conv3d": (
        SupermaskConv3d, nn.Conv3d, (4, 6, (1, 2, 3)),
        {"stride": (1, 2, 1), "padding": (0, 1, 2), "dilation": (2, 1, 1), "groups": 2}, (2, 4, 3, 5, 7),
    ),
    "conv3d_same": (SupermaskConv3d, nn.Conv3d, (4, 6, (1, 2, 3)), {"padding": "same"}, (2, 4, 3, 5, 7)),
    "conv3d_circular": (
        SupermaskConv3d, nn.Conv3d, (4, 6, 2), {"padding": (0, 1, 2), "padding_mode": "circular"}, (2, 4, 3, 5, 7),
    ),
    "transpose1d": (
        SupermaskConvTranspose1d, nn.ConvTranspose1d, (6, 8, 4),
        {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}, (2, 6, 7),
    ),
    "transpose2d": (
        SupermaskConvTranspose2d, nn.ConvTranspose2d, (6, 9, (3, 2)),
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "dilation": (1, 2), "groups": 3}, (2, 6, 5, 4),
    ),
    "transpose2d_unbatched": (SupermaskConvTranspose2d, nn.ConvTranspose2d, (6, 9, 3), {}, (6, 5, 4)),
    "transpose3d": (
        SupermaskConvTranspose3d, nn.ConvTranspose3d, (4, 6, (1, 2, 3)),
        {"stride": (1, 2, 3), "padding": (0, 1, 0), "output_padding": (0, 1, 2), "groups": 2}, (2, 4, 3, 2, 4),
    ),
}  # fmt: skip
ONE_OF_EACH = ["linear", "conv1d", "conv2d", "conv3d", "transpose1d", "transpose2d", "transpose3d"]
SEED = 0x0123456789ABCDEF


def make(name: str, **search: Any) -> Any:
    kind, _, args, kwargs, _ = CASES[name]
    return kind(*args, **kwargs, **{"seed": SEED, "layer": 3, "remaining": 0.3, **search})


def dense_with(name: str, weight: Tensor, bias: Tensor | None = None) -> Any:
    """The torch.nn layer of a case, holding `weight` and `bias`."""
    _, dense, args, kwargs, _ = CASES[name]
    layer = dense(*args, **kwargs, bias=bias is not None)
    with torch.no_grad():
        layer.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def input_of(name: str, seed: int = 0) -> Tensor:
    return torch.randn(CASES[name][4], generator=torch.Generator().manual_seed(seed))


def oracle_mask(layer: Any) -> Tensor:
    order = torch.sort(layer.edges.scores.detach().abs().flatten(), descending=True, stable=True).indices
    chosen = torch.zeros(layer.edges.count, dtype=torch.bool)
    chosen[order[: max(1, round(0.3 * layer.edges.count))]] = True
    return chosen.view(layer.edges.shape)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients_are_the_dense_layers(name: str) -> None:
    layer = make(name)
    dense = dense_with(name, layer.weight)
    theta = make(name, remaining=1.0).weight.detach()
    chosen = oracle_mask(layer)
    assert torch.equal(dense.weight, torch.where(chosen, theta, 0))
    assert bool((theta != 0).all())
    assert 0 < int((theta < 0).sum()) < theta.numel()

    x, x_dense = input_of(name).requires_grad_(), input_of(name).requires_grad_()
    out, expected = layer(x), dense(x_dense)
    assert torch.equal(out, expected)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(grad)
    expected.backward(grad)
    assert torch.equal(x.grad, x_dense.grad)
    sign = torch.where(layer.edges.scores.detach() < 0, -1.0, 1.0)
    assert torch.equal(layer.edges.scores.grad, dense.weight.grad * theta * sign)
    assert bool((layer.edges.scores.grad[~chosen] != 0).any())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bias_none_fixed_or_trained(name: str) -> None:
    layer = make(name)
    assert layer.bias is None
    values = torch.randn(layer.outputs, generator=torch.Generator().manual_seed(2))
    dense = dense_with(name, layer.weight, values)
    expected = dense(input_of(name))
    expected.square().sum().backward()

    fixed = make(name, bias=values.clone())
    assert torch.equal(fixed(input_of(name)), expected)
    assert [n for n, _ in fixed.named_parameters()] == ["edges.scores"]
    assert torch.equal(fixed.state_dict()["bias"], values)

    trained = make(name, bias=nn.Parameter(values.clone()))
    out = trained(input_of(name))
    out.square().sum().backward()
    assert torch.equal(out, expected)
    assert torch.equal(trained.bias.grad, dense.bias.grad)


@pytest.mark.parametrize("name", ["transpose1d", "transpose2d", "transpose3d"])
def test_output_size_of_transposed_convolutions(name: str) -> None:
    kind, dense_kind, args, kwargs, _ = CASES[name]
    kwargs = {k: v for k, v in kwargs.items() if k != "output_padding"}
    layer = kind(*args, **kwargs, seed=SEED, remaining=0.3)
    dense = dense_kind(*args, **kwargs, bias=False)
    with torch.no_grad():
        dense.weight.copy_(layer.weight)
    x = input_of(name)
    smallest = dense(x).shape[2:]
    assert torch.equal(layer(x), dense(x))
    for d, stride in enumerate(dense.stride):
        if stride > 1:
            size = [s + (i == d) for i, s in enumerate(smallest)]
            assert torch.equal(layer(x, size), dense(x, size))
            assert torch.equal(layer(x, [2, args[1], *size]), dense(x, size))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="output_size"):
            layer(x, [s + wrong for s in smallest])


def attention(**kwargs: Any) -> tuple[nn.MultiheadAttention, SupermaskMultiheadAttention]:
    """The original, and the masked one, with the same effective weights and biases."""
    torch.manual_seed(0)
    dense = nn.MultiheadAttention(12, 3, **kwargs)
    biases: list[Tensor | None] = [None, None]
    if dense.in_proj_bias is not None:
        nn.init.normal_(dense.in_proj_bias)
        nn.init.normal_(dense.out_proj.bias)
        biases = [dense.in_proj_bias.detach().clone(), dense.out_proj.bias.detach().clone()]
    into = SupermaskLinear(12, 36, biases[0], seed=1, layer=0)
    out = SupermaskLinear(12, 12, biases[1], seed=1, layer=1)
    with torch.no_grad():
        dense.in_proj_weight.copy_(into.weight)  # type: ignore[union-attr]
        dense.out_proj.weight.copy_(out.weight)
    return dense, SupermaskMultiheadAttention(dense, into, out)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check_attention(dense: Any, masked: Any, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> None:
    torch.manual_seed(3)
    expected, expected_weights = dense(query, key, value, **kwargs)
    torch.manual_seed(3)
    out, weights = masked(query, key, value, **kwargs)
    assert torch.equal(out, expected)
    assert (weights is None) == (expected_weights is None)
    if weights is not None:
        assert torch.equal(weights, expected_weights)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_the_dense_one(batch_first: bool, bias: bool) -> None:
    dense, masked = attention(batch_first=batch_first, bias=bias)
    x, memory, other = draw(2, 5, 12), draw(2, 7, 12, seed=1), draw(2, 7, 12, seed=2)
    if not batch_first:
        x, memory, other = x.transpose(0, 1), memory.transpose(0, 1), other.transpose(0, 1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    above = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    check_attention(dense, masked, x, x, x)
    check_attention(dense, masked, x, x, x, need_weights=False)
    check_attention(dense, masked, x, x, x, average_attn_weights=False)
    check_attention(dense, masked, x, x, x, key_padding_mask=padding)
    check_attention(dense, masked, x, x, x, attn_mask=above)
    check_attention(dense, masked, x, x, x, attn_mask=above, need_weights=False, is_causal=True)
    # The hint counts, not the mask: torch trusts it where nothing else forces the mask to be read.
    check_attention(dense, masked, x, x, x, attn_mask=torch.zeros(5, 5), need_weights=False, is_causal=True)
    check_attention(dense, masked, x, x, x, attn_mask=draw(6, 5, 5), need_weights=False)
    check_attention(dense, masked, x, memory, memory)
    check_attention(dense, masked, x, memory, other)
    check_attention(dense, masked, x, memory, other, need_weights=False)
    check_attention(dense, masked, draw(5, 12), draw(7, 12), draw(7, 12, seed=4))


def test_attention_with_dropout_and_a_zero_key() -> None:
    dense, masked = attention(dropout=0.5, add_zero_attn=True, batch_first=True)
    x = draw(2, 5, 12)
    check_attention(dense, masked, x, x, x)
    with torch.no_grad():
        trained = masked(x, x, x)[0]
    # In eval mode the original takes a fused path of its own unless something requires grad.
    dense.eval(), masked.eval()
    check_attention(dense, masked, x.clone().requires_grad_(), x, x)
    assert not torch.equal(masked(x, x, x)[0], trained)


def test_attention_gradients_reach_both_projections() -> None:
    dense, masked = attention(batch_first=True)
    x = draw(2, 5, 12)
    dense(x, x, x)[0].square().sum().backward()
    masked(x, x, x)[0].square().sum().backward()
    for weight, layer in ((dense.in_proj_weight, masked.in_proj), (dense.out_proj.weight, masked.out_proj)):
        theta = SupermaskLinear(layer.in_features, layer.out_features, seed=1, layer=layer.edges.layer, remaining=1.0)
        sign = torch.where(layer.edges.scores.detach() < 0, -1.0, 1.0)
        assert torch.equal(layer.edges.scores.grad, weight.grad * theta.weight.detach() * sign)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_inside_torchs_transformers(batch_first: bool, grad: bool) -> None:
    """Their eval mode looks for dense projection weights for a fused kernel, and must see that there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=batch_first)
        encoder = convert(nn.TransformerEncoder(layer, 2), 0, bias="freeze", norm="freeze")
        whole = convert(nn.Transformer(12, 2, 1, 1, 24, dropout=0.0, batch_first=batch_first), 0)
        x = draw(2, 5, 12)
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        with torch.set_grad_enabled(grad):
            for kwargs in ({}, {"src_key_padding_mask": padding}):
                source = x if batch_first else x.transpose(0, 1)
                assert torch.equal(encoder.eval()(source, **kwargs), encoder.train()(source, **kwargs))
            assert torch.equal(whole.eval()(source, source), whole.train()(source, source))


@pytest.mark.parametrize("name", CASES)
def test_scores_are_the_only_parameter_and_no_weight_is_stored(name: str) -> None:
    layer = make(name)
    layer(input_of(name)).sum().backward()
    assert [n for n, _ in layer.named_parameters()] == ["edges.scores"]
    assert sorted(layer.state_dict()) == ["edges.kept", "edges.scores", "edges.source"]
    # Beside the scores: one sign bit an edge, in rows of whole 128-edge groups.
    held = sum(t.numel() * t.element_size() for t in layer.buffers())
    assert held <= layer.edges.rows * (layer.edges.cols // 128 + 1) * 16 + 64


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"seed": 2**64}, "64 bits"),
        ({"seed": -1}, "64 bits"),
        ({"remaining": 0}, "remaining=0"),
        ({"remaining": 0.0}, "remaining=0.0"),
        ({"remaining": 1.5}, "remaining=1.5"),
        ({"remaining": float("nan")}, "remaining=nan"),
        ({"remaining": -0.1}, "remaining=-0.1"),
        ({"weights": "ones"}, "weights='ones'.*signed_constant"),
        ({"scores": "ones"}, "scores='ones'.*kaiming_uniform"),
        ({"magnitude": "ABS"}, "magnitude='ABS'.*'abs', 'raw'"),
    ],
)
def test_bad_search_arguments(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("linear", **bad)


@pytest.mark.parametrize(
    ("good", "kept"),
    [({"seed": 0}, 32), ({"seed": 2**64 - 1}, 32), ({"remaining": 1}, 108), ({"remaining": 1e-9}, 1)],
)
def test_extreme_search_arguments_are_fine(good: dict[str, Any], kept: int) -> None:
    assert int((make("conv2d", **good).weight != 0).sum()) == kept


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match=r"groups=4 .*6 and 8"):
        SupermaskConv2d(6, 8, 3, groups=4, seed=0)
    with pytest.raises(ValueError, match=r"groups=3 .*6 and 8"):
        SupermaskConvTranspose2d(6, 8, 3, groups=3, seed=0)
    with pytest.raises(ValueError, match=r"\(3, 3, 3\).*2"):
        SupermaskConv2d(6, 8, (3, 3, 3), seed=0)
    with pytest.raises(ValueError, match="at least one edge"):
        SupermaskLinear(0, 4, seed=0)
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(6, 4\)"):
        SupermaskLinear(4, 6, edges=SearchedEdges((4, 6), seed=0))
    with pytest.raises(ValueError, match="not both"):
        SupermaskLinear(4, 6, edges=SearchedEdges((6, 4), seed=0), remaining=0.5)
    with pytest.raises(TypeError, match="seed"):
        SupermaskLinear(4, 6)
    with pytest.raises(ValueError, match="groups=0"):
        SupermaskConv2d(6, 8, 3, groups=0, seed=0)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bad_biases(name: str) -> None:
    outputs = CASES[name][2][1]
    for size in (1, outputs + 1):  # one element would broadcast
        with pytest.raises(ValueError, match=rf"bias .*\({size},\).*{outputs}"):
            make(name, bias=torch.zeros(size))
    for flag in (True, False):
        with pytest.raises(TypeError, match=rf"bias={flag}.*nn\.Parameter"):
            make(name, bias=flag)


def test_bad_padding_modes() -> None:
    with pytest.raises(ValueError, match=r"padding_mode='same'.*'zeros', 'reflect', 'replicate', 'circular'"):
        SupermaskConv2d(6, 8, 3, padding_mode="same", seed=0)
    for kind in (SupermaskConvTranspose1d, SupermaskConvTranspose2d, SupermaskConvTranspose3d):
        with pytest.raises(ValueError, match=r"padding_mode='circular'.*'zeros'"):
            kind(6, 8, 3, padding_mode="circular", seed=0)


@pytest.mark.parametrize("name", ["linear", "conv2d", "transpose2d"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_input_that_is_not_floating_point(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"{type(make(name)).__name__} is {dtype}"):
        make(name)(input_of(name).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_autocast_makes_weights_of_its_dtype(name: str, weights: str, dtype: torch.dtype) -> None:
    layer = make(name, weights=weights, bias=torch.randn(CASES[name][2][1]))
    dense = dense_with(name, layer.weight.to(dtype), layer.bias.to(dtype)).to(dtype)
    x = input_of(name)
    made: list[torch.dtype] = []
    layer.edges.register_forward_hook(lambda *call: made.append(call[2].dtype))
    with torch.autocast("cpu", dtype=dtype):
        assert layer.weight.dtype is dtype
        assert torch.equal(layer.weight, dense.weight)
        made.clear()
        out = layer(x)
        with torch.autocast("cpu", enabled=False):
            assert layer(x).dtype is torch.float32
    assert made == [dtype, torch.float32]  # not made in float32 and then cast
    assert out.dtype is dtype
    assert torch.equal(out, dense(x.to(dtype)))
    out.float().sum().backward()
    assert layer.edges.scores.grad.dtype is torch.float32


MOVES = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "double": lambda m: m.double(),
    "to": lambda m: m.to("cpu", torch.float16),
    "channels_last": lambda m: m.to(memory_format=torch.channels_last),
    "both": lambda m: m.to(torch.bfloat16, memory_format=torch.channels_last),
    "shared": lambda m: m.share_memory(),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_scores_stay_float32_and_row_major(move: str, weights: str) -> None:
    layer = make("conv2d", weights=weights, bias=torch.randn(9))
    layer.edges.remove_unselected()
    with torch.no_grad():
        layer.edges.scores.add_(1e-4 * torch.randn(layer.edges.scores.shape))  # not representable in 16 bits
    before = {k: v.clone() for k, v in layer.edges.state_dict(keep_vars=False).items()}
    weight = layer.weight
    parameter = layer.edges.scores
    assert MOVES[move](layer) is layer
    assert layer.edges.scores is parameter
    after = layer.edges.state_dict()
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert value.dtype is before[key].dtype
        assert value.is_contiguous()
        assert torch.equal(value, before[key])
    assert layer.edges.constant.dtype is torch.float32
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_input_chooses_the_dtype(name: str, dtype: torch.dtype, moved: bool) -> None:
    layer = make(name, bias=torch.randn(CASES[name][2][1]))
    dense = dense_with(name, layer.weight, layer.bias).to(dtype)
    if moved:
        layer.to(dtype)
    assert layer.bias.dtype is (dtype if moved else torch.float32)
    x = input_of(name).to(dtype)
    out = layer(x)
    assert out.dtype is dtype
    assert torch.equal(out, dense(x))
    out.float().sum().backward()
    assert layer.edges.scores.grad.dtype is torch.float32
    assert bool((layer.edges.scores.grad != 0).any())


def test_moving_moves_gradients_and_frees_nothing_shared() -> None:
    layer = make("linear")
    layer(input_of("linear")).sum().backward()
    grad = layer.edges.scores.grad.clone()
    layer.bfloat16()
    assert layer.edges.scores.grad.dtype is torch.float32
    assert torch.equal(layer.edges.scores.grad, grad)
    assert layer.edges.scores.is_leaf
    assert layer.edges.scores.requires_grad


@pytest.mark.parametrize("name", CASES)
def test_deepcopy_is_independent(name: str) -> None:
    layer = make(name)
    twin = copy.deepcopy(layer)
    before = layer.weight
    assert torch.equal(twin.weight, before)
    with torch.no_grad():
        twin.edges.scores.copy_(twin.edges.scores.flip(0).flip(1))
    twin.edges.remaining = 0.7
    assert not torch.equal(twin.weight, before)
    assert torch.equal(layer.weight, before)


def saved(module: nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("weights", ["signed_constant", "scaled_signed_constant", "kaiming_uniform"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_state_dict_round_trip(name: str, weights: str, pruned: bool) -> None:
    source = make(name, weights=weights, bias=torch.randn(CASES[name][2][1]), remaining=0.4)
    if pruned:
        source.edges.remove_unselected()
        source.edges.remaining = 0.2
    with torch.no_grad():
        source.edges.scores.add_(0.1 * torch.randn(source.edges.shape))
    state = saved(source)
    assert ("edges.survivors" in state) == pruned

    target = make(name, weights=weights, bias=torch.zeros(CASES[name][2][1]), remaining=0.9)
    if not pruned:  # what is loaded says that every edge survives
        target.edges.remove_unselected()
    target.load_state_dict(state)
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.edges.mask(), source.edges.mask())
    assert target.edges.remaining == source.edges.remaining
    assert torch.equal(target(input_of(name)), source(input_of(name)))
    assert (target.edges.survivors is not None) == pruned
    with torch.no_grad():  # copied, not shared
        target.edges.scores.zero_()
    assert bool((source.edges.scores != 0).all())


def test_scores_and_kept_restore_the_mask_inside_a_model() -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(make("conv2d", remaining=0.9), nn.Flatten(), SupermaskLinear(270, 4, seed=SEED, layer=4))

    source, target = model(), model()
    source[0].edges.remaining = 0.123
    with torch.no_grad():
        source[2].edges.scores.neg_().mul_(torch.rand(4, 270))
    state = saved(source)
    kept_and_scores = {k: v for k, v in state.items() if k.endswith(("scores", "kept"))}
    assert len(kept_and_scores) == 4
    target.load_state_dict(kept_and_scores, strict=False)
    for name, edges in searched_edges(source).items():
        assert torch.equal(edges.mask(), searched_edges(target)[name].mask())
    with pytest.raises(RuntimeError, match="source"):
        target.load_state_dict(kept_and_scores)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 2**64 - 1}, rf"\({2**64 - 1}, 3, 0, .*\({SEED}, 3, 0, "),
        ({"layer": 4}, rf"\({SEED}, 4, 0, .*\({SEED}, 3, 0, "),
        ({"weights": "kaiming_normal"}, r"'kaiming_normal', 'abs'.*'signed_constant', 'abs'"),
        ({"magnitude": "raw"}, r"'signed_constant', 'raw'.*'signed_constant', 'abs'"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_loading_scores_of_another_seed_or_layer(other: dict[str, Any], message: str, strict: bool) -> None:
    layer = make("linear")
    before = layer.weight
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(saved(make("linear", **other, remaining=0.9)), strict=strict)
    assert torch.equal(layer.weight, before)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):  # type: ignore[attr-defined]
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", [*ONE_OF_EACH, "conv2d_same_circular"])
def test_fullgraph_compile_equals_eager_at_every_rate(name: str) -> None:
    """One graph serves every rate: `remaining` between steps neither recompiles nor is ignored."""
    layer = make(name, weights="scaled_signed_constant")
    twin = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    made = torch.compile(lambda: layer.edges(torch.float32), backend="aot_eager", fullgraph=True)
    for step, rate in enumerate((0.3, 0.05, 1.0)):
        layer.edges.remaining = twin.edges.remaining = rate
        for each, run in ((layer, compiled), (twin, twin)):
            each.zero_grad()
            out = run(input_of(name, step))
            out.square().sum().backward()
            each.last = out.detach()
        assert torch.equal(layer.last, twin.last)
        assert torch.equal(layer.edges.scores.grad, twin.edges.scores.grad)
        assert int((made() != 0).sum()) == max(1, round(rate * layer.edges.count))
        with torch.no_grad():
            for each in (layer, twin):
                each.edges.scores.sub_(0.1 * each.edges.scores.grad)


@pytest.mark.usefixtures("fresh_compiler")
def test_fullgraph_compile_of_attention() -> None:
    _, masked = attention(batch_first=True)
    x = draw(2, 5, 12)
    compiled = torch.compile(masked, backend="aot_eager", fullgraph=True)
    for rate in (0.5, 0.1):
        masked.in_proj.edges.remaining = rate
        masked.zero_grad()
        compiled(x, x, x)[0].square().sum().backward()
        grads = [edges.scores.grad.clone() for edges in searched_edges(masked).values()]
        masked.zero_grad()
        out = masked(x, x, x)[0]
        out.square().sum().backward()
        assert torch.equal(compiled(x, x, x)[0], out)
        for grad, edges in zip(grads, searched_edges(masked).values(), strict=True):
            assert torch.equal(grad, edges.scores.grad)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_steps_under_one_selection_count_every_mask() -> None:
    model = small_network()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimisers = [torch.optim.SGD(m.parameters(), 0.5) for m in (model, twin)]
    for edges in (*searched_edges(model).values(), *searched_edges(twin).values()):
        edges.ever = torch.zeros_like(edges.mask())
    for step in range(3):
        for m, run, optimiser in zip((model, twin), (compiled, twin), optimisers, strict=True):
            with one_selection(m):
                run(draw(4, 3, 8, 8, seed=step)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
    for ours, theirs in zip(searched_edges(model).values(), searched_edges(twin).values(), strict=True):
        assert torch.equal(ours.scores, theirs.scores)
        assert torch.equal(ours.ever, theirs.ever)
        assert int(unpack(ours.ever, ours.cols).sum()) > int(ours.kept)


def small_network(**search: Any) -> nn.Module:
    search = {"seed": 0, "remaining": 0.3, **search}
    return nn.Sequential(
        SupermaskConv2d(3, 8, 3, padding=1, layer=0, **search),
        nn.BatchNorm2d(8, affine=False, device=search.get("device")),
        nn.ReLU(),
        SupermaskConv2d(8, 16, 3, stride=2, layer=1, **search),
        nn.BatchNorm2d(16, affine=False, device=search.get("device")),
        nn.ReLU(),
        nn.Flatten(),
        SupermaskLinear(144, 10, layer=2, **search),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_inductor_selects_the_masks_of_eager_code() -> None:
    """Sums may round differently, selections may not: given the scores of a step, each mask is eager's to the bit."""
    model = small_network()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    optimiser = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, weight_decay=1e-4)
    for step in range(6):
        for edges in searched_edges(model).values():
            edges.remaining = (0.3, 0.05)[step % 2]
            edges.ever = torch.zeros_like(edges.mask()) if edges.ever is None else edges.ever.zero_()
        eager.load_state_dict(model.state_dict())
        for run, m in ((compiled, model), (eager, eager)):
            m.zero_grad()
            out = run(draw(4, 3, 8, 8, seed=step))
            out.square().mean().backward()
            m.last = out.detach()
        torch.testing.assert_close(model.last, eager.last, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(searched_edges(model).values(), searched_edges(eager).values(), strict=True):
            assert torch.equal(ours.ever, theirs.mask())
            assert int(unpack(ours.ever, ours.cols).sum()) == round((0.3, 0.05)[step % 2] * ours.count)
            torch.testing.assert_close(ours.scores.grad, theirs.scores.grad, rtol=1e-3, atol=1e-5)
        optimiser.step()


def train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = small_network()
    optimiser = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    parallel = nn.parallel.DistributedDataParallel(model)
    for step in range(3):
        with one_selection(model):
            parallel(draw(4, 3, 8, 8, seed=2 * step + rank)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    found = {name: (edges.scores.detach(), edges.mask()) for name, edges in searched_edges(model).items()}
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_data_parallel_ranks_hold_the_same_masks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_rank, (os.fspath(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    initial = searched_edges(small_network())
    for name, (scores, mask) in first.items():
        assert torch.equal(scores, second[name][0])
        assert torch.equal(mask, second[name][1])
        assert not torch.equal(mask, initial[name].mask())


def engine_backward(loss: Tensor) -> None:
    """What loss.backward() does, without the engine, which asks the driver for the device's streams."""
    order: list[Any] = []

    def visit(node: Any) -> None:
        if node is not None and node not in order:
            for following, _ in node.next_functions:
                visit(following)
            order.append(node)

    visit(loss.grad_fn)
    grads: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    with torch.no_grad():
        for node in reversed(order):
            given = grads[node]
            if hasattr(node, "variable"):
                node.variable.grad = given[0]
                continue
            run = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
            made = run(*(given.get(i) for i in range(len(node._input_metadata))))
            made = made if type(made) is tuple else (made,)
            # A Function's inputs that are no tensors have no next function; here they all stand behind the scores.
            for (following, i), grad in zip(node.next_functions, made, strict=False):
                if following is not None and grad is not None:
                    grads.setdefault(following, {})[i] = grad


@pytest.mark.parametrize("weights", ["signed_constant", "unsigned_constant", "kaiming_uniform"])
@pytest.mark.parametrize("name", [*ONE_OF_EACH, "network"])
def test_a_training_step_never_waits_for_the_gpu(name: str, weights: str) -> None:
    """Traced for a GPU, where fake tensors refuse that a value is read: whole steps, and the pruning between cycles."""
    with FakeTensorMode():
        whole = name == "network"
        search = {"weights": weights, "device": "cuda"}
        model = small_network(**search) if whole else nn.Sequential(make(name, **search))
        layers = list(searched_edges(model).values())
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        for edges in layers:
            edges.ever = torch.zeros_like(edges.mask())
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.empty((4, 3, 8, 8) if whole else CASES[name][4], device="cuda", dtype=dtype)
            for selection in (one_selection(model), nullcontext()):
                with selection:
                    out = model(x)
                    assert out.dtype is dtype
                    engine_backward(out.float().square().mean())
                optimiser.step()
                for edges in layers:
                    assert edges.scores.grad.shape == edges.shape
                    for tensor in (out, edges.scores.grad, edges.mask(), edges.constant):
                        assert isinstance(tensor, FakeTensor)
                        assert tensor.device.type == "cuda"
                optimiser.zero_grad()
            for edges in layers:
                edges.remove_unselected()
        assert all((edges.signs is None) == (weights != "unsigned_constant") for edges in layers)


def test_every_dense_kind_has_its_masked_form() -> None:
    for dense, masked in DENSE_FORMS.items():
        assert masked.__name__ == f"Supermask{dense.__name__}"
    assert {case[1] for case in CASES.values()} == set(DENSE_FORMS)


@pytest.mark.parametrize("name", CASES)
def test_from_dense_keeps_every_argument(name: str) -> None:
    kind, dense_kind, args, kwargs, _ = CASES[name]
    dense = dense_kind(*args, **kwargs, bias=False)
    layer = kind.from_dense(dense, SearchedEdges(tuple(dense.weight.shape), seed=SEED), None)
    assert torch.equal(layer(input_of(name)), dense_with(name, layer.weight)(input_of(name)))
    assert repr(layer).startswith(f"{kind.__name__}(")
    assert f"remaining={layer.edges.remaining:.4g}" in repr(layer)
    assert list(all_edges(layer)) == [""]


def test_transposed_convolutions_take_their_arguments_in_torchs_order() -> None:
    x = torch.randn(1, 8, 5, 5)
    arguments = (8, 6, 3, 2, 1, 1, 2)
    dense = nn.ConvTranspose2d(*arguments, bias=False)
    layer = SupermaskConvTranspose2d(*arguments, seed=0)
    with torch.no_grad():
        dense.weight.copy_(layer.weight)
        assert torch.equal(layer(x), dense(x))
    with pytest.raises(TypeError, match="output_padding"):
        SupermaskConv2d(8, 6, 3, output_padding=1, seed=0)


def test_the_rate_of_a_layer_is_that_of_its_edges() -> None:
    layer = SupermaskLinear(10, 10, seed=0, remaining=0.3)
    layer.remaining = 0.2
    assert layer.remaining == layer.edges.remaining == 0.2
    assert int((layer.weight != 0).sum()) == 20
