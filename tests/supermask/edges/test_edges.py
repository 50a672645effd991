"""The edges of a search: rates, hard pruning, what is recorded, and state dicts."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from supermask.edges.base import Edges
from supermask.edges.draws import kept_count
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges, Selection
from supermask.kernels.base.bits import pack, unpack
from supermask.networks.layers import SupermaskLinear
from supermask.networks.rates import set_remaining
from tests.devices import DEVICE
from tests.supermask.edges.chosen_edges import chosen, oracle


@given(
    rows=st.integers(1, 40),
    cols=st.sampled_from([1, 3, 31, 33, 127, 128, 129]),
    rates=st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=4),
    magnitude=st.sampled_from(["abs", "raw"]),
    ties=st.booleans(),
)
def test_the_mask_is_that_of_a_sort_at_every_rate(
    rows: int, cols: int, rates: list[float], magnitude: Any, ties: bool
) -> None:
    edges = SearchedEdges((rows, cols), seed=1, magnitude=magnitude)
    if ties:
        with torch.no_grad():
            edges.scores.mul_(3 * math.sqrt(cols)).round_()
    for rate in rates:
        edges.remaining = rate
        assert edges.remaining == kept_count(rate, rows * cols) / (rows * cols)
        assert torch.equal(chosen(edges), oracle(edges))
        assert torch.equal(edges(torch.float32) != 0, oracle(edges).view(edges.shape))


@pytest.mark.parametrize("rate", [0, -0.5, 1.0001, math.inf, math.nan])
def test_a_refused_rate_changes_nothing(rate: float) -> None:
    edges = SearchedEdges((4, 100), seed=0, remaining=0.25, weights="scaled_signed_constant")
    before = edges(torch.float32)
    with pytest.raises(ValueError, match=f"remaining={rate}"):
        edges.remaining = rate
    assert edges.remaining == 0.25
    assert torch.equal(edges(torch.float32), before)


@pytest.mark.parametrize("magnitude", ["abs", "raw"])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_hard_pruning_nests_masks_and_stops_gradients(weights: Any, magnitude: Any) -> None:
    layer = SupermaskLinear(67, 9, seed=0, remaining=1.0, weights=weights, magnitude=magnitude)
    edges = layer.edges
    generator = torch.Generator().manual_seed(0)
    before = chosen(edges)
    for rate in (0.6, 0.3, 0.3, 0.05):
        edges.remaining = rate
        with torch.no_grad():
            edges.scores.copy_(torch.randn(edges.shape, generator=generator))
        mask = chosen(edges)
        assert int(mask.sum()) == round(rate * 603)
        assert not (mask & ~before).any()
        edges.scores.grad = None
        layer(torch.randn(5, 67, generator=generator)).square().sum().backward()
        assert torch.equal(edges.scores.grad != 0, before)
        edges.remove_unselected()
        assert torch.equal(unpack(edges.survivors, 67), mask)
        assert torch.equal(chosen(edges), mask)
        before = mask


def test_an_edge_of_score_zero_can_move() -> None:
    """Zero init of soft pruning would be hard pruning if the gradient of |s| at 0 were 0, as torch has it."""
    layer = SupermaskLinear(30, 8, seed=0, remaining=0.5)
    edges, theta = layer.edges, SupermaskLinear(30, 8, seed=0, remaining=1.0).weight.detach()
    zeroed = ~chosen(edges)
    with torch.no_grad():
        edges.scores[zeroed] = 0.0
        edges.scores[0] *= -1  # some zeros are negative ones
    assert torch.equal(~chosen(edges), zeroed)
    weight = layer.weight.detach().requires_grad_()
    x = torch.randn(16, 30)
    layer(x).square().sum().backward()
    (x @ weight.t()).square().sum().backward()
    assert torch.equal(edges.scores.grad[zeroed], (weight.grad * theta)[zeroed])
    assert bool((edges.scores.grad[zeroed] != 0).all())
    torch.optim.SGD([edges.scores], 10.0).step()
    assert bool((chosen(edges) & zeroed).any())


def test_removed_edges_need_the_survivors_given_back() -> None:
    edges = SearchedEdges((10, 10), seed=0, remaining=0.4, weights="scaled_signed_constant")
    edges.remove_unselected()
    edges.remaining = 0.4
    before = edges(torch.float32)
    with pytest.raises(ValueError, match=r"remaining=0.41 keeps 41 of 100 edges.*left 40.*survivors = None"):
        edges.remaining = 0.41
    assert edges.remaining == 0.4
    assert torch.equal(edges(torch.float32), before)
    edges.survivors = None
    edges.remaining = 0.9
    assert int(chosen(edges).sum()) == 90


def test_ever_collects_the_masks_of_training_forwards_only() -> None:
    layer = SupermaskLinear(40, 7, seed=0, remaining=0.3)
    edges = layer.edges
    x = torch.randn(2, 40)
    layer(x)
    assert edges.ever is None
    before = pack(torch.zeros(7, 40, dtype=torch.bool))
    edges.ever = before.clone()

    layer.eval()
    layer(x)
    edges.mask()
    edges.threshold()
    assert torch.equal(edges.ever, before)
    layer.train()
    edges.mask()
    with torch.no_grad():
        assert torch.equal(layer.weight, edges(torch.float32, record=False))
    assert torch.equal(edges.ever, before)

    seen = torch.zeros(7, 40, dtype=torch.bool)
    for generation in range(3):
        edges.draw_scores(generation)
        seen |= chosen(edges)
        with torch.set_grad_enabled(generation != 1):
            layer(x)
        assert torch.equal(unpack(edges.ever, 40), seen)
    assert int(seen.sum()) > 84 + 40
    layer.eval()
    edges.draw_scores(3)
    layer(x)
    assert torch.equal(unpack(edges.ever, 40), seen)
    assert "edges.ever" not in layer.state_dict()


def test_a_state_dict_that_lies_about_kept_or_survivors_is_refused() -> None:
    edges = SearchedEdges((4, 16), seed=0)
    edges.remove_unselected()
    before = edges.survivors.clone()
    for name, value, says in (
        ("kept", torch.tensor([65]), "kept is 65"),
        ("kept", torch.tensor([0]), "kept is 0"),
        ("survivors", torch.zeros(4, 8, dtype=torch.int32), r"\(4, 8\): expected \(4, 4\)"),
    ):
        with pytest.raises(RuntimeError, match=says):
            edges.load_state_dict(edges.state_dict() | {name: value})
        assert torch.equal(edges.survivors, before)
    edges.load_state_dict({}, strict=False)
    assert torch.equal(edges.survivors, before)


@pytest.mark.parametrize("layer", [-1, 2**31])
def test_a_layer_index_outside_the_counter_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match=f"layer {layer}"):
        SearchedEdges((4, 16), seed=0, layer=layer)


@pytest.mark.parametrize("wrong", ["source", "scores"])
def test_a_refused_state_dict_leaves_the_search_space(wrong: str) -> None:
    edges = SearchedEdges((4, 16), seed=0, remaining=0.5)
    edges.remove_unselected()
    before = edges.survivors.clone()
    other = SearchedEdges((4, 16), seed=1 if wrong == "source" else 0, remaining=0.25)
    other.remove_unselected()
    state = other.state_dict()
    if wrong == "scores":
        state["scores"] = torch.zeros(4, 15)
    with pytest.raises(RuntimeError, match=wrong):
        edges.load_state_dict(state)
    assert torch.equal(edges.survivors, before)
    unpruned = SearchedEdges((4, 16), seed=0)
    with pytest.raises(RuntimeError, match=wrong):
        unpruned.load_state_dict(state)
    assert unpruned.survivors is None


def test_a_rate_that_one_layer_refuses_changes_none() -> None:
    model = nn.Sequential(SupermaskLinear(20, 10, seed=0), SupermaskLinear(10, 10, seed=0, layer=1))
    list(searched_edges(model).values())[-1].remove_unselected()
    before = [int(edges.kept) for edges in searched_edges(model).values()]
    with pytest.raises(ValueError, match="hard pruning left"):
        set_remaining(model, 0.9)
    assert [int(edges.kept) for edges in searched_edges(model).values()] == before


def test_the_constructor_of_edges_calls_nothing_that_a_subclass_may_replace() -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("called before the edges are whole")

    own = [name for name, value in vars(Edges).items() if callable(value) and not name.startswith("__")]
    assert {"_keep", "_sign_words", "theta", "mask"} <= set(own)
    probe = type("Probe", (Edges,), dict.fromkeys(own, refuse))
    probe((2, 3), seed=0, layer=0, generation=0, weights="signed_constant", constant=1.0, device=None)


@pytest.mark.parametrize("weights", ["signed_constant", "unsigned_constant", "kaiming_normal"])
def test_signs_are_made_again_where_a_move_left_nothing_in_them(weights: Any) -> None:
    edges = SearchedEdges((9, 40), seed=4, remaining=0.6, weights=weights)
    state, weight = copy.deepcopy(edges.state_dict()), edges(torch.float32)
    for device in ("cpu", "meta", "cpu"):
        edges.to_empty(device=device)
        assert edges.signs is None or edges.signs.device.type == device
    edges.load_state_dict(state)
    assert torch.equal(edges(torch.float32), weight)


@pytest.mark.parametrize("straight_through", [True, False])
@pytest.mark.parametrize("shape", [(8, 4, 1, 1), (8, 1, 3, 3), (6, 5, 1)])
def test_gradients_have_the_strides_of_the_scores(shape: tuple[int, ...], straight_through: bool) -> None:
    """Contiguous says nothing of axes of length one; who buckets gradients, as DDP does, compares strides."""
    edges = SearchedEdges(shape, seed=1, device=DEVICE)
    edges.select_by(Selection(straight_through=straight_through))
    if len(shape) == 4:
        edges = edges.to(memory_format=torch.channels_last)
    row_major = torch.empty(shape).stride()
    assert edges.scores.stride() == row_major
    weight = edges(torch.float32)
    assert weight.stride() == row_major
    channels = torch.empty((shape[0], *shape[2:], shape[1])).stride()  # as channels_last has them
    strides = channels[0], channels[-1], *channels[1:-1]
    weight.register_hook(lambda grad: torch.empty_strided(shape, strides, device=DEVICE).copy_(grad))  # nobody else's
    weight.sum().backward()
    assert edges.scores.grad is not None
    assert edges.scores.grad.stride() == row_major
