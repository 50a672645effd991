"""What a search has to beat: masks that no step was taken for.

A network with a random mask is a random sparse network, batch norms at their initial statistics; its accuracy with
recalibrated ones stands beside it in every evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supermask.edges.draws import shuffled
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.edges.selection import one_selection
from supermask.kernels.base.bits import unpack
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.methods.method import Method


@dataclass(frozen=True, kw_only=True, repr=False)
class Untrained(EP):
    """Edge-popup that takes no step: its `length` is 0."""

    paper: ClassVar[str] = "baseline"

    length: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length:
            raise ValueError(f"length={self.length}: {type(self).__name__} takes no step; EP takes some")


@dataclass(frozen=True, kw_only=True, repr=False)
class RandomMask(Untrained):
    """A random mask: initial scores are drawn apart from the weights, so the highest of them are edges at random."""


@dataclass(frozen=True, kw_only=True, repr=False)
class InitialMagnitude(Untrained):
    """The largest of the initial weights: magnitude pruning before any training.

    For weights that have magnitudes; all are equal where they are constants with a sign.
    """

    choices: ClassVar[Mapping[str, Any]] = {**Method.choices, "weights": "kaiming_normal"}

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        edges = super().edges(shape, **given)
        if edges.real is None:
            raise ValueError(
                f"weights={edges.weights!r} all have one magnitude: choose 'kaiming_normal' or another distribution of "
                "real weights"
            )
        if (magnitude := {**self.choices, **given}["magnitude"]) != "abs":
            raise ValueError(f"magnitude={magnitude!r}: scores are the initial weights, so edges rank by 'abs'")
        return edges

    @torch.no_grad()
    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        super().begin(model, cycle, number, initial)
        for edges in searched_edges(model).values():
            drawn = edges.theta().made(edges.rows, edges.cols, edges.scores.device).base
            if drawn is not None:  # as it is for all that `edges` takes
                edges.scores.copy_(drawn.view(edges.shape))


@dataclass(frozen=True, kw_only=True, repr=False)
class Shuffled(IEP):
    """The mask of a search, its edges put elsewhere in their layers: what is left is how many each layer keeps.

    After the cycles of an iteration (with `cycles` 1, of edge-popup) comes one without a step, in which the selected
    edges of each layer lie in an order drawn from the seed.
    """

    paper: ClassVar[str] = "baseline, after Frankle et al. 2021"

    def phases(self) -> tuple[Cycle, ...]:
        cycles = super().phases()
        return (*cycles, Cycle(remaining=cycles[-1].remaining, scores="inherit", length=0, allocate=self.allocate))

    @torch.no_grad()
    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        if number < len(self.phases()):
            super().begin(model, cycle, number, initial)
            return
        layers = searched_edges(model).values()
        with one_selection(model):
            masks = [unpack(edges.mask(), edges.cols) for edges in layers]
        for edges, mask in zip(layers, masks, strict=True):
            edges.survivors = None
            order = shuffled(edges.seed, edges.layer, edges.rows, edges.cols, device=mask.device)
            edges.scores.copy_(mask.flatten()[order].view(edges.shape))
