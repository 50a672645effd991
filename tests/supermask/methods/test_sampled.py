"""Sampled supermasks: what a forward draws, what moves a score, what is evaluated and what a ticket holds."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.sigmoid import of_2_24
from supermask.edges.stored import NotStorable
from supermask.kernels.base import philox
from supermask.kernels.base.bits import unpack
from supermask.methods.sampled import EVALUATION, ROUNDED, TRAINING, DrawnEdges, Sampled
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.tickets.errors import TicketError
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.kernels.paths import path
from tests.supermask.runs.small_runs import BASE, placed

SCALED = Sampled(scaling=True)


def edges_of(
    shape: tuple[int, ...] = (24, 30), method: Sampled = Sampled(), spread: float = 0.0, **given: Any
) -> DrawnEdges:
    edges = method.edges(shape, **{"seed": 3, "layer": 1, "remaining": 0.5, **given})
    assert isinstance(edges, DrawnEdges)
    with torch.no_grad():
        edges.scores.add_(spread * torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    return edges


def drawn(edges: DrawnEdges, purpose: int, generation: int) -> Tensor:
    """The integers of a draw, by the generator's own definition."""
    place = edges.seed, edges.layer, range(edges.rows), edges.cols
    return philox.draws(*place, purpose=purpose, generations=[generation])[0]


def weights(edges: DrawnEdges) -> Tensor:
    """theta0 of all edges, not scaled."""
    theta = super(DrawnEdges, edges).theta()
    return theta.where(torch.ones(edges.rows, edges.cols, dtype=torch.bool), torch.float32)


@pytest.mark.parametrize("shape", [(24, 30), (6, 5, 3, 3)])
@pytest.mark.parametrize(("purpose", "generation"), [(TRAINING, 0), (TRAINING, 4_000_000), (EVALUATION, 3)])
def test_an_edge_is_selected_where_its_draw_is_below_its_probability(
    shape: tuple[int, ...], purpose: int, generation: int
) -> None:
    edges = edges_of(shape, spread=2.0)
    edges.draw(purpose, generation)
    chances = of_2_24(edges.scores.detach(), edges.levels).view(edges.rows, edges.cols)
    mask = drawn(edges, purpose, generation) < chances
    assert torch.equal(unpack(edges.mask(), edges.cols), mask)
    assert torch.equal(edges(torch.float32).view(edges.rows, edges.cols), weights(edges) * mask)
    assert 0.3 < mask.float().mean() < 0.7


def test_draws_differ_by_what_they_are_for_and_are_the_same_again() -> None:
    edges = edges_of()
    moments = [(TRAINING, 0), (TRAINING, 1), (EVALUATION, 0), (EVALUATION, 1), (ROUNDED, 0)]
    found = []
    for moment in (*moments, *moments):
        edges.draw(*moment)
        found.append(edges.mask())
    assert all(torch.equal(one, other) for one, other in zip(found[:5], found[5:], strict=True))
    for number, one in enumerate(found[:5]):
        assert not any(torch.equal(one, other) for other in found[number + 1 : 5])
    with torch.no_grad():
        edges.scores.fill_(0.0)
    edges.draw(ROUNDED)
    assert not unpack(edges.mask(), 30).any(), "a probability of a half is not above a half"
    with torch.no_grad():
        edges.scores.view(-1)[0] = 1e-3
    assert unpack(edges.mask(), 30).sum() == 1


