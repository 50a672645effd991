"""How much of the network a search has tried: dying edges, dead units, rates.

A dying edge is one that no training forward of a cycle has selected ("Soft iEP: on the exploration inefficacy of
gradient-based strong lottery exploration", section 3). Which edges were selected is one bit each, ORed where the mask
is made; counting is a popcount of those bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supermask.edges.in_model import owned_edges, searched_edges
from supermask.edges.selection import selected_edges, selected_once
from supermask.kernels.base.bits import popcount, words_per_row
from supermask.networks.layers import MaskedLayer


@dataclass(frozen=True, kw_only=True)
class Dying:
    """Edges never selected, counted over the masks of every training forward since `track`.

    Attributes:
        edges: all edges of the masked layers.
        kept: edges selected at a time.
        survivors: edges that hard pruning left in the search space; all edges where there was none.
        ever: edges selected at least once.
    """

    edges: int
    kept: int
    survivors: int
    ever: int

    @property
    def ratio(self) -> float:
        """d: never selected, over all edges. For hard iEP the worst case, in which every removed edge is dying."""
        return (self.edges - self.ever) / self.edges

    @property
    def explored(self) -> float:
        """k - d: first masked but selected at least once, over all edges; k is 1 - remaining."""
        return (self.ever - self.kept) / self.edges

    @property
    def apparent(self) -> float:
        """Never selected among the survivors, over the survivors (dashed line of the soft iEP paper's Figure 5a)."""
        return (self.survivors - self.ever) / self.survivors

    @property
    def apparent_of_all(self) -> float:
        """Never selected among the survivors, over all edges."""
        return (self.survivors - self.ever) / self.edges


def track(model: nn.Module) -> None:
    """Start to record which edges training forwards select, from none."""
    for edges in searched_edges(model).values():
        words = words_per_row(edges.cols)
        edges.ever = torch.zeros(edges.rows, words, dtype=torch.int32, device=edges.scores.device)


def dying(model: nn.Module) -> Dying:
    """Dying edges since `track`.

    Raises:
        ValueError: `track` was not called on this network.
    """
    ever = sum(int(popcount(bits).sum()) for bits in ever_selected(model).values())
    return _count(model, ever)


def ever_selected(model: nn.Module) -> dict[str, Tensor]:
    """Packed bits of the edges selected since `track`, by layer."""
    bits = {}
    for name, edges in searched_edges(model).items():
        if edges.ever is None:
            raise ValueError(f"layer {name} records no selected edges: call measures.track(model) before training")
        bits[name] = edges.ever
    return bits


class Cumulative:
    """Dying edges over all cycles so far: the union of what each cycle selected.

    Attributes:
        ever: packed bits of the edges selected in any cycle, by layer.
    """

    def __init__(self, ever: Mapping[str, Tensor] | None = None) -> None:
        self.ever: dict[str, Tensor] = dict(ever or {})

    def add(self, model: nn.Module) -> Dying:
        """Take in the cycle that `track` began, and count over all cycles."""
        for name, bits in ever_selected(model).items():
            self.ever[name] = self.ever[name] | bits if name in self.ever else bits.clone()
        ever = sum(int(popcount(bits).sum()) for bits in self.ever.values())
        return _count(model, ever)


def dead_units(model: nn.Module) -> dict[str, int]:
    """By layer, the outputs without a single selected edge: units that have no input.

    With abs scores, batch norm and ReLU a dead unit is absorbing: no gradient reaches the scores into or out of it.
    """
    with selected_once(model):
        return {name: _dead(layer, edges.mask()) for name, (layer, edges) in owned_edges(model).items()}


def _dead(layer: nn.Module, mask: Tensor) -> int:
    """Of a layer of another make, whose rows are taken for its outputs, too."""
    return layer.dead_outputs(mask) if isinstance(layer, MaskedLayer) else int((popcount(mask) == 0).sum())


def _count(model: nn.Module, ever: int) -> Dying:
    layers = searched_edges(model).values()
    return Dying(
        edges=sum(edges.count for edges in layers),
        kept=sum(selected_edges(model).values()),
        survivors=sum(
            edges.count if edges.survivors is None else int(popcount(edges.survivors).sum()) for edges in layers
        ),
        ever=ever,
    )
