"""N of M: exactly n of every m inputs of an output, in every kind of layer, whatever the scores do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.edges.pattern import NOfM
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack
from supermask.methods import METHODS
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.methods.multicoated import Multicoated
from supermask.networks.allocation import Allocator
from supermask.networks.convert import convert
from tests.supermask.runs.small_runs import BASE, placed

TWO_OF_FOUR = EP(remaining=0.5, pattern=(2, 4))


def edges_of(shape: tuple[int, ...], method: EP = TWO_OF_FOUR, **given: Any) -> SearchedEdges:
    return method.edges(shape, **{"seed": 3, "layer": 1, "remaining": method.remaining, **given})


def by_hand(edges: SearchedEdges, n: int, m: int) -> np.ndarray[Any, Any]:
    """Group by group: sorted from the highest, the earlier of equals first."""
    scores = edges.scores.detach().double().numpy().reshape(edges.rows, -1, edges.cols // max(1, _inputs(edges)))
    scores = np.abs(scores) if edges.rule.rank else scores  # type: ignore[attr-defined]
    mask = np.zeros(scores.shape, dtype=bool)
    for row in range(scores.shape[0]):
        for position in range(scores.shape[2]):
            for start in range(0, scores.shape[1], m):
                group = scores[row, start : start + m, position]
                kept = n if len(group) == m else max(1, round(n / m * len(group)))
                mask[row, start + np.argsort(-group, kind="stable")[:kept], position] = True
    return mask.reshape(edges.rows, edges.cols)


def _inputs(edges: SearchedEdges) -> int:
    return edges.shape[1] if len(edges.shape) > 1 else 1


@given(
    pattern=st.sampled_from([(1, 1), (1, 2), (2, 4), (3, 4), (4, 8), (8, 8), (5, 32)]),
    shape=st.sampled_from([(3, 8), (5, 4, 3, 3), (2, 11), (3, 6, 2, 1), (4, 1), (2, 40), (7,), (3, 2, 5)]),
    tied=st.booleans(),
    magnitude=st.sampled_from(["abs", "raw"]),
)
def test_each_group_keeps_its_highest(pattern: Any, shape: Any, tied: bool, magnitude: Any) -> None:
    edges = edges_of(shape, EP(remaining=pattern[0] / pattern[1], pattern=pattern), magnitude=magnitude)
    if tied:
        with torch.no_grad():
            edges.scores.copy_((edges.scores * 3).round())
    mask = unpack(edges.mask(), edges.cols)
    assert (mask.numpy() == by_hand(edges, *pattern)).all()
    assert int(mask.sum()) == int(edges.kept[0])


@pytest.mark.parametrize("magnitude", ["abs", "raw"])
def test_the_gradient_is_edge_popup_s(magnitude: Any) -> None:
    grad = torch.randn(6, 8, 3, 3)
    found = []
    for method in (TWO_OF_FOUR, EP(remaining=0.5)):
        edges = edges_of((6, 8, 3, 3), method, magnitude=magnitude)
        edges(torch.float32).backward(grad)
        found.append(edges.scores.grad)
    one, other = found
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


def test_after_hard_pruning_a_group_keeps_what_is_left_of_it() -> None:
    edges = edges_of((1, 8))
    with torch.no_grad():
        edges.scores.copy_(torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]]))
    edges.remove_unselected()
    with torch.no_grad():
        edges.scores.copy_(torch.tensor([[1.0, 2, 9, 9, 1, 2, 9, 9]]))
    assert unpack(edges.mask(), 8).tolist() == [[True, True, False, False, True, True, False, False]]


def _network(method: EP, **given: Any) -> nn.Module:
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))
    return convert(dense, 0, remaining=0.5, edges=method.edges, **given)


def test_pinned_layers_are_in_no_pattern() -> None:
    model = _network(TWO_OF_FOUR, overrides={"first": 1.0})
    first, second, _ = searched_edges(model).values()
    assert first.remaining == 1
    assert isinstance(second.rule, NOfM)
    grouped: Tensor = unpack(second.mask(), second.cols).view(8, 2, 4, 9)
    assert (grouped.sum(2) == 2).all()


@pytest.mark.parametrize("label", ["EP", "IteRand", "random mask", "Biprop", "soft iEP"])
def test_a_run_of_any_method_ends_in_the_pattern(label: str, tmp_path: Path) -> None:
    method: Any = METHODS[label]
    changes = {"given": (0.5, 0.5)} if isinstance(method, IEP) else {"remaining": 0.5}
    method = replace(method, pattern=(2, 4), **changes)
    recipe = placed(replace(BASE, method=method, stages=None), tmp_path / "run")
    result = recipe.execute()
    assert result.tickets[0].same_logits
    assert result.cycles[-1].remaining == 0.5
    assert "pattern" in recipe.method.settings()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pattern": (5, 4)}, "pattern 5 of 4: expected 1 <= n <= m <= 32"),
        ({"pattern": (0, 4)}, "pattern 0 of 4"),
        ({"pattern": (2, 40)}, "pattern 2 of 40"),
        ({"pattern": (2, 4, 8)}, "expected two integers"),
        ({"pattern": (2, 4), "remaining": 0.3}, "remaining=0.3 with the pattern 2 of 4, which keeps 0.5"),
        ({"pattern": (2, 4), "ranking": "network"}, "with another ranking"),
        ({"pattern": (2, 4), "allocate": Allocator(kind="erk"), "anneal": "cubic"}, "another anneal and allocate"),
    ],
)
def test_what_a_pattern_cannot_be_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EP(**{"remaining": 0.5, **given})


def test_what_has_rates_of_its_own_takes_no_pattern() -> None:
    with pytest.raises(ValueError, match="coats have rates of their own"):
        Multicoated(pattern=(2, 4))
    with pytest.raises(ValueError, match=r"remaining=0\.8 with the pattern 2 of 4"):
        IEP(pattern=(2, 4))
