"""Biprop: what its edges weigh, by which weight scores move, and what a ticket holds of them."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supermask.edges.in_model import all_edges, searched_edges
from supermask.edges.selection import one_selection
from supermask.edges.stored import NotStorable
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.philox import sign_words
from supermask.methods.biprop import BinarisedEdges, Biprop
from supermask.methods.edge_popup import EP
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.tickets.load import load
from supermask.tickets.save import save
from tests.ranks import on_ranks

SHAPES = [(24, 30), (7, 5, 3, 3), (4, 100)]


def edges_of(shape: tuple[int, ...] = (24, 30), method: Biprop = Biprop(), **given: Any) -> BinarisedEdges:
    edges = method.edges(shape, **{"seed": 3, "layer": 1, "remaining": 0.3, **given})
    assert isinstance(edges, BinarisedEdges)
    return edges


def published(scores: Tensor, drawn: Tensor, kept: int) -> tuple[Tensor, float]:
    """The rule by hand: the mask of the `kept` highest |s|, and the mean |W| under it."""
    order = np.argsort(-scores.abs().flatten().double().numpy(), kind="stable")[:kept]
    mask = np.zeros(scores.numel(), dtype=bool)
    mask[order] = True
    return torch.from_numpy(mask).view(drawn.shape), float(drawn.flatten()[mask].double().mean())


@pytest.mark.parametrize("draw", ["kaiming_normal", "kaiming_uniform"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_weighs_three_values(shape: tuple[int, ...], draw: Any) -> None:
    edges = edges_of(shape, Biprop(draw=draw))
    mask, alpha = published(edges.scores.detach(), edges.drawn, int(edges.kept[0]))
    weight = edges(torch.float32).detach().view(edges.rows, edges.cols)
    negative = unpack(sign_words(3, 1, edges.rows, edges.cols), edges.cols)
    assert torch.equal(unpack(edges.mask(), edges.cols), mask)
    assert float(edges.alpha()) == np.float32(alpha)
    assert torch.equal(weight, torch.where(negative, -np.float32(alpha), np.float32(alpha)) * mask)
    assert sorted(set(weight.flatten().tolist())) == [-np.float32(alpha), 0.0, np.float32(alpha)]


@pytest.mark.parametrize("draw", ["kaiming_normal", "kaiming_uniform"])
def test_magnitudes_have_the_distribution_s_spread(draw: Any) -> None:
    edges = edges_of((300, 200), Biprop(draw=draw))
    deviation = math.sqrt(2 / 200)
    assert float(edges.drawn.square().mean().sqrt()) == pytest.approx(deviation, rel=0.01)
    mean = {"kaiming_normal": math.sqrt(2 / math.pi), "kaiming_uniform": math.sqrt(3) / 2}[draw] * deviation
    assert float(edges.drawn.mean()) == pytest.approx(mean, rel=0.01)
    assert float(edges.drawn.min()) > 0
    steps = edges.drawn.double() * 2.0**23  # of a grid of 2^-19 of 2^-4, the power of two below the deviation
    assert torch.equal(steps, steps.round())
    assert not torch.equal(edges.drawn, edges_of((300, 200), Biprop(draw=draw), layer=2).drawn)


def test_alpha_is_the_same_in_whichever_order_it_is_summed() -> None:
    edges = edges_of((300, 200))
    mask = unpack(edges.mask(), 200)
    magnitudes = edges.drawn[mask].double()
    exact = math.fsum(magnitudes.tolist()) / len(magnitudes)
    for order in (magnitudes, magnitudes.flip(0), magnitudes.sort().values, magnitudes.sort(descending=True).values):
        assert float(order.cumsum(0)[-1]) / len(order) == exact
    assert float(edges.alpha()) == np.float32(exact)


def test_scaling_the_weights_scales_alpha_and_the_gradient_and_changes_no_decision() -> None:
    edges = edges_of()
    before, grad = edges(torch.float32), torch.randn(24, 30)
    before.backward(grad)
    own, alpha, mask = edges.scores.grad, edges.alpha(), edges.mask()
    assert own is not None
    edges.scores.grad = None
    edges.drawn.mul_(4.0)
    edges(torch.float32).backward(grad)
    assert edges.scores.grad is not None
    assert torch.equal(edges.scores.grad, own * 4)
    assert torch.equal(edges.alpha(), alpha * 4)
    assert torch.equal(edges.mask(), mask)


def test_a_score_moves_by_its_real_weight_and_alpha_gets_no_gradient() -> None:
    """ds = G W sign(s), for every edge; with alpha in its place two edges of |W| 1 and 3 would move alike."""
    edges = edges_of((2, 2), remaining=0.5)
    with torch.no_grad():
        edges.scores.copy_(torch.tensor([[0.5, -0.4], [-0.1, 0.2]]))
        edges.drawn.copy_(torch.tensor([[1.0, 3.0], [2.0, 5.0]]))
    signs = torch.where(unpack(sign_words(3, 1, 2, 2), 2), -1.0, 1.0)
    grad = torch.tensor([[2.0, 2.0], [2.0, 7.0]])
    edges(torch.float32).backward(grad)
    assert edges.scores.grad is not None
    assert torch.equal(edges.scores.grad, signs * torch.tensor([[2.0, -6.0], [-4.0, 35.0]]))
    assert float(edges.alpha()) == 2.0


def test_of_equal_magnitudes_it_is_edge_popup() -> None:
    method, plain = edges_of(), EP().edges((24, 30), seed=3, layer=1, remaining=0.3)
    method.drawn.fill_(0.25)
    plain.constant.fill_(0.25)
    assert torch.equal(method(torch.float32), plain(torch.float32))
    grad = torch.randn(24, 30)
    method(torch.float32).backward(grad)
    plain(torch.float32).backward(grad)
    assert method.scores.grad is not None
    assert plain.scores.grad is not None
    assert torch.equal(method.scores.grad, plain.scores.grad)


def network(method: Biprop, **given: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = nn.Sequential(nn.Linear(20, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 4))
    return convert(dense, 5, remaining=method.remaining, edges=method.edges, **given)


def test_over_the_network_a_layer_may_have_no_edge_and_weighs_nothing() -> None:
    model = network(Biprop(remaining=0.05, ranking="network"))
    first, last = searched_edges(model).values()
    with torch.no_grad():
        last.scores.mul_(1e-6)
    with one_selection(model):
        assert int(unpack(last.mask(), last.cols).sum()) == 0
        assert int(unpack(first.mask(), first.cols).sum()) == int(first.kept[0] + last.kept[0])
        weights = last(torch.float32)
        logits = model(torch.randn(8, 20))
    assert torch.equal(weights, torch.zeros(4, 60))
    assert torch.isfinite(logits).all()


def test_the_published_schedule_of_the_global_variant() -> None:
    """By hand from 1 - r_e = (1 - r) + (0.5 - (1 - r)) (1 - e / 10)^3, at r = 0.1."""
    method = Biprop(remaining=0.1, ranking="network", anneal="cubic", anneal_from=0.5, anneal_epochs=10)
    (cycle,) = method.phases()
    found = [cycle.rate(epoch, 100) for epoch in range(12)]
    by_hand = [1 - (0.9 + (0.5 - 0.9) * max(0.0, 1 - epoch / 10) ** 3) for epoch in range(12)]
    assert found == pytest.approx(by_hand)
    assert found[0] == 0.5
    assert found[10] == found[11] == 0.1


def test_a_ticket_holds_a_bit_an_edge_and_alpha(tmp_path: Path) -> None:
    architecture = Architecture(name="mlp", arguments={"sizes": [20, 60, 4]})
    model = convert(architecture.build(), 5, remaining=0.3, edges=Biprop().edges)
    set_remaining(model, 0.2)
    save(model, tmp_path / "t.safetensors", architecture=architecture)
    loaded = all_edges(load(tmp_path / "t.safetensors"))
    for name, edges in searched_edges(model).items():
        assert isinstance(edges, BinarisedEdges)
        assert float(loaded[name].constant) == float(edges.alpha())
        assert edges.stored().planes.keys() == {"mask"}


def test_state_dicts_are_of_one_draw() -> None:
    one, other = edges_of(), edges_of(method=Biprop(draw="kaiming_uniform"))
    assert "drawn" not in one.state_dict()
    with pytest.raises(RuntimeError, match="the state dict is of edges with"):
        other.load_state_dict(one.state_dict())
    again = edges_of(remaining=0.5)
    again.load_state_dict(one.state_dict())
    assert torch.equal(again(torch.float32), one(torch.float32))


def test_processes_agree_about_alpha(tmp_path: Path) -> None:
    on_ranks(_rank, str(tmp_path))
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(one, other)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(rank + 1)  # of other numbers of threads sums are split elsewhere
    torch.save(edges_of((300, 900)).alpha(), Path(folder) / f"{rank}.pt")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"draw": "normal"}, "draw='normal': expected one of"),
        ({"anneal_from": 0.5}, "anneal_from=0.5 with anneal='none'"),
        ({"anneal_from": 0.0, "anneal": "cubic"}, "anneal_from=0.0: expected a rate"),
        ({"anneal_from": 2.0, "anneal": "cubic"}, "anneal_from=2.0: expected a rate"),
    ],
)
def test_what_is_out_of_range_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Biprop(**given)


def test_its_weights_are_a_sign_and_a_number() -> None:
    with pytest.raises(ValueError, match="weights='kaiming_normal': binarised weights are a sign"):
        Biprop().edges((2, 3), seed=0, remaining=0.5, weights="kaiming_normal")


def test_turned_signs_turn_both_ways() -> None:
    edges = edges_of()
    edges.draw_weights(edges.mask(), 1)
    grad = torch.randn(24, 30)
    weight = edges(torch.float32)
    weight.backward(grad)
    assert edges.scores.grad is not None
    moved = edges.scores.grad * edges.scores.detach().sign() * grad
    selected = unpack(edges.mask(), 30)
    assert edges.flips is not None
    assert unpack(edges.flips, 30)[selected].any()
    assert torch.equal(moved[selected] > 0, weight.detach()[selected] > 0)


def test_magnitudes_of_one_s_own_are_not_saved() -> None:
    edges = edges_of()
    other = copy.deepcopy(edges)
    edges.drawn.mul_(2.0)
    with pytest.raises(NotStorable, match="`drawn` was written to"):
        edges.state_dict()
    other.state_dict()
