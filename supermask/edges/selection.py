"""One selection for all masked layers of a network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from supermask.edges.in_model import searched_edges
from supermask.edges.rules import Rule
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.keys import Threshold


class State:
    """What the mask and the weights of a layer are of at one moment: the tensors, where their data lie, how often torch
    has counted a write."""

    def __init__(self, edges: SearchedEdges) -> None:
        varying = (getattr(edges, name) for name in edges.varying)
        self.tensors = edges.scores, edges.kept, edges.constant, edges.signs, *varying
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
            Layers whose rule no fused step serves have the gradient of their scores in any case.

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
            through = (straight_through and edges.selection.straight_through) or not edges.rule.fused
            edges.select_by(replace(edges.selection, threshold=threshold, straight_through=through))
        yield
    finally:
        hook.remove()
        for edges, (_, selection) in zip(everything, before, strict=True):
            edges.select_by(selection)
    if not all(state.holds(edges) for edges, (state, _) in zip(everything, before, strict=True)):
        raise RuntimeError(stale)


@contextmanager
def selected_once(model: nn.Module) -> Iterator[None]:
    """`one_selection` for a network that is being searched; nothing for any other."""
    if any(isinstance(module, SearchedEdges) for module in model.modules()):
        with one_selection(model):
            yield
    else:
        yield


def selected_edges(model: nn.Module) -> dict[str, int]:
    """How many edges of each searched layer are selected at this moment; looks at scores only where a rule promises no
    number."""
    layers = searched_edges(model)
    with nullcontext() if all(edges.rule.fixed for edges in layers.values()) else one_selection(model):
        return {name: edges.selected for name, edges in layers.items()}


def _thresholds(
    everything: Sequence[SearchedEdges], found: Mapping[SearchedEdges, Found]
) -> dict[SearchedEdges, Threshold]:
    """The threshold of each layer: that of a block around this one, known, or selected, all of one rule in one call."""
    around = {edges: edges.selection.threshold for edges in everything}
    known = {edges: threshold for edges, threshold in around.items() if threshold is not None}
    known |= {
        edges: found[edges].threshold for edges in everything if edges in found and found[edges].state.holds(edges)
    }
    for rule, layers in by_rule(edges for edges in everything if edges not in known):
        known |= dict(zip(layers, rule.found(layers), strict=True))
    return known


def by_rule(everything: Iterable[SearchedEdges]) -> list[tuple[Rule, list[SearchedEdges]]]:
    """Each rule with its layers; those of other numbers of coats by themselves."""
    layers: dict[tuple[Rule, int], list[SearchedEdges]] = {}
    for edges in everything:
        layers.setdefault((edges.rule, len(edges.kept)), []).append(edges)
    return [(rule, of_rule) for (rule, _), of_rule in layers.items()]


def _place(tensor: Tensor) -> int:
    """Where the data lie; a tensor of another class may have none, as in a trace, and is told apart by what it is."""
    return tensor.data_ptr() if type(tensor) in (Tensor, nn.Parameter) else 0
