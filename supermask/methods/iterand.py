"""IteRand: edge-popup whose unselected weights are drawn again from time to time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from supermask.edges.draws import chosen
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.methods.edge_popup import EP
from supermask.methods.method import Method


@dataclass(frozen=True, kw_only=True, repr=False)
class IteRand(EP):
    """Iterative randomisation: unselected weights are drawn again every so many steps.

    Before the forward of every `every`-th step each edge that is not selected has its weight drawn again with
    probability `chance`; a signed constant draws its sign, so it flips with half of that (Chijiwa et al. 2021, "Pruning
    randomly initialized neural networks with iterative randomization", section 3).

    Draws are functions of (seed, event): all processes of a run agree, and a run that goes on draws the same. The paper
    ranks by the score itself and draws scores sqrt(6) times as wide as edge-popup's.

    Attributes:
        every: steps from one event to the next: 300 on CIFAR, 1000 on ImageNet in the paper.
        chance: that an unselected edge is drawn again at an event.
    """

    choices: ClassVar[Mapping[str, Any]] = {**Method.choices, "scores": "kaiming_uniform_relu", "magnitude": "raw"}
    paper: ClassVar[str] = "Chijiwa et al. 2021"

    remaining: float = 0.4
    every: int = 300
    chance: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every={self.every}: expected steps from one event to the next, at least one")
        if not 0 <= self.chance <= 1:
            raise ValueError(f"chance={self.chance}: expected a probability, from 0 to 1")

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        edges = super().edges(shape, **given)
        edges.make_room_for_draws()
        return edges

    def before_step(self, model: nn.Module, step: int) -> None:
        event, since = divmod(step + 1, self.every)
        if since:
            return
        layers = searched_edges(model).values()
        with one_selection(model):
            selected = [edges.mask() for edges in layers]
        for edges, mask in zip(layers, selected, strict=True):
            place = edges.seed, edges.layer, edges.rows, edges.cols
            hit = chosen(*place, self.chance, generation=event, device=edges.scores.device)
            edges.draw_weights(hit & ~mask, event)
