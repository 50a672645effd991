"""Sampled supermasks: each forward draws its mask, an edge with the probability that is the sigmoid of its score."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from supermask.checks import check_choice
from supermask.edges.exact import version
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import Rule, above
from supermask.edges.searched import SearchedEdges
from supermask.edges.sigmoid import WHOLE, of_2_24, table
from supermask.edges.stored import NotStorable, Stored
from supermask.kernels.base import philox
from supermask.kernels.base.bits import popcount, unpack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.theta import Theta
from supermask.methods.cycles import Cycle
from supermask.methods.method import Method, check_unrated

Ends = Literal["rounded", "drawn"]
ROUNDED, TRAINING, EVALUATION = 0, 5, 6
"""What a mask is drawn for: nothing, which rounds probabilities, or a purpose of the generator."""
MOST = 1 << 22  # generations that the generator has of a purpose


class _Margin(torch.autograd.Function):
    """By how much of 2^24 a draw is below the probability of its edge: exact, above 0 where it is selected. Backward is
    straight through the draw: that of the probability."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, drawn: Tensor, levels: Tensor) -> Tensor:
        chances = of_2_24(scores, levels)
        ctx.save_for_backward(chances)
        return (chances - drawn.view(scores.shape)).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (chances,) = ctx.saved_tensors
        return grad * _slope(chances), None, None


class _Total(torch.autograd.Function):
    """`weight` as it is; backward adds what the selected edges' number, by which `weight` is divided, has of it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, selected: Tensor, chances: Tensor) -> Tensor:
        ctx.save_for_backward(weight, selected, chances)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, selected, chances = ctx.saved_tensors
        share = (grad.float() * weight.float()).sum() / selected.clamp(min=1)
        return grad, -share * _slope(chances), None, None


def _slope(chances: Tensor) -> Tensor:
    """p (1 - p), the sigmoid's."""
    p = chances.float() / WHOLE
    return p * (1 - p)


@dataclass(frozen=True, kw_only=True)
class Sampling(Rule):
    """Edges whose draw is below their probability, at no fixed rate."""

    absolute: bool = False

    def keys(self, edges: SearchedEdges) -> Tensor:
        assert isinstance(edges, DrawnEdges)
        margin: Tensor = _Margin.apply(edges.scores, edges.drawn, edges.levels)
        return margin

    def thresholds(self, layers: Sequence[SearchedEdges]) -> list[Threshold]:
        zero = torch.zeros(1, dtype=torch.int32, device=layers[0].scores.device)  # the key of 0
        return [above(zero) for _ in layers]


