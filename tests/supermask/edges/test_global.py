"""One ranking over all layers: it keeps what a stable sort of all scores does, ties and removed edges included."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from supermask.edges.draws import kept_count
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import GlobalTopKept
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import pack, unpack
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from tests.devices import DEVICE


class Ranked(SearchedEdges):
    """Ranked over the network, by magnitude or not as `magnitude` says."""

    def __init__(self, shape: tuple[int, ...], *, magnitude: str = "abs", **given: object) -> None:
        rule = GlobalTopKept(absolute=magnitude == "abs")
        super().__init__(shape, **{**given, "rule": rule})  # type: ignore[arg-type]


def network(absolute: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 40), nn.Linear(40, 3))
    return convert(model, 1, edges=Ranked, magnitude="abs" if absolute else "raw").to(DEVICE)


def masks(model: nn.Module) -> torch.Tensor:
    layers = searched_edges(model).values()
    with one_selection(model):
        return torch.cat([unpack(edges.mask(), edges.cols).flatten().bool() for edges in layers]).cpu()


@given(
    st.booleans(), st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans(),
    st.tuples(*[st.floats(0.05, 0.9)] * 3),
)  # fmt: skip
def test_it_keeps_what_a_sort_of_all_does(
    absolute: bool, seed: int, values: int, pruned: bool, rates: tuple[float, ...]
) -> None:
    model, draw = network(absolute), torch.Generator().manual_seed(seed)
    layers = list(searched_edges(model).values())
    every, alive = [], []
    for edges, rate in zip(layers, rates, strict=True):
        drawn = torch.randint(-values, values + 1, edges.shape, generator=draw).float()  # many ties, zeros too
        left = torch.rand(edges.rows, edges.cols, generator=draw) < 0.5
        left[0] = True
        with torch.no_grad():
            edges.scores.copy_(drawn)
        if pruned:
            edges.survivors = pack(left).to(DEVICE)
        edges.remaining = min(rate, float(left.float().mean()) * 0.9) if pruned else rate
        every.append(drawn.flatten())
        alive.append(left.flatten() if pruned else torch.ones_like(left).flatten())
    scores, left = torch.cat(every), torch.cat(alive)
    keys = torch.where(left, scores.abs() if absolute else scores, -torch.inf)
    kept = sum(int(edges.kept[0]) for edges in layers)
    wanted = torch.zeros_like(left)
    wanted[keys.sort(descending=True, stable=True).indices[:kept]] = True
    assert torch.equal(masks(model), wanted)
    assert int(masks(model).sum()) == kept


def test_a_layer_may_keep_none() -> None:
    model = network(absolute=True)
    first, *others = searched_edges(model).values()
    with torch.no_grad():
        first.scores.zero_()
        for edges in others:
            edges.scores.fill_(1.0)
    assert not masks(model)[: first.count].any()


def test_pinned_layers_keep_their_own_and_are_ranked_by_themselves() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 40), nn.Linear(40, 3))
    model = convert(model, 1, edges=Ranked, remaining=0.2, overrides={"2": 1.0, "0": 0.4}).to(DEVICE)
    layers = searched_edges(model)
    with one_selection(model):
        kept = {name: edges.selected for name, edges in layers.items()}
    assert kept == {"0": 14, "1": 56, "2": 120}
    with torch.no_grad():
        layers["1"].scores.mul_(1e-3)  # which takes nothing from it, being all that is ranked
    with one_selection(model):
        assert {name: edges.selected for name, edges in layers.items()} == kept
        best = layers["0"].scores.detach().abs().flatten().sort(descending=True, stable=True).indices[:14].cpu()
        assert set(unpack(layers["0"].mask(), 5).flatten().nonzero().flatten().tolist()) == set(best.tolist())


def test_the_network_s_total_is_exact_where_each_layer_s_rounding_is_not() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model = convert(model, 1, edges=Ranked, remaining=0.5)  # 13.5 edges, and 4.5 of each layer
    assert int(masks(model).sum()) == 14
    set_remaining(model, 0.4)
    assert int(masks(model).sum()) == 11


def test_hard_pruning_bounds_the_network_and_no_layer() -> None:
    model = network(absolute=True)
    first, *others = searched_edges(model).values()
    with torch.no_grad():
        first.scores.zero_()
    set_remaining(model, 0.9)
    with one_selection(model):
        left = [edges.mask() for edges in (first, *others)]
    for edges, mask in zip((first, *others), left, strict=True):
        edges.survivors = mask
    assert int(unpack(left[0], 5).sum()) == 0  # less than its part of any rate
    set_remaining(model, 0.85)
    assert int(masks(model).sum()) == kept_count(0.85, 435)
    with pytest.raises(ValueError, match=r"remaining=0.95 keeps 413 edges of the network, but hard pruning left 392"):
        set_remaining(model, 0.95)


def test_a_layer_by_itself_cannot_rank_the_network() -> None:
    (edges, *_) = searched_edges(network(absolute=True)).values()
    with pytest.raises(RuntimeError, match=r"together|one_selection"):
        edges.mask()
