"""The levels (supermask/tickets/coding/levels.py) that code a mask in the fewest bytes, found from the mask and the
seed.

Each part is added where it saves more than it takes to store: thresholds of the initial scores, from the density in
each of their bins made monotone (pool adjacent violators); then for rows, channels and positions in turn the shift of
the log odds with which each place's expected number of selected edges is its actual one, given the levels so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from supermask.kernels.base.bits import bits_of
from supermask.tickets.coding.levels import BINS, MOST_BITS, Draws, Grid, Levels, binned

__all__ = ["Plane", "find_draws", "fit"]

_STEPS = (0.5, 1.0)  # of the log odds between levels: finer ones describe little more and cost more to store
_LARGE = 1 << 18  # edges from which only the first of them is tried
_GENERATIONS = 32  # draws of the initial scores that are tried
_SAMPLE = 1 << 15  # edges of a layer that tell which draw it was
_WORTH = 256  # bits that a draw must save in a sample: chance gives a few dozen
_GROUPS = 32  # of bins, that tell it
_RANKED = (True, False)  # whether by the size of a score
_AT_ONCE = 1 << 20  # edges times draws


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Bits to be coded: those of `words` where `within` selects."""

    grid: Grid
    words: Tensor
    within: Tensor | None

    def some(self, values: Any, rows: range) -> Any:
        """Values an edge, [..., rows, cols], of the edges that have a bit: [..., edges]."""
        if self.within is None:
            return values.reshape(*values.shape[:-2], -1)
        where = bits_of(self.within[rows.start : rows.stop], self.grid.cols).view(np.bool_)
        return values[..., where]

    def bits(self, rows: range) -> Any:
        return self.some(bits_of(self.words[rows.start : rows.stop], self.grid.cols), rows)


