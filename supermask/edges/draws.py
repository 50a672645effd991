"""What a seed makes: theta0 and the initial scores of a layer, as functions of (seed, layer, generation)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from supermask.kernels.base import philox
from supermask.kernels.base.bits import pack

WeightInit = Literal[
    "signed_constant", "scaled_signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_uniform"
]
ScoreInit = Literal[
    "kaiming_uniform",
    "kaiming_normal",
    "kaiming_uniform_relu",
    "kaiming_normal_fan_out",
    "unit_uniform",
    "xavier_uniform",
    "zero",
]
Magnitude = Literal["abs", "raw"]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One kind of theta0: a constant, or real numbers.

    Attributes:
        signed: the constant has a sign, the seed's.
        scaled: the constant is that of the fan-in which the remaining rate leaves.
        draw: of real numbers, as supermask.kernels.base.theta.Theta.real has it, for a standard deviation of 1.
    """

    signed: bool = False
    scaled: bool = False
    draw: tuple[str, float] | None = None


WEIGHTS: Mapping[WeightInit, Distribution] = {
    "signed_constant": Distribution(signed=True),
    "scaled_signed_constant": Distribution(signed=True, scaled=True),
    "unsigned_constant": Distribution(),
    "kaiming_normal": Distribution(draw=("normal", 1.0)),
    "kaiming_uniform": Distribution(draw=("uniform", math.sqrt(3))),
}


def kept_count(remaining: float, edges: int) -> int:
    """Edges kept of `edges` at the rate `remaining`: max(1, round(remaining * edges)), halves to even.

    Raises:
        TypeError: `remaining` is not a number.
        ValueError: `remaining` is not in (0, 1].
    """
    if isinstance(remaining, bool) or not isinstance(remaining, Real):
        raise TypeError(f"remaining={remaining!r}: expected a number, the fraction of edges kept")
    if not 0 < remaining <= 1:
        raise ValueError(
            f"remaining={remaining}: expected a fraction of edges kept, above 0 and at most 1 "
            "(a prune rate k in another code base is remaining = 1 - k)"
        )
    return max(1, round(float(remaining) * edges))


def weight_constant(weights: WeightInit, fan_in: int, remaining: float) -> float:
    """Magnitude of the constant weights, and the standard deviation of the real-valued ones.

    sqrt(2 / fan_in), the Kaiming standard deviation with ReLU gain (He et al. 2015; Ramanujan et al. 2020, section 3);
    `scaled_signed_constant` divides fan_in by what `remaining` leaves of it.
    """
    scale = remaining if WEIGHTS[weights].scaled else 1.0
    return math.sqrt(2 / (fan_in * scale))


def real_weights(weights: WeightInit, fan_in: int) -> tuple[str, float] | None:
    """The draw of real-valued distributions, as `supermask.kernels.base.theta.Theta.real`; None for constant ones."""
    draw = WEIGHTS[weights].draw
    return None if draw is None else (draw[0], draw[1] * weight_constant(weights, fan_in, 1.0))


def initial_scores(
    scores: ScoreInit, seed: int, layer: int, shape: Sequence[int], *, generation: int, device: torch.device
) -> Tensor:
    """Initial scores of a weight of `shape`, float32 [rows, cols]; `generation` counts their re-draws.

    `kaiming_uniform` is uniform(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's Kaiming uniform with a = sqrt(5);
    `kaiming_uniform_relu` the same with a = 0, sqrt(6) times as wide (IteRand); `kaiming_normal` has standard deviation
    sqrt(2 / fan_in), `kaiming_normal_fan_out` sqrt(2 / fan_out) (multicoated supermasks); `unit_uniform` is
    uniform(0, 1) (Gem-Miner); `xavier_uniform` reaches sqrt(6 / (fan_in + fan_out)) (signed supermasks); `zero` is 0
    (sampled supermasks).
    """
    rows, fan_in = shape[0], math.prod(shape[1:])
    fan_out = rows * math.prod(shape[2:])
    place = seed, layer, rows, fan_in
    drawn: dict[str, Any] = {"purpose": philox.SCORES, "generation": generation, "device": device}
    if scores in ("kaiming_normal", "kaiming_normal_fan_out"):
        fan = fan_in if scores == "kaiming_normal" else fan_out
        return philox.normal(*place, std=math.sqrt(2 / fan), **drawn)
    if scores == "zero":
        return torch.zeros(rows, fan_in, device=device)
    if scores == "unit_uniform":
        return philox.uniform(*place, low=0.0, high=1.0, **drawn)
    bounds = {
        "kaiming_uniform": 1 / math.sqrt(fan_in),
        "kaiming_uniform_relu": math.sqrt(6 / fan_in),
        "xavier_uniform": math.sqrt(6 / (fan_in + fan_out)),
    }
    return philox.uniform(*place, low=-bounds[scores], high=bounds[scores], **drawn)


def chosen(
    seed: int, layer: int, rows: int, cols: int, chance: float, *, generation: int, device: torch.device
) -> Tensor:
    """Edges drawn for a re-draw, each with probability `chance` (to 2^-24), packed int32 [rows, words]."""
    place = seed, layer, rows, cols
    unit = philox.uniform(*place, low=0.0, high=1.0, purpose=philox.RERANDOMISE, generation=generation, device=device)
    return pack(unit < chance)


def shuffled(seed: int, layer: int, rows: int, cols: int, *, device: torch.device) -> Tensor:
    """The edges of a layer in an order drawn at random, flat indices, int64 [rows * cols]."""
    drawn = philox.uniform(seed, layer, rows, cols, low=0.0, high=1.0, purpose=philox.RERANDOMISE, device=device)
    return drawn.flatten().argsort(stable=True)
