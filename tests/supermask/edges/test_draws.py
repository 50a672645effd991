"""Weights and scores drawn from the seed, and how many edges a rate keeps."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges.draws import kept_count, weight_constant
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base import philox
from supermask.networks.layers import SupermaskConv2d, SupermaskConvTranspose2d
from tests.supermask.edges.chosen_edges import chosen

KINDS = ["signed_constant", "scaled_signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_uniform"]


@given(n=st.integers(1, 10**7), rate=st.floats(0, 1, exclude_min=True))
def test_kept_count(n: int, rate: float) -> None:
    kept = kept_count(rate, n)
    assert kept == max(1, round(rate * n))
    assert 1 <= kept <= n


@pytest.mark.parametrize(
    ("rate", "n", "kept"),
    [(0.1, 10, 1), (0.9, 10, 9), (0.5, 5, 2), (0.5, 7, 4), (0.04, 10, 1), (0.3, 101, 30), (1.0, 3, 3), (1e-30, 9, 1)],
)
def test_kept_count_by_hand(rate: float, n: int, kept: int) -> None:
    assert kept_count(rate, n) == kept
    edges = SearchedEdges((1, n), seed=0, remaining=rate)
    assert int(edges.kept) == kept
    assert int(chosen(edges).sum()) == kept
    assert edges.remaining == kept / n


def test_signs_of_the_design_example() -> None:
    """Seed 0x0123456789abcdef, layer 3, row 5, cols 128 to 255, generation 0."""
    words = (0xC44ECAA8, 0xCB535223, 0x76BCB759, 0xB48FD465)
    minus = torch.tensor([word >> bit & 1 for word in words for bit in range(32)], dtype=torch.bool)
    layer = SupermaskConv2d(32, 7, 3, seed=0x0123456789ABCDEF, layer=3, remaining=1.0)
    weight = layer.weight.detach().view(7, 288)
    assert torch.equal(weight[5, 128:256] < 0, minus)
    other = SupermaskConv2d(32, 7, 3, seed=0x0123456789ABCDEF, layer=2, remaining=1.0).weight.detach()
    assert not torch.equal(other.view(7, 288)[5, 128:256] < 0, minus)


@pytest.mark.parametrize("rate", [0.03, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(64, 48), (32, 16, 3, 3), (40, 5, 7)])
def test_constant_weights(shape: tuple[int, ...], rate: float) -> None:
    fan_in = math.prod(shape[1:])
    n = shape[0] * fan_in
    kept = round(rate * n)
    sigma = torch.tensor(math.sqrt(2 / fan_in))
    found = {}
    for kind in ("signed_constant", "scaled_signed_constant", "unsigned_constant"):
        weight = SearchedEdges(shape, seed=5, remaining=rate, weights=kind)(torch.float32).detach()
        found[kind] = weight[weight != 0]
        assert len(found[kind]) == kept
    scaled = torch.tensor(math.sqrt(2 / (fan_in * (kept / n))))
    assert torch.equal(found["signed_constant"].abs(), sigma.expand(kept))
    assert torch.equal(found["unsigned_constant"], sigma.expand(kept))
    assert torch.equal(found["scaled_signed_constant"].abs(), scaled.expand(kept))
    assert torch.equal(found["scaled_signed_constant"] < 0, found["signed_constant"] < 0)
    minus = int((found["signed_constant"] < 0).sum())
    assert abs(minus - kept / 2) < 5 * math.sqrt(kept) / 2


def test_scaled_constant_follows_the_rate() -> None:
    edges = SearchedEdges((10, 100), seed=0, remaining=0.5, weights="scaled_signed_constant")
    for rate in (0.5, 0.2, 0.08):
        edges.remaining = rate
        weight = edges(torch.float32).detach()
        assert torch.equal(weight.abs().max(), torch.tensor(math.sqrt(2 / (100 * rate))))
    assert weight_constant("scaled_signed_constant", 100, 0.08) == math.sqrt(2 / (100 * 0.08))
    assert weight_constant("signed_constant", 100, 0.08) == math.sqrt(2 / 100)


def test_fan_in_of_a_transposed_convolution_is_torchs() -> None:
    layer = SupermaskConvTranspose2d(6, 8, 3, seed=0, remaining=1.0)
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(nn.ConvTranspose2d(6, 8, 3).weight)
    assert torch.equal(layer.weight.abs().max(), torch.tensor(math.sqrt(2 / fan_in)))


def moments(x: Tensor) -> tuple[float, float, float]:
    """Mean, variance and kurtosis."""
    x = x.detach().double().flatten()
    return x.mean().item(), x.var().item(), (x**4).mean().item() / x.var().item() ** 2


def within(found: float, expected: float, standard_error: float) -> bool:
    return abs(found - expected) < 5 * standard_error


def check_normal(x: Tensor, std: float) -> None:
    mean, variance, kurtosis = moments(x)
    n = x.numel()
    assert within(mean, 0, std / math.sqrt(n))
    assert within(variance, std**2, std**2 * math.sqrt(2 / n))
    assert within(kurtosis, 3, math.sqrt(96 / n))


def check_uniform(x: Tensor, bound: float) -> None:
    mean, variance, kurtosis = moments(x)
    n, std = x.numel(), bound / math.sqrt(3)
    assert x.min() >= torch.tensor(-bound)
    assert x.max() <= torch.tensor(bound)
    assert x.max() > (1 - 20 / n) * bound
    assert x.min() < -(1 - 20 / n) * bound
    assert within(mean, 0, std / math.sqrt(n))
    assert within(variance, std**2, std**2 * math.sqrt(0.8 / n))
    assert within(kurtosis, 1.8, math.sqrt(2 / n))


@pytest.mark.parametrize("shape", [(256, 150), (64, 64, 3, 3)])
def test_real_valued_weights_and_scores(shape: tuple[int, ...]) -> None:
    fan_in = math.prod(shape[1:])
    std = math.sqrt(2 / fan_in)

    def edges(**search: Any) -> SearchedEdges:
        return SearchedEdges(shape, seed=9, remaining=1.0, **search)

    normal, uniform = edges(weights="kaiming_normal"), edges(weights="kaiming_uniform", scores="kaiming_normal")
    check_normal(normal(torch.float32), std)
    check_uniform(uniform(torch.float32), math.sqrt(3) * std)
    check_uniform(normal.scores, 1 / math.sqrt(fan_in))
    check_normal(uniform.scores, std)
    for each in (normal, uniform):  # weights and scores come from streams of their own
        both = torch.stack([each(torch.float32).flatten(), each.scores.flatten()]).detach()
        assert within(torch.corrcoef(both)[0, 1].item(), 0, 1 / math.sqrt(each.count))
    signs = edges()(torch.float32).flatten() < 0
    assert within((normal.scores.flatten() < 0).eq(signs).double().mean().item(), 0.5, 0.5 / math.sqrt(normal.count))


@pytest.mark.parametrize("weights", ["kaiming_normal", "kaiming_uniform"])
def test_real_valued_weights_do_not_depend_on_the_rate(weights: Any) -> None:
    edges = SearchedEdges((20, 30), seed=9, remaining=1.0, weights=weights)
    whole = edges(torch.float32).detach()
    edges.remaining = 0.2
    assert torch.equal(edges(torch.float32), torch.where(chosen(edges), whole, 0))


@pytest.mark.parametrize("weights", [kind for kind in KINDS if kind != "unsigned_constant"])
def test_weights_are_functions_of_seed_and_layer(weights: Any) -> None:
    places = [(0, 0), (1, 0), (2**63, 0), (0, 1), (2**32, 0)]

    def weight(seed: int, layer: int) -> Tensor:
        return SearchedEdges((8, 33), seed=seed, layer=layer, weights=weights, remaining=1.0)(torch.float32).detach()

    made = {place: weight(*place) for place in places}
    for place, values in made.items():
        assert torch.equal(values, weight(*place))
        assert sum(torch.equal(values, other) for other in made.values()) == 1


def test_draws_are_functions_of_seed_layer_and_generation() -> None:
    def scores(seed: int = 0, layer: int = 0, generation: int = 0, kind: Any = "kaiming_uniform") -> Tensor:
        edges = SearchedEdges((8, 33), seed=seed, layer=layer, scores=kind)
        edges.draw_scores(generation)
        return edges.scores.detach().clone()

    for kind in ("kaiming_uniform", "kaiming_normal"):
        places = [(0, 0, 0), (1, 0, 0), (2**63, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (2**32, 0, 0)]
        drawn = {place: scores(*place, kind) for place in places}
        for place, values in drawn.items():
            assert torch.equal(values, scores(*place, kind))
            assert sum(torch.equal(values, other) for other in drawn.values()) == 1
    edges = SearchedEdges((8, 33), seed=0)
    assert torch.equal(edges.scores, scores())
    weight, parameter = edges(torch.float32), edges.scores
    edges.draw_scores(3)
    assert edges.scores is parameter
    assert not torch.equal(edges(torch.float32), weight)
    edges.draw_scores()
    assert torch.equal(edges(torch.float32), weight)


def test_a_draw_depends_on_position_alone() -> None:
    """A longer row begins as a shorter one does, so that a reader in another language can draw any edge alone."""
    short = SearchedEdges((8, 33), seed=0).scores.detach() * math.sqrt(33)
    long = SearchedEdges((9, 130), seed=0).scores.detach() * math.sqrt(130)
    torch.testing.assert_close(short, long[:8, :33], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", ["kaiming_normal", "kaiming_uniform"])
def test_real_valued_weights_are_the_draw_of_purpose_one(weights: Any) -> None:
    edges = SearchedEdges((5, 18), seed=2**63 + 9, layer=4, remaining=1.0, weights=weights)
    place, std = (2**63 + 9, 4, 5, 18), math.sqrt(2 / 18)
    if weights == "kaiming_normal":
        drawn = philox.normal(*place, std=std, purpose=1)
    else:
        drawn = philox.uniform(*place, low=-math.sqrt(3) * std, high=math.sqrt(3) * std, purpose=1)
    assert torch.equal(edges(torch.float32), drawn)
