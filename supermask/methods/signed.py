"""Signed supermasks: a score's size says whether its edge is selected, and its sign turns the edge's weight."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from supermask.checks import SearchWarning
from supermask.edges.draws import WEIGHTS
from supermask.edges.rules import Rule, above
from supermask.edges.searched import SearchedEdges
from supermask.edges.stored import Stored
from supermask.kernels.base.bits import pack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.theta import Theta
from supermask.methods.cycles import Cycle
from supermask.methods.method import Method, check_unrated
from supermask.training.training import Training

ELUS = math.sqrt(1.5)
"""Times the constant sqrt(2 / fan_in): that of the paper's networks, whose activation is ELU."""


@dataclass(frozen=True, kw_only=True)
class AboveTau(Rule):
    """Edges whose score is larger than their layer's `tau`, whatever its sign; at no fixed rate."""

    def thresholds(self, layers: Sequence[SearchedEdges]) -> list[Threshold]:
        found = []
        for edges in layers:
            assert isinstance(edges, SignedEdges)
            found.append(above(edges.tau.view(torch.int32)))  # the key of a magnitude is its bit pattern
        return found


class SignedEdges(SearchedEdges):
    """Edges that weigh theta0 * sign(s) where |s| is above `tau`, and nothing elsewhere.

    A score moves by dL/dw * theta0, whatever its sign: the straight-through gradient of ranking by |s|, through a
    theta0 that the sign has turned.

    Args:
        share: of the largest initial |score|, which is tau.
        gain: of the constant.
        given: of `SearchedEdges`; weights are a constant with the seed's sign.

    Attributes:
        tau: float32 [1], of the first draw of the scores; it stays what it is.
    """

    tau: Tensor

    def __init__(self, shape: Sequence[int], *, share: float, gain: float, **given: Any) -> None:
        self._gain = gain
        super().__init__(shape, rule=AboveTau(), **given)
        self.register_buffer("tau", self.scores.detach().abs().max().view(1) * share)

    def theta(self) -> Theta:
        theta = super().theta().scaled(self._gain)
        negative = pack((self.scores.detach() < 0).view(self.rows, self.cols))
        return theta._replace(signs=theta.words(self.rows, self.cols, negative.device) ^ negative)

    @torch.no_grad()
    def stored(self) -> Stored:
        found = super().stored()
        turned = pack((self.scores < 0).view(self.rows, self.cols))
        if self.flips is not None:
            turned = turned ^ self.flips
        return replace(
            found,
            planes={**found.planes, "flips": turned & found.planes["mask"]},
            values={**found.values, "constant": float(self.theta().constant)},
        )

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"gain": self._gain}


@dataclass(frozen=True, kw_only=True, repr=False)
class Signed(Method):
    """Signed supermasks: masks in {-1, 0, 1} at no fixed rate.

    Koster et al. 2022, "Signing the supermask: keep, hide, invert". What decides how many edges are selected is the
    decay of scores towards the threshold, which is decoupled from the gradient: `Training(optimiser="sgdw")`, whose
    decay is lr * weight_decay a step. The paper's decay is not multiplied by the rate: its 3e-4 at lr 0.005 is
    weight_decay 0.06 here.

    Attributes:
        length: how many times the schedule's epochs the search takes.
        share: of the largest initial |score| of a layer, which is its threshold. With Xavier-uniform scores 1 - share
            of the edges are selected at first.
        gain: times the constant sqrt(2 / fan_in).
    """

    choices: ClassVar[Mapping[str, Any]] = {**Method.choices, "scores": "xavier_uniform"}
    paper: ClassVar[str] = "Koster et al. 2022"

    length: int = 1
    share: float = 0.4
    gain: float = ELUS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ValueError(f"length={self.length}: expected how often the search takes the schedule, at least once")
        if not 0 <= self.share < 1:
            raise ValueError(f"share={self.share}: expected a part of the largest score, from 0 to below 1")
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"gain={self.gain}: expected a positive number")

    def phases(self) -> tuple[Cycle, ...]:
        return (Cycle(remaining=None, length=self.length),)

    def optimiser(self, model: nn.Module, training: Training, cycle: Cycle) -> torch.optim.Optimizer:
        if training.optimiser in ("sgd", "adam"):
            warnings.warn(
                f"signed supermasks with optimiser={training.optimiser!r}, whose weight decay is not decoupled: scores "
                "hardly decay towards the threshold, and masks stay about as dense as they begin; the paper's is "
                "optimiser='sgdw'",
                SearchWarning,
                stacklevel=2,
            )
        return super().optimiser(model, training, cycle)

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        chosen = {**self.choices, **given}
        if chosen["magnitude"] != "abs":
            raise ValueError(f"magnitude={chosen['magnitude']!r}: a score's sign turns its weight; ranked is 'abs'")
        if not WEIGHTS[chosen["weights"]].signed:
            raise ValueError(
                f"weights={chosen['weights']!r} have no sign that a ticket could turn: convert with a signed constant"
            )
        check_unrated(self, chosen)
        return SignedEdges(shape, share=self.share, gain=self.gain, **chosen)
