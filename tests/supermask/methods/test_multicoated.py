"""Multicoated supermasks: nested coats of one score, their weights and gradient, and how their rates are had."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges.draws import kept_count
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import count_bits, unpack
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import soft_iep
from supermask.methods.multicoated import PUBLISHED, CoatedEdges, Multicoated, linear
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.tickets.save import save
from supermask.training.score_sgd import ScoreSGD

CPU = torch.device("cpu")
CHOICES = {"weights": "scaled_signed_constant", "scores": "kaiming_normal_fan_out"}


def edges_of(
    method: Multicoated, remaining: float = 0.3, shape: tuple[int, ...] = (24, 30), **given: Any
) -> CoatedEdges:
    edges = method.edges(shape, seed=3, layer=1, remaining=remaining, **given)
    assert isinstance(edges, CoatedEdges)
    return edges


def coats_of(edges: SearchedEdges) -> list[Tensor]:
    return [unpack(coat, edges.cols) for coat in edges.coats()]


@given(
    coats=st.integers(1, 5), remaining=st.floats(0.01, 1.0), rows=st.integers(1, 9), cols=st.integers(1, 150),
    tied=st.booleans(),
)  # fmt: skip
def test_coats_nest_and_keep_what_their_rates_say(
    coats: int, remaining: float, rows: int, cols: int, tied: bool
) -> None:
    edges = edges_of(Multicoated(coats=coats, spacing="uniform"), remaining, (rows, cols))
    if tied:
        with torch.no_grad():
            edges.scores.copy_((edges.scores * 2).round())
    found = coats_of(edges)
    assert all((inner <= outer).all() for outer, inner in pairwise(found))
    shares = [(coats - coat) / coats for coat in range(coats)]
    assert [int(coat.sum()) for coat in found] == [kept_count(remaining * share, edges.count) for share in shares]
    counts = sum(coat.int() for coat in found)
    signs = edges.theta().where(torch.ones(rows, cols, dtype=torch.bool), torch.float32)
    assert torch.equal(edges(torch.float32), signs * counts)
    assert torch.equal(edges.mask(), edges.coats()[0])


def test_one_coat_is_edge_popup_with_these_weights_and_scores() -> None:
    plain = SearchedEdges((24, 30), seed=3, layer=1, remaining=0.3, **CHOICES)
    coated = edges_of(Multicoated(coats=1))
    for edges in (plain, coated):
        edges(torch.float32).square().sum().backward()
    assert torch.equal(plain(torch.float32), coated(torch.float32))
    assert plain.scores.grad is not None
    assert coated.scores.grad is not None
    assert torch.equal(plain.scores.grad, coated.scores.grad)


@pytest.mark.parametrize("shape", [(24, 30), (8, 6, 3, 3)])
def test_constant_and_scores_are_of_the_paper(shape: tuple[int, ...]) -> None:
    edges = edges_of(Multicoated(), shape=shape)
    rate = edges.remaining
    assert float(edges.constant) == pytest.approx(math.sqrt(2 / (edges.cols * rate)))
    fan_out = shape[0] * math.prod(shape[2:])
    assert float(edges.scores.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
    assert [kept_count(r, edges.count) for r in PUBLISHED] == edges.kept.tolist()


def test_the_gradient_of_an_edge_outside_of_all_coats_is_that_of_every_coat() -> None:
    coats = 3
    plain = SearchedEdges((24, 30), seed=3, layer=1, remaining=0.3, **CHOICES)
    coated = edges_of(Multicoated(coats=coats))
    pull = torch.randn(24, 30, generator=torch.Generator().manual_seed(0))
    for edges in (plain, coated):
        edges(torch.float32).backward(pull)
    outside = ~coats_of(coated)[0]
    assert outside.any()
    assert plain.scores.grad is not None
    assert coated.scores.grad is not None
    torch.testing.assert_close(coated.scores.grad, coats * plain.scores.grad, rtol=1e-6, atol=0)
    signs = coated.theta().where(torch.ones(24, 30, dtype=torch.bool), torch.float32)
    rounded = (signs * coats) * pull  # the constant of all coats is rounded once
    assert torch.equal(coated.scores.grad, torch.where(coated.scores < 0, -rounded, rounded))


def test_the_constant_follows_the_first_coat_alone_and_each_rate() -> None:
    one, other = edges_of(Multicoated(shares=(1, 0.5, 0.1))), edges_of(Multicoated(shares=(1, 0.9, 0.8)))
    assert torch.equal(one.constant, other.constant)
    one.remaining = 0.1
    assert float(one.constant) == pytest.approx(math.sqrt(2 / (one.cols * one.remaining)))
    assert one.kept.tolist() == [kept_count(0.1 * share, one.count) for share in (1, 0.5, 0.1)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_fused_step_is_that_of_sgd(momentum: float) -> None:
    def model() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            dense = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 4))
        return convert(dense, 1, remaining=0.3, edges=Multicoated().edges)

    ours, theirs = model(), model()
    own = ScoreSGD(ours, lr=0.1, momentum=momentum, weight_decay=1e-4)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=1e-4)
    inputs = torch.randn(16, 20, generator=torch.Generator().manual_seed(2))
    for _ in range(4):
        with own.searching():
            ours(inputs).square().mean().backward()
        theirs(inputs).square().mean().backward()
        for optimiser in (own, other):
            optimiser.step()
            optimiser.zero_grad()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_mean_of_the_mask_is_the_sum_of_the_rates() -> None:
    edges = edges_of(Multicoated(), shape=(100, 200))
    mean = sum(count_bits(coat) for coat in edges.coats()) / edges.count
    assert mean == pytest.approx(sum(PUBLISHED), abs=1e-4)


def spread(edges: SearchedEdges) -> None:
    """Give scores a tail, as a search does: the highest is 50 times the lowest."""
    with torch.no_grad():
        scores = edges.scores
        scores.copy_(scores.sign() * (math.log(50) * scores.abs() / scores.abs().max()).exp())


def test_linear_coats_begin_at_multiples_of_each_layer_s_threshold() -> None:
    model = convert(nn.Sequential(nn.Linear(300, 50), nn.Linear(50, 40)), 0, remaining=0.3, edges=EP().edges)
    with pytest.raises(ValueError, match=r"\[5100, \d+, 0\] edges lie above .* ask for fewer coats"):
        linear(model, 3)
    reached = [0, 0, 0]
    for edges in searched_edges(model).values():
        spread(edges)
        magnitudes = edges.scores.detach().abs()
        lowest = magnitudes.view(edges.rows, -1)[unpack(edges.mask(), edges.cols)].min()
        for coat in range(3):
            reached[coat] += int((magnitudes >= (coat + 1) * lowest).sum())
    assert reached[0] == 5100
    assert linear(model, 3) == tuple(count / 5100 for count in reached)
    assert 1 > reached[1] / 5100 > reached[2] / 5100 > 0


def test_linear_searches_one_coat_first_and_all_after_at_the_rates_it_found() -> None:
    method = Multicoated(spacing="linear", cycles=2, final=None, given=(0.5, 0.3), coats=2)
    first, again, last = method.phases()
    assert (first, again) == (Cycle(remaining=0.5), Cycle(remaining=0.5, scores="inherit"))
    assert last == Cycle(remaining=0.3, scores="inherit")
    model = convert(nn.Sequential(nn.Linear(200, 50)), 0, remaining=0.5, edges=method.edges)
    (edges,) = searched_edges(model).values()
    method.begin(model, first, 1, {})
    assert len(edges.coats()) == 1
    spread(edges)
    shares = linear(model, 2)
    method.begin(model, again, 2, {})
    assert edges.kept.tolist() == [kept_count(0.5 * share, edges.count) for share in shares]
    method.begin(model, last, 3, {})
    assert edges.kept.tolist() == [kept_count(0.3 * share, edges.count) for share in shares], "measured once"
    fresh = convert(nn.Sequential(nn.Linear(200, 50)), 0, remaining=0.5, edges=method.edges)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(torch.ones(1, 200)), model(torch.ones(1, 200)))
    model.load_state_dict(convert(nn.Sequential(nn.Linear(200, 50)), 0, remaining=0.5, edges=method.edges).state_dict())
    assert len(edges.coats()) == 1, "a state of before brings one coat back"


def test_one_linear_coat_has_nothing_to_measure() -> None:
    assert Multicoated(spacing="linear", coats=1).phases() == Multicoated(coats=1).phases()
    assert len(edges_of(Multicoated(spacing="linear", coats=1)).coats()) == 1


def test_in_soft_iep_it_is_soft_iep_with_coats() -> None:
    method = Multicoated(cycles=3, p=0.2, final=None)
    assert method.phases() == soft_iep(method.rates)
    model = convert(nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 10)), 0, remaining=0.8, edges=method.edges)
    for remaining in method.rates:
        set_remaining(model, remaining)
        for edges in searched_edges(model).values():
            assert edges.kept.tolist() == [kept_count(remaining * r / 0.3, edges.count) for r in PUBLISHED]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"coats": 0}, "coats=0: expected 1 to 64"),
        ({"coats": 65}, "coats=65: expected 1 to 64"),
        ({"coats": 5}, "the published list has 3"),
        ({"spacing": "even"}, "spacing='even'"),
        ({"shares": (0.5, 0.2, 0.1)}, "first of them 1"),
        ({"shares": (1.0, 0.2, 0.3)}, "at most the one before"),
        ({"shares": (1.0, 0.2)}, "expected 3 fractions"),
        ({"shares": (1.0, 0.2, 0.0)}, "each above 0"),
    ],
)
def test_settings_that_are_none_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Multicoated(**given)


def test_linear_needs_a_layer_at_the_network_s_rate() -> None:
    model = convert(nn.Sequential(nn.Linear(20, 5)), 0, overrides={"0": 0.5}, edges=EP().edges)
    with pytest.raises(ValueError, match="pinned"):
        linear(model, 2)
    raw = convert(nn.Sequential(nn.Linear(20, 5)), 0, magnitude="raw")
    with pytest.raises(ValueError, match="magnitude='abs'"):
        linear(raw, 2)


def test_a_ticket_takes_the_bits_of_the_formula(tmp_path: Path) -> None:
    model = convert(nn.Sequential(nn.Linear(37, 11), nn.Linear(11, 5)), 0, remaining=0.3, edges=Multicoated().edges)
    info = save(model, tmp_path / "t.safetensors", architecture=None, encoding="raw")
    for layer, edges in zip(info.layers, searched_edges(model).values(), strict=True):
        outer = edges.kept.tolist()[:-1]
        assert layer.bytes == sum(math.ceil(bits / 8) for bits in (edges.count, *outer))
        assert [coat.kept for coat in layer.coats] == edges.kept.tolist()
    assert " > ".join(map(str, searched_edges(model)["0"].kept.tolist())) in str(info)


def test_coats_compile_as_one_graph() -> None:
    edges = edges_of(Multicoated())
    made = torch.compile(lambda: edges(torch.float32), backend="aot_eager", fullgraph=True)
    pull = torch.randn(24, 30, generator=torch.Generator().manual_seed(1))
    found = []
    for make in (made, lambda: edges(torch.float32)):
        edges.scores.grad = None
        weight = make()
        weight.backward(pull)
        found.append((weight.detach(), edges.scores.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
