"""Products with a layer of one bit an edge: from its bits, from weights made at each call, from dense weights.

    y = x W^T, x in bfloat16, W square; once with everything in the cache and once with nothing there

`masked_mm` makes W in registers. "weight made, then dense" is packed_weight and the library's product; "auto" is what a
layer of a ticket does by its rule (supermask/edges/making.py). Products of 2-bit weights of other packages take part
where these are installed.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.bench import Bench, Case, Rival
from benchmarks.gpu.drawn import normals, random_bits
from benchmarks.gpu.errors import check_near
from benchmarks.gpu.floors import Work
from benchmarks.gpu.low_bit import LOW_BIT, LowBit
from supermask.edges.packed import PackedEdges
from supermask.kernels.masked_mm.op import masked_mm
from supermask.kernels.packed_weight.op import packed_weight

__all__ = ["AUTO", "DENSE", "MADE", "ProductSizes", "cases", "sets_of"]

DENSE, MADE, AUTO = "dense bf16", "weight made, then dense", "auto"
CONSTANT = 0.02


@dataclass(frozen=True, kw_only=True)
class ProductSizes:
    """What is multiplied."""

    widths: tuple[int, ...] = (8192, 4096)
    rows: tuple[int, ...] = (1, 8, 64, 4096)


def sets_of(size: float, cache: int) -> int:
    """How many sets of inputs of `size` bytes go round so that none is in the cache when its turn comes again."""
    return max(2, math.ceil(4 * cache / max(size, 1)))


class Layers:
    """Layers of one width, as many as go round."""

    def __init__(self, width: int, bench: Bench) -> None:
        self.width, self.bench, self.device = width, bench, bench.device

    @cached_property
    def packed(self) -> list[PackedEdges]:
        count = sets_of(self.width**2 / 8, self.bench.timer.cache)
        return [
            PackedEdges(
                (self.width, self.width), random_bits(self.width, self.width, index, self.device), seed=index, layer=0,
                weights="signed_constant", constant=CONSTANT, device=self.device,
            )
            for index in range(count)
        ]  # fmt: skip

    @cached_property
    def dense(self) -> list[Tensor]:
        count = sets_of(2 * self.width**2, self.bench.timer.cache)
        return [self.made(edges) for edges in self.packed[: min(count, len(self.packed))]]

    def made(self, edges: PackedEdges) -> Tensor:
        return packed_weight(edges.packed, edges.shape, edges.theta(), torch.bfloat16)

    def least(self, rows: int, bits: float) -> Work:
        """Of a product that reads `bits` an edge."""
        edges = self.width**2
        return Work(bytes=bits / 8 * edges + 2 * 2 * rows * self.width, operations=2 * rows * edges)

    def rivals(self, rows: int, *, warm: bool) -> dict[str, Any]:
        """By name; all checked."""
        packed, dense = (self.packed[:1], self.dense[:1]) if warm else (self.packed, self.dense)
        # Inputs of their own for each set, until these alone go round.
        distinct = 1 if warm else min(len(packed), sets_of(2 * rows * self.width, self.bench.timer.cache))
        xs = [normals(rows, self.width, device=self.device, seed=index).bfloat16() for index in range(distinct)]
        pairs = [(xs[index % distinct], edges) for index, edges in enumerate(packed)]
        dense_pairs = [(xs[index % distinct], weight) for index, weight in enumerate(dense)]
        found: dict[str, Any] = {
            "masked_mm": Rival(
                calls=[partial(masked_mm, x, edges.packed, edges.theta()) for x, edges in pairs],
                work=self.least(rows, 1),
            ),
            DENSE: Rival(calls=[partial(F.linear, x, weight) for x, weight in dense_pairs], work=self.least(rows, 16)),
            MADE: Rival(
                calls=[partial(_made_then_dense, self, x, edges) for x, edges in pairs], work=self.least(rows, 1 + 32)
            ),
            AUTO: Rival(
                calls=[partial(edges.linear, x, None, torch.bfloat16) for x, edges in pairs], work=self.least(rows, 1)
            ),
        }
        truth = xs[0][:64].double() @ self.dense[0].double().T
        for name, rival in found.items():
            check_near(name, rival.calls[0]()[:64], truth)
        for low in LOW_BIT:
            found[low.name] = partial(self._low_bit, low, xs, rows, truth, warm=warm)
        return found

    def _low_bit(self, low: LowBit, xs: list[Tensor], rows: int, truth: Tensor, *, warm: bool) -> Rival:
        size = self.width**2 / 4
        count = 1 if warm else min(sets_of(size, self.bench.timer.cache), len(self.packed))
        layer = low.make(self.dense[0], CONSTANT)
        layers = [layer, *(deepcopy(layer) for _ in range(count - 1))]  # packing takes these packages seconds
        calls = [partial(one, xs[index % len(xs)]) for index, one in enumerate(layers)]
        check_near(low.name, calls[0]()[:64], truth, low.allowed)
        return Rival(calls=calls, work=self.least(rows, 2))


def _made_then_dense(layers: Layers, x: Tensor, edges: PackedEdges) -> Tensor:
    return F.linear(x, layers.made(edges))


def cases(sizes: ProductSizes) -> list[Case]:
    """Every width, cold and warm, at every number of rows."""
    held: dict[int, Layers] = {}

    def run(bench: Bench, width: int, rows: int, warm: bool) -> dict[str, Any]:
        if width not in held:
            held.clear()
            held[width] = Layers(width, bench)
        with torch.no_grad():
            return bench.compare(
                held[width].rivals(rows, warm=warm),
                base=DENSE,
                warm=warm,
                against=[("masked_mm", DENSE), ("masked_mm", MADE), (AUTO, MADE), (AUTO, "masked_mm"), (AUTO, DENSE)],
                rows=rows,
                width=width,
            )

    return [
        Case(
            name=f"{rows} row{'s'[: rows > 1]} of {width} x {width}, bf16, {'warm' if warm else 'cold'}",
            run=partial(run, width=width, rows=rows, warm=warm),
        )
        for width in sizes.widths
        for warm in (False, True)
        for rows in sizes.rows
    ]
