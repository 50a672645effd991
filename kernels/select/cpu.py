"""The threshold of a layer on CPU: exact, at about the cost of reading the scores once.

A strided sample of the keys brackets tau: two keys that hold it between them with near certainty. One pass over the
scores, in blocks of rows that stay in cache, counts the keys below the bracket and gathers the few inside, where tau is
found by partition. The counts tell whether tau is inside at all; where it is not, because the sample was unlucky or the
scores have the period of its stride, the same pass with a bracket of everything gives the same answer later. So what is
returned depends on the scores alone, and only the time on the sample. Coats have a bracket each, of one sample and for
one pass.

A partition of all keys would read no less and write them too: numpy's took four times as long on the machine at hand.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from supermask.kernels.base.bits import bits_of
from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, keys_of

_Bracket = tuple[int, int]
_EVERYTHING = REMOVED_KEY, 2**31 - 1
_BLOCK = 1 << 17  # edges: their keys, 512 KiB, and a byte or two an edge stay in a core's second-level cache
_SAMPLE = 1 << 14  # keys that bracket tau; of a layer with fewer than four times as many, all are inside
_DEVIATIONS = 4.0  # half the width of the bracket, in standard deviations of a random sample's count


def row_blocks(rows: int, cols: int) -> Iterator[slice]:
    """Rows in blocks of about `_BLOCK` edges."""
    step = _block_rows(rows, cols)
    return (slice(row, min(row + step, rows)) for row in range(0, rows, step))


def scratch(rows: int, cols: int) -> Any:
    """Room for the keys of the largest block."""
    return np.empty((_block_rows(rows, cols), cols), np.int32)


class _Layer:
    """The keys of one layer, made where they are read; those of removed edges are REMOVED_KEY."""

    def __init__(self, scores: Tensor, survivors: Tensor | None, absolute: bool) -> None:
        self.scores = scores.view(scores.shape[0], -1).numpy()
        self.survivors, self.absolute = survivors, absolute

    def blocks(self) -> Iterator[Any]:
        """All keys in flat order, a block at a time, to be read before the next is made."""
        rows, cols = self.scores.shape
        space = scratch(rows, cols)
        for block in row_blocks(rows, cols):
            scores = self.scores[block]
            keys = keys_of(scores, self.absolute, out=space[: len(scores)])
            if self.survivors is not None:
                _remove(keys, bits_of(self.survivors[block], cols))
            yield keys.reshape(-1)

    def sample(self) -> Any:
        """Keys at a stride that meets every column alike: rows and columns have scores of their own scale."""
        flat, cols = self.scores.reshape(-1), self.scores.shape[1]
        stride = flat.size // _SAMPLE
        while math.gcd(stride, cols) > 1:
            stride += 1
        sampled = flat[::stride]
        keys = keys_of(sampled, self.absolute, out=np.empty(sampled.shape, np.int32))
        if self.survivors is not None:
            row, col = np.divmod(np.arange(0, flat.size, stride), cols)
            _remove(keys, self.survivors.numpy()[row, col >> 5] >> (col & 31) & 1)
        return keys

    def brackets(self, places: Sequence[int]) -> list[_Bracket]:
        """Two keys for each place in ascending order, with that there between them unless the sample misleads."""
        if self.scores.size < 4 * _SAMPLE:
            return [_EVERYTHING for _ in places]
        keys = self.sample()
        ends = []
        for place in places:
            middle = place / self.scores.size * keys.size
            margin = _DEVIATIONS * math.sqrt(middle * (1 - middle / keys.size)) + 1
            ends.append((math.floor(middle - margin), math.ceil(middle + margin)))
        inside = [end for both in ends for end in both if 0 <= end < keys.size]
        if inside:
            keys.partition(inside)
        return [
            (int(keys[low]) if low >= 0 else REMOVED_KEY, int(keys[high]) if high < keys.size else _EVERYTHING[1])
            for low, high in ends
        ]

    def between(self, brackets: Sequence[_Bracket]) -> list[tuple[int, Any]]:
        """Of each bracket how many keys are below its lower one, and the keys within in flat order; in one pass. Equal
        brackets have one array between them."""
        below = dict.fromkeys(brackets, 0)
        inside: dict[_Bracket, list[Any]] = {bracket: [] for bracket in brackets}
        for keys in self.blocks():
            for bracket, found in inside.items():
                if bracket == _EVERYTHING:
                    found.append(keys.copy())
                    continue
                reached = keys >= bracket[0]
                below[bracket] += keys.size - np.count_nonzero(reached)
                reached &= keys <= bracket[1]
                found.append(keys.compress(reached))
        gathered = {bracket: np.concatenate(found) for bracket, found in inside.items()}
        return [(below[bracket], gathered[bracket]) for bracket in brackets]

    def ties(self, cut: Sequence[tuple[int, int]]) -> list[int]:
        """Of each tau and `wanted` the flat index of the `wanted`-th edge with that key, from 1; all in one pass."""
        if not cut:
            return []
        left, found, start = [wanted for _, wanted in cut], [-1 for _ in cut], 0
        for keys in self.blocks():
            for i, (tau, _) in enumerate(cut):
                if found[i] >= 0:
                    continue
                ties = np.flatnonzero(keys == tau)
                if left[i] <= ties.size:
                    found[i] = int(start + ties[left[i] - 1])
                left[i] -= ties.size
            if min(found) >= 0:
                return found
            start += keys.size
        raise RuntimeError(f"the scores changed while they were selected from: {left} edges of {cut} are gone")


def select_layer(
    scores: Tensor, kept: Sequence[int], survivors: Tensor | None, absolute: bool
) -> list[tuple[int, int]]:
    """tau and last_tied of each coat of one layer, which keeps so many; else as `supermask.kernels.select.select`."""
    edges = scores.numel()
    layer = _Layer(scores, survivors, absolute)
    places = [edges - count for count in kept]
    found = layer.between(layer.brackets(places))
    misled = [i for i, (below, inside) in enumerate(found) if not below <= places[i] < below + inside.size]
    if misled:
        (everything,) = layer.between([_EVERYTHING])
        for i in misled:
            found[i] = everything
    thresholds = [_tau(below, inside, place) for (below, inside), place in zip(found, places, strict=True)]
    last = iter(layer.ties([(tau, wanted) for tau, wanted in thresholds if wanted is not None]))
    return [(tau, edges - 1 if wanted is None else next(last)) for tau, wanted in thresholds]


def _tau(below: int, inside: Any, place: int) -> tuple[int, int | None]:
    """The key at `place`, and how many of the edges with it are selected; None is all."""
    inside.partition(place - below)
    tau = int(inside[place - below])
    if tau == REMOVED_KEY:
        return NAN_KEY, None
    wanted = below + inside.size - place - int(np.count_nonzero(inside > tau))
    return tau, None if wanted == np.count_nonzero(inside == tau) else wanted


def _remove(keys: Any, alive: Any) -> None:
    """Give edges that are not alive (0, of 0 and 1) the lowest key there is."""
    np.minimum(keys, -alive.astype(np.int32) ^ REMOVED_KEY, out=keys)


def _block_rows(rows: int, cols: int) -> int:
    return min(rows, max(1, _BLOCK // cols))
