"""What may happen to a masked layer: dtypes, moves, copies, state dicts."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from supermask.edges.in_model import searched_edges
from supermask.networks.layers import (
    SupermaskLinear,
)
from tests.devices import DEVICE
from tests.supermask.networks.layer_cases import CASES, ONE_OF_EACH, SEED, dense_with, draw, input_of, make


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_autocast_makes_weights_of_its_dtype(name: str, weights: str, dtype: torch.dtype) -> None:
    layer = make(name, weights=weights, bias=torch.randn(CASES[name][2][1]))
    dense = dense_with(name, layer.weight.to(dtype), layer.bias.to(dtype)).to(dtype)
    x = input_of(name)
    made: list[torch.dtype] = []
    layer.edges.register_forward_hook(lambda *call: made.append(call[2].dtype))
    with torch.autocast(DEVICE.type, dtype=dtype):
        assert layer.weight.dtype is dtype
        assert torch.equal(layer.weight, dense.weight)
        made.clear()
        out = layer(x)
        with torch.autocast(DEVICE.type, enabled=False):
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
    "to": lambda m: m.to(DEVICE, torch.float16),
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
        layer.edges.scores.add_(1e-4 * draw(*layer.edges.scores.shape))  # not representable in 16 bits
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
        source.edges.scores.add_(0.1 * draw(*source.edges.shape))
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
        last = SupermaskLinear(270, 4, seed=SEED, layer=4, device=DEVICE)
        return nn.Sequential(make("conv2d", remaining=0.9), nn.Flatten(), last)

    source, target = model(), model()
    source[0].edges.remaining = 0.123
    with torch.no_grad():
        source[2].edges.scores.neg_().mul_(draw(4, 270))
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
