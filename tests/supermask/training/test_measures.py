"""Dying edges and dead units, against counts kept the slow way."""

import pytest
import torch
from torch import nn

from supermask.edges.in_model import owned_edges, searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack
from supermask.networks.convert import convert
from supermask.networks.layers import SupermaskConvTranspose2d
from supermask.networks.rates import set_remaining
from supermask.training.measures import Cumulative, dead_units, dying, track


def network(remaining: float, seed: int = 0) -> nn.Module:
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 20))
    return convert(model, seed, remaining=remaining)


def masks(model: nn.Module) -> torch.Tensor:
    return torch.cat([unpack(edges.mask(), edges.cols).flatten() for edges in searched_edges(model).values()])


def step(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model(torch.randn(8, 40, generator=generator)).square().sum().backward()
    with torch.no_grad():
        for edges in searched_edges(model).values():
            edges.scores -= 0.01 * edges.scores.grad
            edges.scores.grad = None


def test_dying_counts_every_training_mask_and_never_grows() -> None:
    model = network(0.3)
    track(model)
    ever = torch.zeros_like(masks(model))
    last = 1.0
    for number in range(6):
        ever |= masks(model)
        step(model, number)
        measured = dying(model)
        assert measured.ratio == (~ever).sum().item() / ever.numel()
        assert measured.ratio <= last
        if number == 0:
            assert measured.ratio == 1 - measured.kept / measured.edges  # d_0 = 1 - remaining
            assert measured.explored == 0
        assert measured.explored == pytest.approx((1 - measured.kept / measured.edges) - measured.ratio)
        last = measured.ratio
    assert last < 0.7


def test_evaluation_selects_nothing_for_the_record() -> None:
    model = network(0.3)
    track(model)
    model.eval()
    model(torch.zeros(2, 40))
    assert dying(model).ever == 0


def test_hard_pruning_counts_removed_edges_as_dying_only_in_the_worst_case() -> None:
    model = network(0.5)
    for edges in searched_edges(model).values():
        edges.remove_unselected()
    set_remaining(model, 0.25)
    track(model)
    step(model, 0)
    measured = dying(model)
    assert measured.survivors == 900
    assert measured.ever == measured.kept == 450
    assert measured.ratio == 1350 / 1800
    assert measured.apparent == 0.5
    assert measured.apparent_of_all == 0.25


def test_cumulative_is_the_union_over_cycles() -> None:
    model = network(0.2)
    cumulative = Cumulative()
    ever = torch.zeros_like(masks(model))
    for generation in range(3):
        for edges in searched_edges(model).values():
            edges.draw_scores(generation)
        track(model)
        ever |= masks(model)
        step(model, 0)
        counted = cumulative.add(model)
        assert counted.ever == int(ever.sum())
        cumulative = Cumulative(cumulative.ever)  # as a resumed run goes on with it
        assert dying(model).ever == int(masks(model).numel() * 0.2)


def test_dead_units_are_rows_without_an_edge() -> None:
    model = network(0.3)
    edges = next(iter(searched_edges(model).values()))
    with torch.no_grad():
        edges.scores[[3, 7]] = 0.0
    assert dead_units(model) == {"0": 2, "3": 0}


def test_dead_outputs_of_a_transposed_convolution() -> None:
    model = convert(nn.Sequential(nn.ConvTranspose2d(6, 4, 2, groups=2)), 0, remaining=0.5)
    (edges,) = searched_edges(model).values()
    with torch.no_grad():
        edges.scores.fill_(1.0)
        edges.scores[:3, 1] = 0.0  # second output of the first group
        edges.scores[3:] = 0.0  # the whole second group
        edges.remaining = 12 / 48
    assert dead_units(model) == {"0": 3}


def test_edges_are_counted_by_who_owns_them_wherever_they_lie() -> None:
    """A layer of ours knows its outputs; of any other, and of edges by themselves, they are the rows."""
    layer = SupermaskConvTranspose2d(6, 4, 2, seed=0, layer=0, remaining=0.5)
    other, free = nn.Module(), SearchedEdges((5, 8), seed=0, layer=1, remaining=0.5)
    other.edges = SearchedEdges((6, 4), seed=0, layer=2, remaining=0.5)
    with torch.no_grad():
        layer.edges.scores[:, 1:3] = 0.0
        other.edges.scores[:3] = 0.0
        free.scores[1] = 0.0
    model = nn.ModuleDict({"free": free, "other": other, "layer": layer, "again": layer})
    owners = {name: owner for name, (owner, _) in owned_edges(model).items()}
    assert owners == {"free": free, "other": other, "layer": layer}
    assert dead_units(model) == {"free": 1, "other": 3, "layer": 2}
    assert dead_units(free) == {"": 1}


def test_weights_that_a_parent_reads_are_searched() -> None:
    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(40, 20)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.inner.weight)

    model = convert(Parent(), 0, remaining=0.3)
    track(model)
    model(torch.randn(2, 40)).sum().backward()
    assert dying(model).ever == dying(model).kept
    with torch.no_grad():
        searched_edges(model)["inner"].draw_scores(1)
        _ = model.inner.weight
    assert dying(model).ever == dying(model).kept


def test_measuring_without_tracking_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 0 .*track"):
        dying(network(0.3))