def test_interpreted_kernels_draw_the_same() -> None:
    found = []
    for name in ("torch", "triton"):
        with path(name):
            edges = edges_of(spread=1.0)
            edges.draw(TRAINING, 7)
            found.append((edges.mask(), edges(torch.float32)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_mean_weight_is_the_probability_s() -> None:
    edges, draws = edges_of((4, 5), spread=1.5), 4000
    total = torch.zeros(4, 5)
    for number in range(draws):
        edges.draw(TRAINING, number)
        total += edges(torch.float32).detach()
    p = torch.sigmoid(edges.scores.detach())
    error = weights(edges).abs() * (p * (1 - p) / draws).sqrt()
    assert ((total / draws - weights(edges) * p).abs() < 4.5 * error).all()


def test_a_score_moves_by_its_weight_and_the_slope_of_its_probability() -> None:
    """ds = G W p (1 - p), selected or not; G W / 4 at 0."""
    grad = torch.randn(24, 30)
    flat = edges_of()
    flat(torch.float32).backward(grad)
    assert flat.scores.grad is not None
    assert torch.equal(flat.scores.grad, grad * weights(flat) / 4)
    edges = edges_of(spread=2.0)
    edges(torch.float32).backward(grad)
    p = torch.sigmoid(edges.scores.detach())
    assert edges.scores.grad is not None
    torch.testing.assert_close(edges.scores.grad, grad * weights(edges) * p * (1 - p), rtol=1e-5, atol=1e-7)


def test_scaled_weights_are_divided_by_the_share_selected() -> None:
    edges = edges_of(method=SCALED, spread=1.0)
    edges.draw(TRAINING, 2)
    mask = unpack(edges.mask(), 30)
    factor = edges.count / int(mask.sum())
    expected = weights(edges).double() * factor
    assert torch.equal(edges(torch.float32), expected.float() * mask)
    with torch.no_grad():
        edges.scores.fill_(-20.0)
    assert torch.equal(edges(torch.float32), torch.zeros(24, 30))


def test_the_gradient_of_the_share_selected_counts() -> None:
    """By hand: ds_i = [c G_i W_i - c^2 / n sum_j G_j W_j m_j] p_i (1 - p_i), c = n / sum(m)."""
    edges, grad = edges_of(method=SCALED, spread=1.0), torch.randn(24, 30)
    edges.draw(TRAINING, 1)
    mask, w = unpack(edges.mask(), 30).double(), weights(edges).double()
    edges(torch.float32).backward(grad)
    n, p = edges.count, torch.sigmoid(edges.scores.detach().double())
    c = n / mask.sum()
    expected = (c * grad * w - c**2 / n * (grad * w * mask).sum()) * p * (1 - p)
    assert edges.scores.grad is not None
    torch.testing.assert_close(edges.scores.grad.double(), expected, rtol=1e-4, atol=1e-6)


def test_where_all_are_selected_scaling_takes_the_mean_direction_out() -> None:
    """A code that stops the gradient at the share gives sum G W, not 0."""
    edges, grad = edges_of(method=SCALED), torch.randn(24, 30)
    with torch.no_grad():
        edges.scores.fill_(8.0)
    edges.draw(ROUNDED)
    edges(torch.float32).backward(grad)
    assert edges.scores.grad is not None
    p = torch.sigmoid(torch.tensor(8.0, dtype=torch.float64))
    direction = edges.scores.grad.double() / (p * (1 - p))
    assert unpack(edges.mask(), 30).all()
    assert abs(float(direction.sum())) < 1e-3 * float((grad * weights(edges)).abs().sum())
    assert abs(float((grad * weights(edges)).sum())) > 1e-2 * float((grad * weights(edges)).abs().sum())


def network(method: Sampled, seed: int = 0) -> nn.Module:
    return convert(Architecture(name="mlp", arguments={"sizes": [20, 60, 4]}).build(), seed, edges=method.edges)


def test_each_step_draws_anew_and_a_cycle_is_evaluated_over_several_draws() -> None:
    method = Sampled(draws=4)
    model = network(method)
    layers = [edges for edges in searched_edges(model).values() if isinstance(edges, DrawnEdges)]
    masks = []
    for step in (0, 1, 0):
        method.before_step(model, step)
        masks.append([edges.mask() for edges in layers])
    assert all(torch.equal(one, other) for one, other in zip(masks[0], masks[2], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(masks[0], masks[1], strict=True))
    seen: list[float] = []

    def accuracy() -> float:
        assert all(edges.moment.tolist() == [EVALUATION, len(seen)] for edges in layers)
        seen.append(float(unpack(layers[0].mask(), 20).float().mean()))
        return seen[-1]

    with torch.no_grad():
        found = method.evaluate(model, accuracy)
    assert found == {"accuracy": fmean(seen), "spread": pstdev(seen), "density": 0.5}
    assert len(set(seen)) == 4
    assert [edges.moment.tolist() for edges in layers] == [[TRAINING, 0]] * 2


@pytest.mark.parametrize("scaling", [False, True])
@pytest.mark.parametrize("ends", ["rounded", "drawn"])
def test_a_run_ends_with_the_mask_that_its_ticket_holds(ends: Any, scaling: bool, tmp_path: Path) -> None:
    method = Sampled(ends=ends, scaling=scaling, draws=3)
    result = placed(replace(BASE, method=method, stages=None), tmp_path / "run").execute()
    searched, ended = result.cycles
    assert set(searched.measures) == {"spread", "density"}
    assert ended.measures == {}
    assert result.tickets[0].same_logits
    assert result.tickets[0].accuracy == ended.recalibrated


def test_a_training_step_s_mask_is_no_ticket(tmp_path: Path) -> None:
    model = network(SCALED)
    SCALED.before_step(model, 5)
    architecture = Architecture(name="mlp", arguments={"sizes": [20, 60, 4]})
    with pytest.raises(TicketError, match="layer 'fc1': its mask is of one training step"):
        save(model, tmp_path / "t.safetensors", architecture=architecture)
    for edges in searched_edges(model).values():
        assert isinstance(edges, DrawnEdges)
        edges.draw(EVALUATION, 2)
    save(model, tmp_path / "t.safetensors", architecture=architecture)
    loaded = all_edges(load(tmp_path / "t.safetensors"))
    for name, edges in searched_edges(model).items():
        for dtype in (torch.float32, torch.bfloat16):
            assert torch.equal(loaded[name](dtype), edges(dtype))


def test_state_dicts_hold_the_draw() -> None:
    one, other = edges_of(spread=1.0), edges_of()
    one.draw(TRAINING, 9)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.mask(), one.mask())
    assert {"drawn", "levels"}.isdisjoint(one.state_dict())
    with pytest.raises(RuntimeError, match="the state dict is of edges with"):
        edges_of(method=SCALED).load_state_dict(one.state_dict())


def test_after_hard_pruning_the_edges_left_alone_count() -> None:
    """n / sum(m) over the mask as it is; nothing moves the removed ones."""
    edges, grad = edges_of(method=SCALED, spread=1.0), torch.randn(24, 30)
    edges.draw(TRAINING, 0)
    edges.remove_unselected()
    edges.draw(TRAINING, 1)
    assert edges.survivors is not None
    left, mask = unpack(edges.survivors, 30), unpack(edges.mask(), 30)
    assert mask.sum() < left.sum()
    weight = edges(torch.float32)
    expected = (weights(edges).double() * edges.count / int(mask.sum())).float() * mask
    assert torch.equal(weight, expected)
    weight.backward(grad)
    p, n, w = torch.sigmoid(edges.scores.detach().double()), edges.count, weights(edges).double()
    c = n / mask.sum()
    slope = (c * grad * w - c**2 / n * (grad * w * mask).sum()) * p * (1 - p) * left
    assert edges.scores.grad is not None
    torch.testing.assert_close(edges.scores.grad.double(), slope, rtol=1e-4, atol=1e-6)
    assert edges.expected() == pytest.approx(float((p * left).sum()), rel=1e-5)


def test_an_evaluation_that_fails_gives_the_draw_back() -> None:
    model = network(Sampled())

    def accuracy() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), torch.no_grad():
        Sampled().evaluate(model, accuracy)
    assert {tuple(edges.moment.tolist()) for edges in model.modules() if isinstance(edges, DrawnEdges)} == {
        (TRAINING, 0)
    }


@pytest.mark.parametrize("moment", [None, [5], [5, 0, 0], [4, 0], [6, -1], [6, 1 << 22]])
def test_a_state_dict_says_what_the_mask_is_drawn_for(moment: list[int] | None) -> None:
    edges = edges_of()
    before, state = edges.mask(), edges.state_dict()
    if moment is None:
        del state["moment"]
    else:
        state["moment"] = torch.tensor(moment)
    with pytest.raises(RuntimeError, match="moment"):
        edges.load_state_dict(state)
    assert edges.moment.tolist() == [TRAINING, 0]
    assert torch.equal(edges.mask(), before)


@pytest.mark.parametrize("name", ["drawn", "moment"])
def test_a_draw_by_hand_is_not_saved(name: str) -> None:
    edges = edges_of()
    getattr(edges, name).add_(1)
    with pytest.raises(NotStorable, match="was written to, and the first is made of the second"):
        edges.state_dict()
    edges.draw(TRAINING, 1)
    edges.state_dict()


def test_there_are_so_many_draws() -> None:
    with pytest.raises(ValueError, match="step 4194304: sampled supermasks draw for 4,194,304 steps at most"):
        Sampled().before_step(network(Sampled()), 1 << 22)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"length": 0}, "length=0: expected at least one"),
        ({"draws": 0}, "draws=0: expected at least one"),
        ({"ends": "both"}, "ends='both': expected one of"),
    ],
)
def test_what_is_out_of_range_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sampled(**given)


def test_what_a_ticket_could_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="weights='kaiming_normal' with scaling"):
        SCALED.edges((2, 3), seed=0, remaining=0.5, weights="kaiming_normal")
    with pytest.raises(ValueError, match="magnitude='abs': a score is the log odds"):
        Sampled().edges((2, 3), seed=0, remaining=0.5, magnitude="abs")
    assert math.isclose(float(np.mean(weights(edges_of()).numpy() ** 2)), 2 / 30, rel_tol=1e-5)
