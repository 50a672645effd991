"""Floors: what a call must move and compute, over what the card was measured to move and compute.

A floor is the larger of two times: bytes that must be moved over the rate of a large copy (read and written bytes
count), and operations over the rate of a large product. Where everything a call touches stays in the L2 cache from one
call to the next, the rate is that of an addition whose numbers stay there, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks._timing import Sample
from benchmarks.gpu.drawn import normals
from benchmarks.gpu.timer import Timer

__all__ = ["Ceilings", "Floor", "Sizes", "Work", "measured"]

RATES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "bfloat16"}  # tensor cores do both alike


@dataclass(frozen=True, kw_only=True)
class Work:
    """The least that a call can do."""

    bytes: float
    """Each input read once and each output written once."""
    operations: float = 0.0
    """Of matrix products; a multiply-add is two."""
    dtype: torch.dtype = torch.bfloat16
    """In which it multiplies."""

    def __add__(self, other: "Work") -> "Work":
        return replace(self, bytes=self.bytes + other.bytes, operations=self.operations + other.operations)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Seconds below which a call cannot stay."""

    memory: float
    arithmetic: float

    @property
    def seconds(self) -> float:
        return max(self.memory, self.arithmetic)

    @property
    def by(self) -> str:
        return "memory" if self.memory >= self.arithmetic else "arithmetic"


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the card does at best."""

    copy: Sample
    """Seconds a byte of a copy in device memory, read and written."""
    cached: Sample
    """Of an addition that reads and writes what stays in the L2 cache, of several sizes the fastest."""
    products: Mapping[str, Sample]
    """Seconds an operation of a large matrix product, by dtype; of float32 without TF32."""
    cache: int
    """Bytes of the L2 cache."""

    def floor(self, work: Work, *, warm: bool = False) -> Floor:
        """Of one call; `warm`, where the same data were touched right before."""
        byte = self.cached if warm and 2 * work.bytes <= self.cache else self.copy
        operation = self.products[RATES[work.dtype]]
        return Floor(memory=work.bytes * byte.median, arithmetic=work.operations * operation.median)

    def summary(self) -> dict[str, Any]:
        """In rates; the low quantile is that of the time, and so of the highest rate."""

        def rate(sample: Sample) -> dict[str, float]:
            return {"median": 1 / sample.median, "low": 1 / sample.high, "high": 1 / sample.low}

        return {
            "copy, bytes a second": rate(self.copy),
            "addition in the cache, bytes a second": rate(self.cached),
            **{f"{name} product, operations a second": rate(sample) for name, sample in self.products.items()},
            "cache, bytes": self.cache,
        }


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of what is measured."""

    copied: int = 1 << 30
    """Bytes."""
    product: int = 8192
    """Rows and columns of bfloat16 matrices; float32 ones have half as many."""
    seconds: float = 0.5
    """For each ceiling."""


def measured(device: torch.device, timer: Timer, sizes: Sizes) -> Ceilings:
    """The ceilings of this card, at this moment."""

    def sample(call: Callable[[], object], units: float, calls: int, *, warm: bool) -> Sample:
        program = timer.program([call] * calls)
        timed = timer.rounds({"": program}, seconds=sizes.seconds, warm=warm)[""]
        return Sample(rounds=tuple(seconds / units for seconds in timed.rounds))

    def copy(count: int) -> Callable[[], object]:
        source = torch.arange(count, device=device).to(torch.uint8)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    def addition(touched: int) -> Callable[[], object]:
        source = torch.ones(touched // 8, device=device)
        target: Tensor = torch.empty_like(source)
        return lambda: torch.add(source, 1.0, out=target)

    def product(dtype: torch.dtype, size: int) -> Callable[[], object]:
        a, b = (normals(size, size, device=device, seed=index).to(dtype) for index in range(2))
        out: Tensor = torch.empty(size, size, dtype=dtype, device=device)
        return lambda: torch.mm(a, b, out=out)

    size, half = sizes.product, sizes.product // 2
    large = sample(copy(sizes.copied), 2 * sizes.copied, 2, warm=False)
    resident = [max(8, min(timer.cache // part, sizes.copied) // 8 * 8) for part in (4, 8, 16)]
    # Not by copies, which may go by an engine that is slower; and no cache is slower than what is behind it.
    cached = [sample(addition(touched), touched, 20, warm=True) for touched in resident]
    return Ceilings(
        copy=large,
        cached=min(large, *cached, key=lambda one: one.median),
        products={
            "bfloat16": sample(product(torch.bfloat16, size), 2 * size**3, 2, warm=True),
            "float32": sample(product(torch.float32, half), 2 * half**3, 2, warm=True),
        },
        cache=timer.cache,
    )
