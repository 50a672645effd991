"""Gem-Miner: which edges a forward selects, what moves their scores, and which an event freezes out."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import popcount, unpack
from supermask.methods.gem_miner import GemMiner, freeze_out
from supermask.networks.convert import convert
from supermask.tickets.load import inspect
from supermask.training.loop import Loop
from supermask.training.training import Training
from tests.supermask.runs.small_runs import BASE, Points, placed

CPU = torch.device("cpu")
MINER = GemMiner(remaining=0.1, freeze_every=2, penalty=1e-3)


def network(method: GemMiner = MINER, seed: int = 0, **given: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        dense = nn.Sequential(nn.Linear(20, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 4))
    return convert(dense, seed, remaining=method.remaining, edges=method.edges, **given)


def layers_of(model: nn.Module) -> list[SearchedEdges]:
    return list(searched_edges(model).values())


def left(edges: SearchedEdges) -> Tensor:
    if edges.survivors is None:
        return torch.ones(edges.rows, edges.cols, dtype=torch.bool)
    return unpack(edges.survivors, edges.cols)


def weights(edges: SearchedEdges) -> Tensor:
    """theta0 of all edges."""
    return edges.theta().where(torch.ones(edges.rows, edges.cols, dtype=torch.bool), torch.float32)


def course(method: GemMiner, epochs: int, **given: Any) -> tuple[nn.Module, list[list[Tensor]]]:
    """The network after a search of so many epochs, and which edges were left in each of them."""
    model = network(method)
    (cycle, *_) = method.phases()
    method.begin(model, cycle, 1, {})
    training = Training(epochs=epochs, lr=0.5, weight_decay=0.0, **given)
    loop = Loop(model=model, loaded=Points().open(seed=0, device=CPU), training=training, device=CPU, hooks=method)
    optimiser = training.make_optimiser(model)
    found = []
    for epoch in range(epochs):
        method.begin_epoch(model, cycle, epoch, epochs)
        found.append([left(edges) for edges in layers_of(model)])
        loop.run_epoch(optimiser, training.lr)
    return model, found


def test_a_score_of_a_half_is_not_selected_and_scores_begin_as_probabilities() -> None:
    edges = MINER.edges((3, 2), seed=1, remaining=0.5)
    assert 0 <= edges.scores.min() < 0.5 < edges.scores.max() <= 1
    with torch.no_grad():
        edges.scores.copy_(torch.tensor([[0.0, 0.5], [0.50000006, 1.0], [-0.7, 0.49999997]]))
    expected = torch.tensor([[False, False], [True, True], [False, False]])
    assert torch.equal(unpack(edges.mask(), 2), expected)
    assert torch.equal(edges(torch.float32), weights(edges) * expected)
    many = MINER.edges((100, 100), seed=1, remaining=0.5)
    assert abs(many.remaining - 0.5) < 4 * math.sqrt(0.25 / 10_000)


def test_scores_are_within_0_and_1_at_each_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    whole = SearchedEdges.forward

    def forward(self: SearchedEdges, *given: Any, **named: Any) -> Tensor:
        scores = self.scores.detach()
        seen.append((float(scores.min()), float(scores.max())))
        return whole(self, *given, **named)

    monkeypatch.setattr(SearchedEdges, "forward", forward)
    model, _ = course(replace(MINER, penalty=0.0), 3)
    assert seen
    assert all(low >= 0 and high <= 1 for low, high in seen)
    ends = [edges.scores.detach() for edges in layers_of(model)]
    assert any(p.min() < 0 or p.max() > 1 for p in ends), "the last step took some out of it"


def test_the_gradient_of_an_edge_is_that_of_its_weight_and_of_a_frozen_one_the_penalty_s() -> None:
    """The rule by hand: ds = G W f + 2 lambda p."""
    model = network()
    layers = layers_of(model)
    freeze_out(layers, 400)
    caught: list[Tensor] = []

    def catch(made: Tensor) -> None:
        made.register_hook(caught.append)

    for edges in layers:
        edges.register_forward_hook(lambda _module, _given, made: catch(made))
    batch = torch.randn(16, 20), torch.randint(0, 4, (16,))
    loss, _ = MINER.loss(model, model, batch, 0.0)
    loss.backward()
    for edges, grad in zip(layers, reversed(caught), strict=True):
        alive = left(edges)
        p = edges.scores.detach()
        expected = torch.where(alive, grad * weights(edges), 0) + 2 * MINER.penalty * p
        assert edges.scores.grad is not None
        torch.testing.assert_close(edges.scores.grad, expected)
        assert torch.equal(edges.scores.grad[~alive], (2 * MINER.penalty * p)[~alive])
        assert not alive.all()


def test_without_a_gradient_scores_shrink_by_the_penalty() -> None:
    method = replace(MINER, penalty=0.01)
    model = network(method)
    before = [edges.scores.detach().clone() for edges in layers_of(model)]
    batch = torch.randn(8, 20), torch.randint(0, 4, (8,))
    loss, _ = method.loss(model, lambda inputs: inputs.new_zeros(8, 4, requires_grad=True), batch, 0.0)
    loss.backward()
    torch.optim.SGD([edges.scores for edges in layers_of(model)], lr=0.25).step()
    for edges, p in zip(layers_of(model), before, strict=True):
        torch.testing.assert_close(edges.scores.detach(), p * (1 - 2 * 0.25 * 0.01))


@pytest.mark.parametrize(("epochs", "every", "events"), [(7, 2, [2, 4, 6]), (6, 2, [2, 4]), (5, 1, [1, 2, 3, 4])])
@pytest.mark.parametrize("counts", ["exact", "published"])
def test_events_follow_every_so_many_epochs_but_the_last(
    epochs: int, every: int, events: list[int], counts: Any
) -> None:
    method = replace(MINER, freeze_every=every, counts=counts)
    model, found = course(method, epochs)
    count = sum(edges.count for edges in layers_of(model))
    changed = [e for e in range(1, epochs) if any((a != b).any() for a, b in zip(found[e - 1], found[e], strict=True))]
    assert changed == events
    for before, after in pairwise(found):
        assert all((later <= earlier).all() for earlier, later in zip(before, after, strict=True)), "flags nest"
    left = count
    for number, epoch in enumerate(events, start=1):
        left -= math.ceil((1 - method.remaining ** (1 / len(events))) * left)
        expected = round(count * method.remaining ** (number / len(events))) if counts == "exact" else left
        assert sum(int(part.sum()) for part in found[epoch]) == expected


def test_the_published_counts_drop_a_rounded_up_share_of_what_is_left() -> None:
    """Of 30,000 edges down to 1 % in three events, worked out by hand: the drop is 1 - 0.01^(1/3) = 0.78455653."""
    method = replace(MINER, remaining=0.01, counts="published")
    layers = [method.edges((100, 150), seed=0, layer=layer, remaining=0.5) for layer in (0, 1)]
    counts = []
    for event in (1, 2, 3):
        freeze_out(layers, method._left(layers, event, 3))
        counts.append(sum(int(popcount(edges.survivors).sum()) for edges in layers if edges.survivors is not None))
    assert counts == [6463, 1392, 299]
    assert [replace(method, counts="exact")._left(layers, event, 3) for event in (1, 2, 3)] == [6463, 1392, 300]


@given(data=st.data(), left_over=st.integers(1, 90), tied=st.booleans())
def test_the_highest_scores_of_all_layers_are_left(data: st.DataObject, left_over: int, tied: bool) -> None:
    layers = [MINER.edges(shape, seed=3, layer=n, remaining=0.5) for n, shape in enumerate([(3, 11), (2, 33)])]
    if tied:
        with torch.no_grad():
            for edges in layers:
                edges.scores.copy_((edges.scores * 3).round() / 3)
    freeze_out(layers, 90)
    before = np.concatenate([left(edges).flatten().numpy() for edges in layers])
    scores = np.concatenate([edges.scores.detach().flatten().numpy() for edges in layers])
    freeze_out(layers, left_over)
    after = np.concatenate([left(edges).flatten().numpy() for edges in layers])
    alive = np.flatnonzero(before)
    expected = np.zeros_like(before)
    expected[alive[np.argsort(-scores[alive], kind="stable")[:left_over]]] = True
    assert (after == expected).all()


def test_it_ends_with_all_that_is_left_or_with_the_rounded_scores(tmp_path: Path) -> None:
    method = replace(MINER, freeze_every=1, remaining=0.6)
    result = placed(replace(BASE, method=method, stages=None), tmp_path / "all").execute()
    searched, ended = result.cycles
    count = inspect(tmp_path / "all" / "ticket.safetensors").edges
    assert ended.remaining == round(method.remaining * count) / count
    assert searched.remaining < ended.remaining
    rounded = replace(method, unflag=False)
    (only,) = placed(replace(BASE, method=rounded, stages=None), tmp_path / "rounded").execute().cycles
    assert only.remaining == searched.remaining


def test_a_search_without_an_event_is_refused() -> None:
    """It would end with every edge."""
    says = "freeze_every=5 with 5 epochs: .* or freeze_every=4 or less"
    with pytest.raises(ValueError, match=says):
        GemMiner().schedule(Training(epochs=5), GemMiner().phases()[0], None)
    with pytest.raises(ValueError, match="freeze_every=9 with 4 epochs"):
        replace(BASE, method=GemMiner(freeze_every=9, length=2), stages=None, training=replace(BASE.training, epochs=2))
    GemMiner().schedule(Training(epochs=6), GemMiner().phases()[0], None)
    GemMiner(remaining=1.0).schedule(Training(epochs=1), GemMiner().phases()[0], None)


def test_its_hook_may_be_called_in_a_loop_of_one_s_own() -> None:
    model = network()
    for edges in layers_of(model):
        edges.scores.data.add_(3.0)
    MINER.before_step(model, 0)
    assert all(edges.scores.max() == 1 for edges in layers_of(model))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"remaining": 0.0}, "remaining=0.0: expected a fraction"),
        ({"freeze_every": 0}, "freeze_every=0: expected epochs"),
        ({"length": 0}, "length=0: expected how often"),
        ({"penalty": -1.0}, "penalty=-1.0: expected a number from 0"),
        ({"penalty": math.inf}, "penalty=inf: expected a number from 0"),
        ({"counts": "some"}, "counts='some': expected one of 'exact', 'published'"),
    ],
)
def test_what_is_out_of_range_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        GemMiner(**given)


def test_scores_are_read_as_they_are() -> None:
    with pytest.raises(ValueError, match="magnitude='abs': scores lie in"):
        MINER.edges((2, 3), seed=0, remaining=0.5, magnitude="abs")
