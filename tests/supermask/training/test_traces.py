"""Ranks and histograms of the scores, against a sort."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges.draws import Magnitude
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack
from supermask.networks.convert import convert
from supermask.training.traces import BINS, Traces, histogram


def network(magnitude: Magnitude = "abs", sizes: Sequence[int] = (17, 33, 5)) -> nn.Module:
    layers = [nn.Linear(before, after, bias=False) for before, after in pairwise(sizes)]
    return convert(nn.Sequential(*layers), 0, remaining=0.4, magnitude=magnitude)


def by_sorting(edges: SearchedEdges) -> Tensor:
    """For each edge, how many of its layer come before it: removed ones come last, NaN before them, ties by index."""
    values = edges.scores.detach().flatten().double()
    values = values.abs() if edges.rule.absolute else values
    values = torch.where(values.isnan(), -1e300, values)
    if edges.survivors is not None:
        values = torch.where(unpack(edges.survivors, edges.cols).flatten(), values, -torch.inf)
    return torch.sort(values, descending=True, stable=True).indices.argsort()


@pytest.mark.parametrize("magnitude", ["abs", "raw"])
@pytest.mark.parametrize("hard", [False, True])
@given(seed=st.integers(0, 99), grid=st.sampled_from([0.0, 0.05]), nan=st.booleans())
def test_ranks_are_those_of_a_sort(magnitude: Magnitude, hard: bool, seed: int, grid: float, nan: bool) -> None:
    model = network(magnitude)
    generator = torch.Generator().manual_seed(seed)
    traces = Traces(model, seed, count=60)
    names, places = traces.edges()["layers"], traces.edges()["edges"]
    assert names == ["0", "1"]
    with torch.no_grad():
        for edges in searched_edges(model).values():
            if hard:
                edges.remove_unselected()
                edges.remaining = 0.1
            drawn = torch.randn(edges.shape, generator=generator)
            edges.scores.copy_((drawn / grid).round() * grid if grid else drawn)
            if nan:
                edges.scores[0, :3] = torch.nan
    found = traces.ranks(model)
    layers = list(searched_edges(model).values())
    masks = [unpack(edges.mask(), edges.cols).flatten() for edges in layers]
    ranks = [by_sorting(edges) for edges in layers]
    assert found["ranks"] == [round(int(ranks[layer][place]) / layers[layer].count, 6) for layer, place in places]
    assert found["selected"] == [int(masks[layer][place]) for layer, place in places]


def test_the_sample_is_uniform_over_all_edges_and_fixed_by_the_seed() -> None:
    model = network(sizes=(100, 300, 10))
    sample = Traces(model, 3).edges()["edges"]
    assert len(sample) == len({tuple(edge) for edge in sample}) == 200
    assert sample == Traces(model, 3).edges()["edges"]
    assert sample != Traces(model, 4).edges()["edges"]
    counts = [edges.count for edges in searched_edges(model).values()]
    assert all(0 <= place < counts[layer] for layer, place in sample)
    hits = [sum(layer == 0 for layer, _ in Traces(model, seed).edges()["edges"]) for seed in range(20)]
    assert sum(hits) / 4000 == pytest.approx(30_000 / 33_000, abs=0.02)


def test_a_small_network_is_sampled_without_repeats() -> None:
    sample = Traces(network(sizes=(3, 4, 2)), 0).edges()["edges"]
    assert len({tuple(edge) for edge in sample}) == len(sample) <= 20
    assert len(Traces(network(sizes=(3, 4, 2)), 2**64 - 1, count=5).edges()["edges"]) == 5


@pytest.mark.parametrize("magnitude", ["abs", "raw"])
def test_histograms_count_every_edge(magnitude: Magnitude) -> None:
    for edges in searched_edges(network(magnitude)).values():
        found = histogram(edges)
        values = edges.scores.detach().abs() if magnitude == "abs" else edges.scores.detach()
        assert len(found["counts"]) == BINS == 64
        assert sum(found["counts"]) == edges.count
        assert found["high"] == float(values.max())
        assert found["low"] == (0.0 if magnitude == "abs" else float(values.min()))
        width = (found["high"] - found["low"]) / BINS
        first = int((values < found["low"] + width).sum())
        assert abs(found["counts"][0] - first) <= 1, "an edge on a boundary may fall on either side"


@pytest.mark.parametrize("magnitude", ["abs", "raw"])
@pytest.mark.parametrize("value", [0.0, 0.25])
def test_a_histogram_of_one_value_has_one_full_bin(magnitude: Magnitude, value: float) -> None:
    edges = searched_edges(network(magnitude))["0"]
    with torch.no_grad():
        edges.scores.fill_(value)
    assert sorted(histogram(edges)["counts"])[-2:] == [0, edges.count]
