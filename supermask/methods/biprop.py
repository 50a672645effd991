"""Biprop: edge-popup over binarised weights, the signs of a layer times one number that follows its mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from supermask.checks import check_choice
from supermask.edges.draws import real_weights
from supermask.edges.exact import version
from supermask.edges.searched import SearchedEdges
from supermask.edges.stored import NotStorable, Stored
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.op import selected
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP

Draw = Literal["kaiming_normal", "kaiming_uniform"]
_STEPS = 19  # bits of a magnitude below the distribution's standard deviation


class BinarisedEdges(SearchedEdges):
    """Edges that weigh sign(W) * alpha, alpha the mean |W| of the selected ones; scores move by the gradient of W.

    W has the edges' signs (the seed's, turned where they were flipped) and the magnitudes of a draw of real numbers.
    These are rounded to a grid of 2^-19 to 2^-20 of their standard deviation, so that their sums are exact in float64,
    and alpha is the same in whichever order a device adds.

    Args:
        draw: of the magnitudes.
        given: of `SearchedEdges`; weights are a signed constant.

    Attributes:
        drawn: |W|, float32 [rows, cols]; made from the seed, and in no state dict.
    """

    drawn: Tensor

    def __init__(self, shape: Sequence[int], *, draw: Draw, **given: Any) -> None:
        self._draw: Draw = draw
        super().__init__(shape, **given)

    def alpha(self) -> Tensor:
        """Mean magnitude of the edges selected at this moment, float32 [1]; 0 where there is none."""
        with torch.no_grad():
            mask = selected(self.rule.keys(self).detach(), self.threshold(), self.rule.absolute)
            if self.survivors is not None:
                mask = mask & unpack(self.survivors, self.cols)
            total = torch.where(mask, self.drawn, 0.0).sum(dtype=torch.float64)
            return (total / mask.sum().clamp(min=1)).float().view(1)

    def theta(self) -> Theta:
        return super().theta()._replace(constant=self.alpha())

    def gradient(self) -> Theta:
        """W itself: alpha and the signs are constants on the way back, and the magnitude is that of the draw."""
        theta = super().theta()
        negative = unpack(theta.words(self.rows, self.cols, self.drawn.device), self.cols)
        return theta._replace(base=torch.where(negative, -self.drawn, self.drawn))

    @torch.no_grad()
    def stored(self) -> Stored:
        found = super().stored()
        return replace(found, values={**found.values, "constant": float(self.alpha())})

    @torch.no_grad()
    @torch.inference_mode(False)
    def _keep(self) -> None:
        super()._keep()
        self.register_buffer("drawn", self._magnitudes(), persistent=False)
        self._made_of_drawn = version(self.drawn)

    def check_made(self) -> None:
        super().check_made()
        if self._made_of_drawn not in (None, version(self.drawn)):
            raise NotStorable(
                "`drawn` was written to: it is made from the seed and never stored; Biprop(draw=) says of what"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made_of_drawn": None}  # a copy counts its own writes

    def _magnitudes(self) -> Tensor:
        device, real = self.constant.device, real_weights(self._draw, self.cols)
        if self.constant.is_meta:
            return torch.empty(self.rows, self.cols, device=device)
        theta = Theta(self.seed, self.layer, self.generation, self.constant, real=real)
        made = theta.made(self.rows, self.cols, device).base
        assert made is not None
        grid = 2.0 ** (math.floor(math.log2(math.sqrt(2 / self.cols))) - _STEPS)
        return (made.abs() / grid).round().clamp(min=1.0) * grid

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"draw": self._draw}


@dataclass(frozen=True, kw_only=True, repr=False)
class Biprop(EP):
    """Multi-prize tickets: edge-popup whose forward has binary weights.

    Diffenderfer & Kailkhura 2021, "Multi-prize lottery ticket hypothesis", algorithm 1. A layer's weights are sign(W)
    times alpha, the mean |W| of its selected edges; the gradient of a score is dL/dw W sign(s), of the real weight. A
    ticket holds the mask, and alpha as the layer's constant: signs are the seed's. Learned batch norms ("+BN") are the
    conversion's norm="train".

    The published code divides the sum over the selected edges by int(remaining * edges), which may be one off their
    number, and by 0 where a layer has none; here it is their number, and a layer without an edge weighs 0. The paper's
    global variant is `ranking="network"` with `anneal="cubic"`, `anneal_from=0.5` and `anneal_epochs=10`. These are the
    tickets with binary weights (MPT-1/32); those with binary activations too (MPT-1/1), and their networks, are not
    here.

    Attributes:
        draw: of the magnitudes of W.
        anneal_from: the rate that an annealed one comes down from.
    """

    paper: ClassVar[str] = "Diffenderfer & Kailkhura 2021"

    draw: Draw = "kaiming_normal"
    anneal_from: float = 1.0

    def __post_init__(self) -> None:
        check_choice("draw", self.draw, Draw)
        if not 0 < self.anneal_from <= 1:
            raise ValueError(f"anneal_from={self.anneal_from}: expected a rate, above 0 and at most 1")
        super().__post_init__()
        if self.anneal == "none" and self.anneal_from != 1:
            raise ValueError(f"anneal_from={self.anneal_from} with anneal='none', which does not read it: choose how")

    def phases(self) -> tuple[Cycle, ...]:
        cycles = super().phases()
        if self.anneal == "none":
            return cycles
        return tuple(replace(cycle, anneal_from=self.anneal_from) for cycle in cycles)

    def edges(self, shape: Sequence[int], **given: Any) -> SearchedEdges:
        chosen = {**self.choices, **given}
        if chosen["weights"] != "signed_constant":
            raise ValueError(
                f"weights={chosen['weights']!r}: binarised weights are a sign times one number of the layer, "
                "'signed_constant'; Biprop(draw=) says what their magnitudes are drawn from"
            )
        return BinarisedEdges(shape, draw=self.draw, rule=self._rule(chosen), **chosen)
