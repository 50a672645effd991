"""One selection for all masked layers of a network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from supermask.edges.draws import Magnitude
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.keys import Threshold
from supermask.kernels.select.op import select


class State:
    """The scores, kept count and survivors of a layer at one moment: the tensors, where their data lie, how often torch
    has counted a write."""

    def __init__(self, edges: SearchedEdges) -> None:
        self.tensors = edges.scores, edges.kept, edges.survivors
        self.marks = [None if t is None else (_place(t), t._version) for t in self.tensors]

    def holds(self, edges: SearchedEdges) -> bool:
        """Whether `edges` are in this state still."""
        now = State(edges)
        same = all(a is b for a, b in zip(self.tensors, now.tensors, strict=True))
        return same and self.marks == now.marks


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A threshold that whoever changed the scores last has found on the way, and the state it is of."""

    state: State
    threshold: Threshold


@contextmanager
def one_selection(
    model: nn.Module, found: Mapping[SearchedEdges, Found] = MappingProxyType({}), *, straight_through: bool = True
) -> Iterator[None]:
    """Within the block every layer uses thresholds selected here in one call, in place of a call a layer.

    For one forward (and its backward): the scores must not change inside. On CPU every mask is counted, so that a write
    that torch does not see (into `.data`, through NumPy) cannot give a wrong one; on a GPU such writes go unnoticed.

    Args:
        found: thresholds known already; used where scores, kept count and survivors are still those they are of.
        straight_through: as in `supermask.edges.searched.Selection`; a block within one that says False is as that.

    Raises:
        RuntimeError: an optimiser that holds the scores steps inside the block, or scores, kept count or survivors
            changed in it.
    """
    everything = list(searched_edges(model).values())
    before = [(State(edges), edges.selection) for edges in everything]
    scores = {id(edges.scores) for edges in everything}
    stale = (
        "a step, or a change of scores, remaining or survivors, within one_selection or searching: close the block "
        "before a step"
    )

    def refuse(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        if any(id(parameter) in scores for group in optimiser.param_groups for parameter in group["params"]):
            raise RuntimeError(stale)

    hook = register_optimizer_step_pre_hook(refuse)  # fused optimisers leave version counters alone
    try:
        for edges, threshold in _thresholds(everything, found).items():
            through = straight_through and edges.selection.straight_through
            edges.select_by(replace(edges.selection, threshold=threshold, straight_through=through))
        yield
    finally:
        hook.remove()
        for edges, (_, selection) in zip(everything, before, strict=True):
            edges.select_by(selection)
    if not all(state.holds(edges) for edges, (state, _) in zip(everything, before, strict=True)):
        raise RuntimeError(stale)


def _thresholds(
    everything: Sequence[SearchedEdges], found: Mapping[SearchedEdges, Found]
) -> dict[SearchedEdges, Threshold]:
    """The threshold of each layer: known, or selected, all of one magnitude in one call."""
    known = {
        edges: found[edges].threshold for edges in everything if edges in found and found[edges].state.holds(edges)
    }
    for magnitude in get_args(Magnitude):
        layers = [edges for edges in everything if edges not in known and edges.magnitude == magnitude]
        if layers:
            scores = [edges.scores.detach() for edges in layers]
            kept = torch.cat([edges.kept for edges in layers])
            selected = select(scores, kept, [edges.survivors for edges in layers], magnitude == "abs")
            known |= dict(zip(layers, split(selected), strict=True))
    return known


def split(thresholds: Threshold) -> list[Threshold]:
    """The threshold of each layer, [1] or [coats], of those of several."""
    rows = (each.view(len(each), -1).unbind() for each in thresholds)
    return [Threshold(tau=tau, last_tied=last_tied) for tau, last_tied in zip(*rows, strict=True)]


def _place(tensor: Tensor) -> int:
    """Where the data lie; a tensor of another class may have none, as in a trace, and is told apart by what it is."""
    return tensor.data_ptr() if type(tensor) in (Tensor, nn.Parameter) else 0
