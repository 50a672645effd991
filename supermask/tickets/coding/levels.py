"""How likely each edge of a layer is to be selected, from integers alone, so that every reader finds the same odds.

    level = (thresholds at or below the edge's initial score) + row[r] + channel[c] + position[k]
    P(selected) = (256 * odds[level] + 128) / 2^24

Masks are far from random bits. A search leaves most edges about where it drew them (dying edges), so that the initial
score of an edge tells much about whether it was selected, and that score is made again from the seed; what the search
did learn shows in the densities of output rows, of input channels and of kernel positions. Any part can be missing: no
thresholds, or zeros in place of an axis. Scores enter as their bins, the top 12 bits of the 24-bit draw they are made
of, or of its distance from the middle where edges are ranked by |score|. So they say something of uniform scores
(kaiming_uniform, the default) alone: a normal score is made of two draws.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from supermask.checks import SupermaskError
from supermask.kernels.base import philox
from supermask.kernels.base.philox import SCORES

__all__ = ["BINS", "Draws", "Grid", "Levels", "LevelsError"]

BINS = 4096  # of initial scores
MOST_BITS = 4  # of a level of an axis
_AXES = ("row", "channel", "position")


class LevelsError(SupermaskError, ValueError):
    """Bytes that are no levels of this layer; the message says what is wrong with them."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the edges of a layer lie, and what its initial scores are drawn from.

    Attributes:
        shape: of the weight; row, channel and position of an edge are its places along the first dimension, the second,
            and all others as one.
        seed, layer: of the counter (kernels/base/philox.py).
    """

    shape: tuple[int, ...]
    seed: int
    layer: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows, channels and positions."""
        channels = self.shape[1] if len(self.shape) > 1 else 1
        return self.shape[0], channels, self.cols // channels

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def cols(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64))

    def draws(self, rows: range, generations: Sequence[int]) -> Any:
        """What the initial scores of some rows are made of: int32 [generations, rows, cols] in [0, 2^24)."""
        return philox.draws(self.seed, self.layer, rows, self.cols, purpose=SCORES, generations=generations).numpy()

    def blocks(self, edges: int = 1 << 17) -> list[range]:
        """The rows, in consecutive ranges of about so many edges."""
        step = max(1, edges // self.cols)
        return [range(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Which draw of the initial scores an edge is judged by.

    Attributes:
        absolute: whether by its distance from zero.
        generation: how many times the scores had been drawn before.
    """

    absolute: bool
    generation: int

    def bins(self, grid: Grid, rows: range) -> Any:
        """Bins of the initial scores of some rows: int32 [rows, cols], in [0, BINS)."""
        return binned(grid.draws(rows, [self.generation]), absolute=self.absolute)[0]


def binned(drawn: Any, *, absolute: bool) -> Any:
    """Bins of draws, in [0, BINS): by the draw, or by its distance from the middle."""
    return np.minimum(np.abs(drawn - (1 << 23)) >> 11, BINS - 1) if absolute else drawn >> 12


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Levels of the edges of a layer, and the odds at each.

    Attributes:
        draws: initial scores, or None where they are not looked at.
        thresholds: int [n], ascending bins from 1; each raises by one the level of the edges in it and above.
        axes: levels by row, channel and position, uint8 each, at least 0 and below 2 ** MOST_BITS; zeros where an axis
            does not count.
        odds: uint16 by level.
    """

    draws: Draws | None
    thresholds: Any
    axes: tuple[Any, Any, Any]
    odds: Any

    @staticmethod
    def count(thresholds: Any, axes: tuple[Any, Any, Any]) -> int:
        """How many levels there are."""
        return 1 + len(thresholds) + sum(int(axis.max()) for axis in axes)

    def of(self, grid: Grid, rows: range) -> Any:
        """Levels of the edges of some rows: int64 [rows, cols]."""
        row, channel, position = (axis.astype(np.int64) for axis in self.axes)
        level = row[rows.start : rows.stop, None] + (channel[:, None] + position[None, :]).reshape(1, -1)
        if self.draws is not None:
            level += self.table()[self.draws.bins(grid, rows)]
        return level

    def table(self) -> Any:
        """By bin, the part of the level that initial scores give: int64 [BINS]."""
        return np.searchsorted(self.thresholds, np.arange(BINS), side="right")

    def ones(self) -> Any:
        """By level, how many of 2^24 the odds of a selected edge are: int64."""
        return 256 * self.odds.astype(np.int64) + 128

    def to_bytes(self) -> bytes:
        """As they are stored before the coded edges."""
        parts = [struct.pack("<B", 0 if self.draws is None else 1 if self.draws.absolute else 2)]
        if self.draws is not None:
            parts.append(struct.pack("<IB", self.draws.generation, len(self.thresholds)))
            parts.append(self.thresholds.astype("<u2").tobytes())
        for axis in self.axes:
            bits = int(axis.max()).bit_length()
            spread = np.unpackbits(axis[:, None], axis=1, bitorder="little")[:, :bits]
            parts += [struct.pack("<B", bits), np.packbits(spread, bitorder="little").tobytes()]
        parts.append(self.odds.astype("<u2").tobytes())
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, grid: Grid) -> tuple["Levels", bytes]:
        """The inverse of `to_bytes`, and the bytes that follow.

        Raises:
            LevelsError: there are no such levels at the start of `data`.
        """
        rest = _Bytes(data)
        kind = rest.integer("<B", "the kind of initial scores")
        draws, thresholds = None, np.zeros(0, np.int64)
        if kind > 2:
            raise LevelsError(f"kind {kind} of initial scores: expected 0 (none), 1 (absolute) or 2 (signed)")
        if kind:
            generation = rest.integer("<I", "a generation")
            if generation >= 1 << 22:
                raise LevelsError(f"generation {generation} of initial scores: expected 0 to {(1 << 22) - 1}")
            draws = Draws(absolute=kind == 1, generation=generation)
            count = rest.integer("<B", "the number of thresholds")
            thresholds = np.frombuffer(rest.take(2 * count, "thresholds"), "<u2").astype(np.int64)
            if count and (thresholds[0] < 1 or thresholds[-1] >= BINS or (np.diff(thresholds) < 0).any()):
                raise LevelsError(f"thresholds {thresholds.tolist()}: expected ascending bins from 1 to {BINS - 1}")
        axes = []
        for name, size in zip(_AXES, grid.sizes, strict=True):
            bits = rest.integer("<B", f"the bits of a {name}'s level")
            if bits > MOST_BITS:
                raise LevelsError(f"{bits} bits for the level of a {name}: expected 0 to {MOST_BITS}")
            packed = np.frombuffer(rest.take(-(-size * bits // 8), f"levels of {size} {name}s"), np.uint8)
            spread = np.unpackbits(packed, bitorder="little")
            if spread[size * bits :].any():
                raise LevelsError(f"bits after the last level of a {name} are set")
            axis = np.zeros((size, 8), np.uint8)
            axis[:, :bits] = spread[: size * bits].reshape(size, bits)
            axes.append(np.packbits(axis, axis=1, bitorder="little")[:, 0])
        levels = cls.count(thresholds, (axes[0], axes[1], axes[2]))
        odds = np.frombuffer(rest.take(2 * levels, f"odds of {levels} levels"), "<u2")
        return cls(draws=draws, thresholds=thresholds, axes=(axes[0], axes[1], axes[2]), odds=odds), rest.left()


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int, what: str) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise LevelsError(f"{len(found)} bytes left where {what} take {count}")
        self._at += count
        return found

    def integer(self, form: str, what: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form), what))[0])

    def left(self) -> bytes:
        return self._data[self._at :]
