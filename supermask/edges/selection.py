"""The masked layers of a network, and one selection for all of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from supermask.edges.draws import Magnitude
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.select.op import select


class Found(NamedTuple):
    """A threshold that whoever changed the scores last has found on the way, and the state it holds for."""

    state: "State"
    tau: Tensor
    last_tied: Tensor


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


@contextmanager
def one_selection(model: nn.Module, found: Mapping[SearchedEdges, Found] = MappingProxyType({})) -> Iterator[None]:
    """Within the block every layer uses thresholds selected here in one call, in place of a call a layer.

    For one forward (and its backward): the scores must not change inside. On CPU every mask is counted, so that a write
    that torch does not see (into `.data`, through NumPy) cannot give a wrong one; on a GPU such writes go unnoticed.

    Args:
        found: thresholds known already; used where scores, kept count and survivors are still those they are of.

    Raises:
        RuntimeError: an optimiser that holds the scores steps inside the block, or scores, kept count or survivors
            changed in it.
    """
    everything = list(searched_edges(model).values())
    before = [State(edges) for edges in everything]
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
        unknown = []
        for edges in everything:
            known = found.get(edges)
            if known is not None and known.state.holds(edges):
                edges._threshold = known.tau, known.last_tied
            else:
                unknown.append(edges)
        for magnitude in get_args(Magnitude):
            _select_together([edges for edges in unknown if edges.magnitude == magnitude], magnitude == "abs")
        yield
    finally:
        hook.remove()
        for edges in everything:
            edges._threshold = None
    if not all(state.holds(edges) for state, edges in zip(before, everything, strict=True)):
        raise RuntimeError(stale)


def _select_together(layers: Sequence[SearchedEdges], absolute: bool) -> None:
    if not layers:
        return
    scores = [edges.scores.detach() for edges in layers]
    kept = torch.cat([edges.kept for edges in layers])
    tau, last_tied = select(scores, kept, [edges.survivors for edges in layers], absolute)
    for index, edges in enumerate(layers):
        edges._threshold = tau[index : index + 1], last_tied[index : index + 1]


def _place(tensor: Tensor) -> int:
    """Where the data lie; tensors without any, in a trace, are told apart by what they are alone."""
    return 0 if isinstance(tensor, FakeTensor) else tensor.data_ptr()
