"""N of M: of every M inputs in a row an output keeps exactly N edges, the pattern that sparse matrix units read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from supermask.edges.draws import kept_count
from supermask.edges.rules import Rule, above
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.keys import REMOVED_KEY, Threshold, score_keys

MOST = 32


class _Chosen(torch.autograd.Function):
    """1 for the chosen edges and 0 for the others; backward is straight through, as of scores or of their size."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, chosen: Tensor, absolute: bool) -> Tensor:
        ctx.save_for_backward(scores if absolute else None)
        return chosen.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (scores,) = ctx.saved_tensors
        return (grad if scores is None else torch.where(scores < 0, -grad, grad)), None, None


@dataclass(frozen=True, kw_only=True)
class NOfM(Rule):
    """Of every `m` inputs in a row the `n` highest edges of an output, ties by index: 2 of 4, 4 of 8.

    Inputs of a convolution are its channels, for each position of the kernel by itself. Where their number is no
    multiple of m, the r that are left over keep max(1, round(r n / m)). After hard pruning a group may have fewer.

    Attributes:
        rank: whether edges rank by |score| or by score; `absolute` is of the keys, which are none of either.
    """

    absolute: bool = False
    rank: bool = True
    n: int
    m: int

    fixed: ClassVar[bool] = False  # hard pruning may leave a group fewer

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m <= MOST:
            raise ValueError(f"pattern {self.n} of {self.m}: expected 1 <= n <= m <= {MOST}")

    def check(self, remaining: float) -> None:
        """Raise ValueError where the rate is not the pattern's."""
        if round(remaining * self.m, 6) != self.n:
            raise ValueError(
                f"remaining={remaining:g} with the pattern {self.n} of {self.m}, which keeps {self.n / self.m:g}: give "
                "that rate"
            )

    def counts(self, edges: SearchedEdges, remaining: float) -> list[int]:
        self.check(remaining)
        inputs = edges.shape[1] if len(edges.shape) > 1 else 1
        whole, rest = divmod(inputs, self.m)
        of_one = whole * self.n + (kept_count(self.n / self.m, rest) if rest else 0)
        return [of_one * edges.count // inputs]

    def keys(self, edges: SearchedEdges) -> Tensor:
        made: Tensor = _Chosen.apply(edges.scores, self.chosen(edges), self.rank)
        return made

    def thresholds(self, layers: Sequence[SearchedEdges]) -> list[Threshold]:
        zero = torch.zeros(1, dtype=torch.int32, device=layers[0].scores.device)  # the key of 0
        return [above(zero) for _ in layers]

    def chosen(self, edges: SearchedEdges) -> Tensor:
        """The edges that the pattern keeps: bool of the scores' shape."""
        keys = score_keys(edges.scores, self.rank)
        if edges.survivors is not None:
            left = unpack(edges.survivors, edges.cols).view(edges.shape)
            keys = torch.where(left, keys, REMOVED_KEY)
        inputs = edges.shape[1] if len(edges.shape) > 1 else 1
        keys = keys.reshape(edges.rows, inputs, -1)
        whole = inputs // self.m * self.m
        parts = [_highest(keys[:, :whole].unflatten(1, (-1, self.m)), self.n).flatten(1, 2)] if whole else []
        if rest := inputs - whole:
            parts.append(_highest(keys[:, None, whole:], kept_count(self.n / self.m, rest)).flatten(1, 2))
        return torch.cat(parts, 1).view(edges.shape)


def _highest(keys: Tensor, n: int) -> Tensor:
    """The n highest of each group, [rows, groups, members, positions], ties by index."""
    members = keys.unbind(2)
    before = [torch.zeros_like(members[0], dtype=torch.int8) for _ in members]  # members that come before each
    for one, other in combinations(range(len(members)), 2):
        first = members[one] >= members[other]
        before[other] += first
        before[one] += ~first
    return torch.stack([count < n for count in before], 2)
