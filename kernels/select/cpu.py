"""The threshold of a layer on CPU: exact, at about the cost of reading the scores once.

A strided sample of the keys brackets tau: two keys that hold it between them with near certainty. One pass over the
scores, in blocks of rows that stay in cache, counts the keys below the bracket and gathers the few inside, where tau is
found by partition. The counts tell whether tau is inside at all; where it is not, because the sample was unlucky or the
scores have the period of its stride, the same pass with a bracket of everything gives the same answer later. So what is
returned depends on the scores alone, and only the time on the sample.

A partition of all keys would read no less and write them too: numpy's took four times as long on the machine at hand.
"""

import math
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
from torch import Tensor

from supermask.kernels.base.bits import bits_of
from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, keys_of

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

    def __init__(self, scores: Tensor, survivors: Optional[Tensor], absolute: bool) -> None:
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

    def bracket(self, place: int) -> tuple[int, int]:
        """Two keys, with that at `place` in ascending order between them unless the sample misleads."""
        if self.scores.size < 4 * _SAMPLE:
            return _EVERYTHING
        keys = self.sample()
        middle = place / self.scores.size * keys.size
        margin = _DEVIATIONS * math.sqrt(middle * (1 - middle / keys.size)) + 1
        low, high = math.floor(middle - margin), math.ceil(middle + margin)
        inside = [place for place in (low, high) if 0 <= place < keys.size]
        if inside:
            keys.partition(inside)
        return int(keys[low]) if low >= 0 else REMOVED_KEY, int(keys[high]) if high < keys.size else _EVERYTHING[1]

    def between(self, low: int, high: int) -> tuple[int, Any]:
        """How many keys are below `low`, and the keys from `low` to `high` in flat order."""
        below, inside = 0, []
        for keys in self.blocks():
            if (low, high) == _EVERYTHING:
                inside.append(keys.copy())
                continue
            reached = keys >= low
            below += keys.size - np.count_nonzero(reached)
            reached &= keys <= high
            inside.append(keys.compress(reached))
        return below, np.concatenate(inside)

    def tie(self, tau: int, wanted: int) -> int:
        """Flat index of the `wanted`-th edge with key tau, counted from 1."""
        start = 0
        for keys in self.blocks():
            ties = np.flatnonzero(keys == tau)
            if wanted <= ties.size:
                return int(start + ties[wanted - 1])
            wanted -= ties.size
            start += keys.size
        raise RuntimeError(f"the scores changed while they were selected from: {wanted} edges with key {tau} are gone")


def select_layer(scores: Tensor, kept: int, survivors: Optional[Tensor], absolute: bool) -> tuple[int, int]:
    """tau and last_tied of one layer; arguments as in `supermask.kernels.select.select`."""
    edges = scores.numel()
    layer = _Layer(scores, survivors, absolute)
    place = edges - kept
    below, inside = layer.between(*layer.bracket(place))
    if not below <= place < below + inside.size:
        below, inside = layer.between(*_EVERYTHING)
    inside.partition(place - below)
    tau = int(inside[place - below])
    if tau == REMOVED_KEY:
        return NAN_KEY, edges - 1
    wanted = below + inside.size - place - np.count_nonzero(inside > tau)
    if wanted == np.count_nonzero(inside == tau):
        return tau, edges - 1
    return tau, layer.tie(tau, wanted)


def _remove(keys: Any, alive: Any) -> None:
    """Give edges that are not alive (0, of 0 and 1) the lowest key there is."""
    np.minimum(keys, -alive.astype(np.int32) ^ REMOVED_KEY, out=keys)


def _block_rows(rows: int, cols: int) -> int:
    return min(rows, max(1, _BLOCK // cols))
