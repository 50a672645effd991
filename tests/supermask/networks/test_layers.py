"""Masked layers against torch.nn layers that hold the same weights."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermask.edges.in_model import all_edges
from supermask.edges.searched import SearchedEdges
from supermask.networks.layers import (
    DENSE_FORMS,
    SearchOptions,
    SupermaskConv2d,
    SupermaskConvTranspose1d,
    SupermaskConvTranspose2d,
    SupermaskConvTranspose3d,
    SupermaskLinear,
)
from tests.devices import DEVICE, ON_GPU
from tests.supermask.networks.layer_cases import CASES, ONE_OF_EACH, SEED, dense_with, draw, input_of, make

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def layer_pads_by_copies(layer: Any) -> bool:
    return getattr(layer, "padding_mode", "zeros") in ("reflect", "replicate")


def oracle_mask(layer: Any) -> Tensor:
    order = torch.sort(layer.edges.scores.detach().abs().flatten(), descending=True, stable=True).indices
    chosen = torch.zeros(layer.edges.count, dtype=torch.bool, device=order.device)
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
    grad = draw(*out.shape, seed=1)
    out.backward(grad)
    expected.backward(grad)
    if ON_GPU and layer_pads_by_copies(layer):  # whose gradients a GPU adds up in any order
        torch.testing.assert_close(x.grad, x_dense.grad, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(x.grad, x_dense.grad)
    sign = torch.where(layer.edges.scores.detach() < 0, -1.0, 1.0)
    assert torch.equal(layer.edges.scores.grad, dense.weight.grad * theta * sign)
    assert bool((layer.edges.scores.grad[~chosen] != 0).any())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bias_none_fixed_or_trained(name: str) -> None:
    layer = make(name)
    assert layer.bias is None
    values = draw(layer.outputs, seed=2)
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
    layer = kind(*args, **kwargs, seed=SEED, remaining=0.3, device=DEVICE)
    dense = dense_kind(*args, **kwargs, bias=False, device=DEVICE)
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


def test_every_dense_kind_has_its_masked_form() -> None:
    for dense, masked in DENSE_FORMS.items():
        assert masked.__name__ == f"Supermask{dense.__name__}"
    assert {case[1] for case in CASES.values()} == set(DENSE_FORMS)


@pytest.mark.parametrize("name", CASES)
def test_from_dense_keeps_every_argument(name: str) -> None:
    kind, dense_kind, args, kwargs, _ = CASES[name]
    dense = dense_kind(*args, **kwargs, bias=False, device=DEVICE)
    layer = kind.from_dense(dense, SearchedEdges(tuple(dense.weight.shape), seed=SEED, device=DEVICE), None)
    assert torch.equal(layer(input_of(name)), dense_with(name, layer.weight)(input_of(name)))
    assert repr(layer).startswith(f"{kind.__name__}(")
    assert f"remaining={layer.edges.remaining:.4g}" in repr(layer)
    assert list(all_edges(layer)) == [""]


def test_transposed_convolutions_take_their_arguments_in_torchs_order() -> None:
    x = draw(1, 8, 5, 5)
    arguments = (8, 6, 3, 2, 1, 1, 2)
    dense = nn.ConvTranspose2d(*arguments, bias=False, device=DEVICE)
    layer = SupermaskConvTranspose2d(*arguments, seed=0, device=DEVICE)
    with torch.no_grad():
        dense.weight.copy_(layer.weight)
        assert torch.equal(layer(x), dense(x))
    with pytest.raises(TypeError, match="output_padding"):
        SupermaskConv2d(8, 6, 3, output_padding=1, seed=0)


def test_the_rate_of_a_layer_is_that_of_its_edges() -> None:
    layer = SupermaskLinear(10, 10, seed=0, remaining=0.3, device=DEVICE)
    layer.remaining = 0.2
    assert layer.remaining == layer.edges.remaining == 0.2
    assert int((layer.weight != 0).sum()) == 20


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_misspelt_option_is_refused_with_those_there_are(name: str) -> None:
    options = "seed, layer, remaining, weights, scores, magnitude, rule, pinned, device"
    with pytest.raises(TypeError, match=f"has no argument remains, sed: .*{options}"):
        make(name, remains=0.5, sed=1)
    kind, _, args, kwargs, _ = CASES[name]
    with pytest.raises(TypeError, match=f"{kind.__name__} needs seed"):
        kind(*args, **kwargs, remaining=0.5)
    assert {*SearchOptions.__annotations__} == {*inspect.signature(SearchedEdges).parameters} - {"shape"}
