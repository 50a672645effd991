"""Rules: what a subclass promises, ranking across layers; and the state that varies in a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from supermask.edges.in_model import searched_edges
from supermask.edges.rules import TopKept
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base.keys import Threshold
from supermask.kernels.select.op import select
from supermask.methods.multicoated import Multicoated
from supermask.networks.layers import SupermaskLinear
from supermask.tickets.errors import TicketError
from supermask.tickets.load import load
from supermask.tickets.save import save


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("kept", torch.tensor([[5]]), r"kept is torch.int64 of shape \(1, 1\): expected"),
        ("kept", torch.tensor(5), r"kept is torch.int64 of shape \(\): expected"),
        ("kept", torch.tensor([5.0]), r"kept is torch.float32 of shape \(1,\): expected"),
        ("kept", torch.tensor([5, 6]), "no coat keeps more than the one before"),
        ("flips", torch.zeros(4, 4, dtype=torch.int64), "flips are torch.int64: expected torch.int32"),
        ("flips", torch.zeros(4, 5, dtype=torch.int32), r"flips have shape \(4, 5\): expected \(4, 4\)"),
        ("base", torch.zeros(4, 16, dtype=torch.float64), "base are torch.float64: expected torch.float32"),
        ("base", torch.zeros(4, 17), r"base have shape \(4, 17\): expected \(4, 16\)"),
    ],
)
def test_a_state_dict_that_cannot_be_of_a_search_is_refused(name: str, value: Tensor, says: str) -> None:
    edges = SearchedEdges((4, 16), seed=0)
    with pytest.raises(RuntimeError, match=says):
        edges.load_state_dict({**edges.state_dict(), name: value})
    assert (edges.kept.tolist(), edges.flips, edges.base) == ([32], None, None)


def test_what_a_state_dict_brings_goes_where_the_old_one_lies() -> None:
    edges, other = SearchedEdges((4, 16), seed=0), SearchedEdges((4, 16), seed=0, remaining=0.25)
    for each in (edges, other):
        each.make_room_for_draws()
        each.remove_unselected()
    places = {name: buffer.data_ptr() for name, buffer in edges.named_buffers() if name != "constant"}
    edges.load_state_dict(other.state_dict())
    assert torch.equal(edges(torch.float32), other(torch.float32))
    assert {name: edges.get_buffer(name).data_ptr() for name in places} == places


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_buffers_keep_their_dtype_whatever_the_network_is_cast_to(dtype: torch.dtype) -> None:
    edges = Multicoated().edges((20, 30), seed=0, remaining=0.3)
    kept = edges.kept.tolist()
    edges.to(dtype)
    edges.remaining = 0.3
    assert edges.kept.tolist() == kept
    assert {name: buffer.dtype for name, buffer in edges.named_buffers()}["shares"] is torch.float64
    assert edges.scores.dtype is torch.float32


def test_a_rule_with_keys_or_thresholds_of_its_own_promises_nothing_by_itself() -> None:
    class Inverse(TopKept):
        def keys(self, edges: SearchedEdges) -> Tensor:
            return -edges.scores

    class Named(TopKept):
        pass

    assert (Inverse.fixed, Inverse.fused, Named.fixed, Named.fused) == (False, False, True, True)


@dataclass(frozen=True, kw_only=True)
class Together(TopKept):
    """The highest of all layers in one ranking."""

    together: ClassVar[bool] = True

    def thresholds(self, layers: Sequence[SearchedEdges]) -> list[Threshold]:
        scores = torch.cat([edges.scores.detach().flatten() for edges in layers])[None]
        kept = torch.cat([edges.kept for edges in layers]).sum(0, keepdim=True)
        tau, last = select([scores], kept, [None], self.absolute)
        before, found = 0, []
        for edges in layers:
            found.append(Threshold(tau, (last - before).clamp(-1, edges.count - 1)))
            before += edges.count
        return found


def test_a_rule_over_all_layers_selects_with_all_of_them_or_not_at_all(tmp_path: Path) -> None:
    model = nn.Sequential(*(SupermaskLinear(30, 30, seed=0, layer=i, rule=Together(), remaining=0.2) for i in (0, 1)))
    with torch.no_grad():
        model[0].edges.scores.mul_(3)
    with pytest.raises(RuntimeError, match=r"go within `with supermask.one_selection\(model\)`"):
        model(torch.ones(1, 30))
    with one_selection(model):
        logits = model(torch.ones(1, 30))
        counts = [edges.selected for edges in searched_edges(model).values()]
    assert sum(counts) == 360
    assert counts[0] > 2 * counts[1]
    save(model, tmp_path / "t.safetensors", architecture=None)
    empty = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 30, bias=False))
    loaded = load(tmp_path / "t.safetensors", model=empty, weights="cached")
    assert torch.equal(loaded(torch.ones(1, 30)), logits)


def test_coats_that_do_not_nest_are_named_so_when_they_are_stored(tmp_path: Path) -> None:
    class Apart(TopKept):
        """A wider second coat."""

        def counts(self, edges: SearchedEdges, remaining: float) -> list[int]:
            return [100, 100]

        def thresholds(self, layers: Sequence[SearchedEdges]) -> list[Threshold]:
            wide, narrow = (select([layers[0].scores.detach()], torch.tensor([kept]), [None]) for kept in (300, 100))
            return [Threshold(*(torch.cat([a, b]) for a, b in zip(narrow, wide, strict=True)))]

    model = nn.Sequential(SupermaskLinear(30, 30, seed=0, rule=Apart()))
    with pytest.raises(TicketError, match="layer '0': its coats are not nested"):
        save(model, tmp_path / "t.safetensors", architecture=None)
