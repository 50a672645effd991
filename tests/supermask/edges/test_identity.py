"""The numbers by which state dicts say what their edges are made from."""

from typing import Any, get_args

import pytest
import torch

from supermask.edges.draws import WEIGHTS, Magnitude, WeightInit
from supermask.edges.identity import CODES
from supermask.edges.packed import SIGNED, PackedEdges
from supermask.edges.searched import SearchedEdges


def test_codes_stay_what_state_dicts_hold() -> None:
    """A new name is added to both sides with the next number; no line of this test changes."""
    pinned = {
        "signed_constant": 0,
        "scaled_signed_constant": 1,
        "unsigned_constant": 2,
        "kaiming_normal": 3,
        "kaiming_uniform": 4,
        "abs": 5,
        "raw": 6,
    }
    assert list(CODES.items()) == list(pinned.items())
    assert CODES.keys() == {*get_args(WeightInit), *get_args(Magnitude)}


def test_every_distribution_has_its_row() -> None:
    assert tuple(WEIGHTS) == get_args(WeightInit)
    assert SIGNED == ("signed_constant", "scaled_signed_constant")


@pytest.mark.parametrize(
    ("weights", "magnitude", "source"),
    [
        ("signed_constant", "abs", [-1, 7, 0, 0, 5]),
        ("scaled_signed_constant", "raw", [-1, 7, 0, 1, 6]),
        ("unsigned_constant", "abs", [-1, 7, 0, 2, 5]),
        ("kaiming_normal", "raw", [-1, 7, 0, 3, 6]),
        ("kaiming_uniform", "abs", [-1, 7, 0, 4, 5]),
    ],
)
def test_a_state_dict_as_older_releases_wrote_it_loads(weights: Any, magnitude: Any, source: list[int]) -> None:
    edges = SearchedEdges((2, 3), seed=2**64 - 1, layer=7, weights=weights, magnitude=magnitude)
    state = {
        "scores": torch.tensor([[0.5, -0.25, 0.125], [-1.0, 2.0, 0.0]]),
        "source": torch.tensor(source),
        "kept": torch.tensor([2]),
    }
    assert state.keys() == edges.state_dict().keys()
    edges.load_state_dict(state)
    assert torch.equal(edges.scores, state["scores"])
    assert int(edges.kept) == 2
    state["source"][3] += 1
    with pytest.raises(RuntimeError, match="source: the state dict is of edges with"):
        edges.load_state_dict(state)


def test_a_packed_state_dict_as_older_releases_wrote_it_loads() -> None:
    mask = torch.tensor([[0b101, 0, 0, 0], [0b010, 0, 0, 0]], dtype=torch.int32)
    place: Any = {"seed": 3, "layer": 1, "generation": 2, "weights": "unsigned_constant", "constant": 0.1}
    edges = PackedEdges((2, 3), torch.zeros_like(mask), **place)
    edges.load_state_dict({"source": torch.tensor([3, 1, 2, 2, 0x3DCCCCCD]), "packed": mask})
    assert torch.equal(edges.mask(), mask)


def test_a_code_that_this_release_has_no_name_for_is_refused_with_its_number() -> None:
    edges = SearchedEdges((2, 3), seed=0)
    state = edges.state_dict() | {"source": torch.tensor([0, 0, 0, 99, 5])}
    with pytest.raises(RuntimeError, match=r"\(0, 0, 0, 99, 'abs'\), these have \(0, 0, 0, 'signed_constant', 'abs'\)"):
        edges.load_state_dict(state)