class DrawnEdges(SearchedEdges):
    """Edges that a draw selects: m = 1 with probability sigmoid(s), anew for each training step.

    dL/ds = dL/dw * theta0 * p (1 - p), the identity through the draw. With `scaling` a layer's weights are multiplied
    by edges / selected, whose gradient counts.

    Attributes:
        moment: what for, and in which generation, the present mask is drawn; int64 [2].
        drawn: the integers that it is drawn by, int32 [rows, cols] in [0, 2^24); made of `moment`.
        levels: the table of the sigmoid.
    """

    varying: ClassVar[Mapping[str, torch.dtype]] = {**SearchedEdges.varying, "moment": torch.int64}

    exact = (*SearchedEdges.exact, "moment")

    moment: Tensor
    drawn: Tensor
    levels: Tensor

    def __init__(self, shape: Sequence[int], *, scaling: bool, **given: Any) -> None:
        self._scaling = scaling
        super().__init__(shape, rule=Sampling(), **given)

    @torch.no_grad()
    def draw(self, purpose: int, generation: int = 0) -> None:
        """Draw the mask again, by (seed, layer, purpose, generation); purpose 0 selects where p is above a half."""
        self.moment[0].fill_(purpose)
        self.moment[1].fill_(generation)
        self._draw(purpose, generation)
        self._know()

    def _draw(self, purpose: int, generation: int) -> None:
        if purpose == ROUNDED:
            self.drawn.fill_(WHOLE // 2)
        else:
            place = self.seed, self.layer, self.rows, self.cols
            given: dict[str, Any] = {"purpose": purpose, "generation": generation, "device": self.drawn.device}
            self.drawn.copy_(philox.uniform(*place, low=0.0, high=1.0, **given) * WHOLE)
        self._writes = self._written()

    def _keep(self) -> None:
        super()._keep()
        device = self.constant.device
        if self._buffers["moment"] is None or self._unknown():
            self.moment = torch.tensor([TRAINING, 0], device=device)
        drawn = torch.empty(self.rows, self.cols, dtype=torch.int32, device=device)
        self.register_buffer("drawn", drawn, persistent=False)
        self.register_buffer("levels", torch.tensor(table(), dtype=torch.int32, device=device), persistent=False)
        if not self.constant.is_meta:
            self._draw(*self.moment.tolist())

    def _subnet(self, dtype: torch.dtype, ever: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, mask = super()._subnet(dtype, ever)
        if self._scaling:
            chances = self._left(of_2_24(self.scores.detach(), self.levels))
            weight = _Total.apply(weight, self.scores, popcount(mask).sum(), chances)
        return weight, mask

    def _left(self, values: Tensor) -> Tensor:
        """`values` of the edges that hard pruning left, and zero elsewhere."""
        if self.survivors is None:
            return values
        return values * unpack(self.survivors, self.cols).view(self.shape)

    def theta(self) -> Theta:
        theta = super().theta()
        if not self._scaling:
            return theta
        selected = self._left(self.rule.keys(self).detach() > 0).sum().clamp(min=1)
        return theta._replace(constant=(theta.constant.double() * self.count / selected).float())

    @torch.no_grad()
    def stored(self) -> Stored:
        found = super().stored()
        if self.moment.tolist()[0] == TRAINING:
            raise NotStorable(
                "its mask is of one training step: a ticket holds the rounded mask or one of evaluation's: call "
                "edges.draw(0) or edges.draw(6, n), as Sampled does where its search ends"
            )
        return replace(found, values={**found.values, "constant": float(self.theta().constant)})

    def expected(self) -> float:
        """How many edges a draw selects in the mean."""
        return float(self._left(of_2_24(self.scores.detach(), self.levels)).sum()) / WHOLE

    def _unknown(self) -> bool:
        """Whether the state is still to be loaded: these edges came from the meta device."""
        return self._is_real() and math.isnan(float(self.constant))

    def check_made(self) -> None:
        super().check_made()
        if self._writes not in (None, self._written()):
            raise NotStorable(
                "`drawn` or `moment` was written to, and the first is made of the second: call edges.draw(purpose, "
                "generation)"
            )

    def _written(self) -> tuple[int, int]:
        return version(self.drawn), version(self.moment)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_writes": None}  # a copy counts its own

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        if self._is_real():
            self._draw(*self.moment.tolist())

    def _misfits(self, state_dict: Mapping[str, Any], prefix: str) -> Iterator[str]:
        yield from super()._misfits(state_dict, prefix)
        moment = state_dict.get(prefix + "moment")
        if moment is None or moment.is_meta:
            return
        found = moment.tolist()
        if moment.shape != (2,) or found[0] not in (ROUNDED, TRAINING, EVALUATION) or not 0 <= found[1] < MOST:
            yield (
                f"moment is {found}: expected what for ({ROUNDED}, {TRAINING} or {EVALUATION}) and a generation from 0 "
                f"to {MOST - 1}"
            )

    def _room(self, old: Tensor | None, found: Tensor | None, *, required: bool) -> Tensor | None:
        return super()._room(old, found, required=required or old is self._buffers["moment"])

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"scaling": int(self._scaling)}


@dataclass(frozen=True, kw_only=True, repr=False)
class Sampled(Method):
    """Sampled supermasks: a mask is drawn for each step, an edge with probability sigmoid(s).

    Zhou et al. 2019, "Deconstructing lottery tickets", section 5. A draw is a function of (seed, layer, step), and is
    compared in integers with one table of the sigmoid (supermask/edges/sigmoid.py), so that all processes and devices
    draw alike. A cycle is evaluated over several draws; one without a step follows, of the mask that the ticket holds.

    Weights are a constant with the seed's sign, so that a ticket can hold what `scaling` makes of them; the paper's
    constant is the standard deviation of a layer's Glorot-normal draw. Its variant that rounds half of the edges in
    training, and leaves the others soft, is not here.

    Attributes:
        length: how many times the schedule's epochs the search takes.
        draws: over which a cycle's accuracy is the mean; its standard deviation is the measure `spread`.
        scaling: multiply a layer's weights by its edges over the selected ones ("dynamic scaling").
        ends: what the ticket holds: probabilities rounded, or evaluation's first draw.
    """

    choices: ClassVar[Mapping[str, Any]] = {**Method.choices, "scores": "zero", "magnitude": "raw"}
    paper: ClassVar[str] = "Zhou et al. 2019"

    length: int = 1
    draws: int = 10
    scaling: bool = False
    ends: Ends = "rounded"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ends", self.ends, Ends)
        for name in ("length", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least one")

    def phases(self) -> tuple[Cycle, ...]:
        search = Cycle(remaining=None, length=self.length)
        return (search, Cycle(remaining=None, scores="inherit", length=0))

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        chosen = {**self.choices, **given}
        if chosen["magnitude"] != "raw":
            raise ValueError(f"magnitude={chosen['magnitude']!r}: a score is the log odds of its edge, 'raw'")
        if self.scaling and chosen["weights"] in ("kaiming_normal", "kaiming_uniform"):
            raise ValueError(
                f"weights={chosen['weights']!r} with scaling: a ticket has no factor of real weights; convert with a "
                "signed constant"
            )
        check_unrated(self, chosen)
        return DrawnEdges(shape, scaling=self.scaling, **chosen)

    @torch.no_grad()
    def begin(self, model: nn.Module, cycle: Cycle, number: int, initial: Mapping[str, Tensor]) -> None:
        super().begin(model, cycle, number, initial)
        if number > 1:
            for edges in sampled(model):
                edges.draw(ROUNDED if self.ends == "rounded" else EVALUATION)

    def before_step(self, model: nn.Module, step: int) -> None:
        if step >= MOST:
            raise ValueError(f"step {step}: sampled supermasks draw for {MOST:,} steps at most; take larger batches")
        for edges in sampled(model):
            edges.draw(TRAINING, step)

    def evaluate(self, model: nn.Module, accuracy: Callable[[], float]) -> Mapping[str, float]:
        layers = [edges for edges in model.modules() if isinstance(edges, DrawnEdges)]
        moments = [edges.moment.tolist() for edges in layers]
        if all(purpose != TRAINING for purpose, _ in moments):
            return {"accuracy": accuracy()}
        found = []
        try:
            for number in range(self.draws):
                for edges in layers:
                    edges.draw(EVALUATION, number)
                found.append(accuracy())
        finally:
            for edges, moment in zip(layers, moments, strict=True):
                edges.draw(*moment)
        density = sum(edges.expected() for edges in layers) / sum(edges.count for edges in layers)
        return {"accuracy": fmean(found), "spread": pstdev(found), "density": density}


def sampled(model: nn.Module) -> list[DrawnEdges]:
    """The layers of `model` whose masks are drawn."""
    return [edges for edges in searched_edges(model).values() if isinstance(edges, DrawnEdges)]