def find_draws(planes: Sequence[Plane]) -> Draws | None:
    """The draw of initial scores that says most about these masks, or None where none does."""
    saved = np.zeros((_GENERATIONS, 2))
    for plane in sorted(planes, key=lambda plane: -plane.grid.rows * plane.grid.cols)[:4]:
        rows = range(min(plane.grid.rows, max(1, _SAMPLE // plane.grid.cols)))
        bits = plane.bits(rows)
        step = max(1, _AT_ONCE // (len(rows) * plane.grid.cols))
        for start in range(0, _GENERATIONS, step):
            block = range(start, min(start + step, _GENERATIONS))
            drawn = plane.grid.draws(rows, block)
            for number, absolute in enumerate(_RANKED):
                groups = plane.some(binned(drawn, absolute=absolute) // (BINS // _GROUPS), rows)
                counts = _counts_of_each(groups, bits)
                saved[block, number] += _entropy(counts.sum(-1, keepdims=True)) - _entropy(counts)
    best = divmod(int(saved.argmax()), len(_RANKED))
    return None if saved.max() <= _WORTH else Draws(absolute=_RANKED[best[1]], generation=best[0])


def fit(plane: Plane, draws: Draws | None) -> Levels | None:
    """The best levels for a plane, or None where its density alone costs less."""
    layer = _Layer(plane, draws)
    found: tuple[float, Levels | None] = (_entropy(layer.total), None)
    for step in _STEPS if layer.count < _LARGE else _STEPS[:1]:
        cost, levels = layer.fit(step)
        if cost < found[0]:
            found = cost, levels
    return found[1]


class _Layer:
    """The bits of a plane with the places of their edges, a block of rows at a time, and the levels tried on them.

    Three bytes an edge are kept: its bit and its bin.
    """

    def __init__(self, plane: Plane, draws: Draws | None) -> None:
        self.plane, self.draws, self.sizes = plane, draws, plane.grid.sizes
        self.blocks = plane.grid.blocks()
        self.bits = [plane.bits(rows) for rows in self.blocks]
        self.count = sum(map(len, self.bits))
        ones = sum(int(bits.sum()) for bits in self.bits)
        self.total = np.array([[self.count - ones], [ones]])
        if draws is None:
            return
        self.bins = [plane.some(draws.bins(plane.grid, rows), rows).astype(np.uint16) for rows in self.blocks]
        self.by_bin = sum(_counts(bins, bits, BINS) for bins, bits in zip(self.bins, self.bits, strict=True))
        self.log_odds = _monotone(self.by_bin)

    def joint(self, axis: int, table: Any, axes: Sequence[Any], number: int) -> Any:
        """Clear and set bits by place along an axis and by level: int64 [2, places, number].

        Args:
            table: by bin, the part of the level that initial scores give; None where they do not count.
            axes: levels by row, channel and position, so far.
        """
        size, found = self.sizes[axis], np.zeros((2, self.sizes[axis] * number), np.int64)
        for index, (rows, bits) in enumerate(zip(self.blocks, self.bits, strict=True)):
            shape = len(rows), *self.sizes[1:]
            places = np.ogrid[rows.start : rows.stop, : shape[1], : shape[2]]
            levels = sum(levels[place].astype(np.int64) for levels, place in zip(axes, places, strict=True))
            keys = self.plane.some((places[axis] * number + levels).reshape(len(rows), -1), rows)
            found += _counts(keys if table is None else keys + table[self.bins[index]], bits, size * number)
        return found.reshape(2, size, number)

    def fit(self, step: float) -> tuple[float, Levels]:
        """Bits that the plane takes, and its levels, `step` apart in their log odds."""
        axes = [np.zeros(size, np.uint8) for size in self.sizes]
        draws, thresholds, counts, used = None, np.zeros(0, np.int64), self.total, None
        cost = _cost(counts)
        best = cost, Levels(draws=None, thresholds=thresholds, axes=(axes[0], axes[1], axes[2]), odds=_odds(counts))
        if self.draws is not None:
            rises = np.diff(np.rint((self.log_odds - self.log_odds[0]) / step)).astype(np.int64)
            tried = np.repeat(np.arange(1, BINS), rises)[:255]
            table = np.searchsorted(tried, np.arange(BINS), side="right")
            found = np.stack([np.bincount(table, weights=row, minlength=len(tried) + 1) for row in self.by_bin])
            # Where the density jumps, levels between have no edges of their own: they are of use to the axes alone.
            once = np.unique(tried)
            odds = found[:, [0, *np.searchsorted(tried, once, side="right")]]
            if (trial := _cost(odds) + 40 + 16 * len(once)) < cost:
                best = trial, replace(best[1], draws=self.draws, thresholds=once, odds=_odds(odds))
                draws, thresholds, counts, used = self.draws, tried, found, table
                cost = _cost(found) + 40 + 16 * len(tried)
        for axis, size in enumerate(self.sizes):
            if size == 1:
                continue
            number = counts.shape[1]
            joint = self.joint(axis, used, axes, number)
            shifts = _shifts(joint, step)
            most = int(shifts.max())
            moved = np.zeros((2, number + most))
            for shift in range(most + 1):
                moved[:, shift : shift + number] += joint[:, shifts == shift].sum(1)
            saved = _cost(counts) - _cost(moved) - size * most.bit_length()
            if most and saved > 0:
                counts, axes[axis], cost = moved, shifts, cost - saved
                if cost < best[0]:
                    every = axes[0], axes[1], axes[2]
                    best = cost, Levels(draws=draws, thresholds=thresholds, axes=every, odds=_odds(counts))
        return best


def _cost(counts: Any) -> float:
    """Bits that a plane and its odds take, of clear and set bits by level [2, levels]."""
    clear, ones = counts
    share = (256 * _odds(counts).astype(np.float64) + 128) / (1 << 24)
    return float(-(ones * np.log2(share) + clear * np.log2(1 - share)).sum()) + 16 * counts.shape[1] + 32


def _shifts(joint: Any, step: float) -> Any:
    """Steps, from 0, by which the level at each place of an axis differs from the lowest: uint8.

    Args:
        joint: clear and set bits [2, places, levels].
    """
    ones, edges = joint[1].sum(1, keepdims=True), joint.sum(0)
    clear, set_ = joint.sum(1)
    log_odds = np.log((set_ + 0.5) / (clear + 0.5))
    shift = np.zeros((len(edges), 1))
    for _ in range(6):  # Newton's method, held by a normal prior of width 1
        share = 1 / (1 + np.exp(-(log_odds + shift)))
        slope = (edges * share * (1 - share)).sum(1, keepdims=True) + 1
        miss = ones - (edges * share).sum(1, keepdims=True) - shift
        shift = shift + np.clip(miss / slope, -1, 1)
    half = 1 << (MOST_BITS - 1)
    steps = np.clip(np.rint(shift[:, 0] / step), 1 - half, half)
    return (steps - steps.min()).astype(np.uint8)


def _monotone(by_bin: Any) -> Any:
    """Log odds of a set bit by bin, where they must not fall from one bin to the next (pool adjacent violators)."""
    pooled: list[tuple[int, int, int]] = []  # clear, set, bins
    for clear, ones in by_bin.T.tolist():
        here = clear, ones, 1
        while pooled and pooled[-1][1] * (here[0] + here[1]) >= here[1] * (pooled[-1][0] + pooled[-1][1]):
            before = pooled.pop()
            here = before[0] + here[0], before[1] + here[1], before[2] + here[2]
        pooled.append(here)
    clear, ones, bins = np.array(pooled).T
    return np.repeat(np.maximum.accumulate(np.log((ones + 0.5) / (clear + 0.5))), bins)


def _odds(counts: Any) -> Any:
    """uint16 by level, of clear and set bits [2, levels]; levels without an edge are even."""
    clear, ones = counts
    share = np.where(clear + ones > 0, ones / np.maximum(clear + ones, 1), 0.5)
    return np.clip(np.rint((share * (1 << 24) - 128) / 256), 0, 65535).astype(np.uint16)


def _counts(groups: Any, bits: Any, number: int) -> Any:
    both = np.bincount(groups.astype(np.int64) * 2 + bits, minlength=2 * number)
    return both.reshape(number, 2).T


def _counts_of_each(groups: Any, bits: Any) -> Any:
    """`_counts` of several groupings of the same edges, [number, edges]: [number, 2, _GROUPS]."""
    keys = np.arange(len(groups))[:, None] * (2 * _GROUPS) + groups * 2 + bits
    both = np.bincount(keys.reshape(-1), minlength=len(groups) * 2 * _GROUPS)
    return both.reshape(len(groups), _GROUPS, 2).swapaxes(1, 2)


def _entropy(counts: Any) -> Any:
    """Bits that it takes to say which bits are set, given how many are in each group: of counts [..., 2, groups]."""
    total = counts.sum(-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(counts > 0, counts * np.log2(total / np.maximum(counts, 1)), 0)
    return parts.sum((-2, -1))
