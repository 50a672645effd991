"""One call of subnet as a value: its arguments, drawn or made, and what they ought to give in plain PyTorch."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from supermask.kernels.base.keys import Threshold, score_keys
from supermask.kernels.base.philox import sign_words
from supermask.kernels.base.theta import Theta
from supermask.kernels.subnet.op import subnet
from tests.kernels.paths import (
    COLS,
    ROWS,
    SEEDS,
    SPECIAL,
    pack_plain,
    random_mask,
    random_reals,
    random_words,
    sizes,
    unpack_plain,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SOURCES = ["seed", "signs", "base"]
GENERATIONS = st.sampled_from([0, 1, 2**22 - 1])
CONVOLUTIONS = [(65, 3, 3, 3), (2, 43, 1, 1), (33, 29, 2, 2)]
SHAPES = st.tuples(ROWS, COLS) | sizes([*CONVOLUTIONS, (3, 5, 7), (1, 1), (7,)], [(300, 1030), (129, 40, 3, 3)])


def theta_of(
    rows: int,
    cols: int,
    source: str,
    *,
    seed: int = 2**63 + 1,
    generation: int = 1,
    constant: float = 0.1,
    data: int = 5,
    special: float = 0.0,
) -> Theta:
    """theta0 from the "seed", from given "signs" (padding bits set, too), or dense, the "base"."""
    return Theta(
        seed=seed,
        layer=4,
        generation=generation,
        constant=torch.tensor([constant]),
        signs=random_words(rows, cols, data) if source == "signs" else None,
        base=random_reals((rows, cols), data + 1, special) if source == "base" else None,
    )


def theta_plain(theta: Theta, rows: int, cols: int) -> Tensor:
    """theta0 as a float32 matrix."""
    if theta.base is not None:
        return theta.base
    words = theta.signs
    if words is None:
        words = sign_words(theta.seed, theta.layer, rows, cols, generation=theta.generation)
    return torch.where(unpack_plain(words, cols), -theta.constant, theta.constant)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The arguments of one call of subnet, and its threshold as the edge that holds it."""

    scores: Tensor
    tied: int
    last: int
    theta: Theta
    survivors: Tensor | None
    absolute: bool
    dtype: torch.dtype
    ever: Tensor | None

    @property
    def rows(self) -> int:
        return self.scores.shape[0]

    @property
    def cols(self) -> int:
        return self.scores.numel() // self.rows

    @property
    def tau(self) -> Tensor:
        return score_keys(self.scores, self.absolute).flatten()[self.tied : self.tied + 1]

    @property
    def threshold(self) -> Threshold:
        return Threshold(self.tau, torch.tensor([self.last], device=self.scores.device))

    def run(self, scores: Tensor | None = None, ever: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return subnet(
            self.scores if scores is None else scores,
            self.threshold,
            self.theta,
            survivors=self.survivors,
            absolute=self.absolute,
            dtype=self.dtype,
            ever=ever,
        )

    def ops_args(self) -> tuple[Any, ...]:
        """The arguments that the ops subnet and subnet_backward share, from survivors on."""
        return (self.survivors, *self.theta.schema(), self.absolute)

    def chosen_plain(self) -> Tensor:
        """Ranked as real numbers, where NaN is below -inf."""
        value = (self.scores.abs() if self.absolute else self.scores).double().flatten()
        value = value.clamp(-1e300, 1e300).nan_to_num(nan=-math.inf)
        edge = torch.arange(value.numel())
        chosen = (value > value[self.tied]) | ((value == value[self.tied]) & (edge <= self.last))
        return chosen.view(self.rows, self.cols) & self.alive_plain()

    def alive_plain(self) -> Tensor:
        if self.survivors is None:
            return torch.ones(self.rows, self.cols, dtype=torch.bool)
        return unpack_plain(self.survivors, self.cols)

    def theta_plain(self) -> Tensor:
        return theta_plain(self.theta, self.rows, self.cols)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(SHAPES)
    rows, edges = shape[0], math.prod(shape)
    cols = edges // rows
    data = draw(st.integers(0, 2**31))
    scores = random_reals(shape, data, special=draw(st.sampled_from([0.0, 0.3, 1.0])))
    if draw(st.integers(0, 4)) == 0:
        scores = torch.full(shape, draw(st.sampled_from(SPECIAL)))
    theta = theta_of(
        rows,
        cols,
        draw(st.sampled_from(SOURCES)),
        seed=draw(SEEDS),
        generation=draw(GENERATIONS),
        constant=draw(st.sampled_from([0.1, 1.0, 2.0**-20, 3.3333333])),
        data=data + 1,
        special=0.1,
    )
    return Case(
        scores=scores,
        tied=draw(st.integers(0, edges - 1)),
        last=draw(st.sampled_from([-1, 0, edges // 3, edges // 2, edges - 1])),
        theta=theta._replace(layer=draw(st.integers(0, 100))),
        survivors=draw(st.sampled_from([None, random_words(rows, cols, data + 3)])),
        absolute=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
        ever=draw(st.sampled_from([None, random_words(rows, cols, data + 4)])),
    )


def plain_case(rows: int = 5, cols: int = 131, **changes: Any) -> Case:
    """One of everything, for tests that vary one thing."""
    case = Case(
        scores=random_reals((rows, cols), 1),
        tied=rows * cols // 2,
        last=rows * cols - 1,
        theta=theta_of(rows, cols, "seed"),
        survivors=pack_plain(random_mask(rows, cols, 0.7, 2)),
        absolute=True,
        dtype=torch.float32,
        ever=None,
    )
    return replace(case, **changes)
