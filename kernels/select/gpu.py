"""Radix select: the thresholds of all layers (kernels/select/op.py) in a fixed number of launches.

Scores are ranked by rank = key ^ 2**31, an unsigned number, in three digits of 11 bits from the top (the last shares
one bit with its predecessor, which does no harm, as its candidates agree in it). A pass counts the digits of the edges
that have the digits found so far. There is no launch between passes to find the digit: every program of the next one
scans its layer's 2048 counts itself. Then one launch counts the ties of each tile, and one finds the tile and in it the
edge of the last tie; both read scores only in layers where not all ties are selected. With one before, that tells each
tile its layer, these are 6 launches, one memset and one copy of a table of addresses (kernels/base/table.py), whatever
the number of layers, and 12 bytes read an edge (16 in a layer whose ties are cut), plus 1 bit an edge and pass where
there are survivors. Counts and indices are int64, so a layer may have more than 2**31 edges. All arithmetic is integer:
the result is the same whatever order the atomics take.

A threshold is a line: a layer has one a coat, one after the other. The first digit's counts serve all coats of a
layer. After it each coat has digits of its own, and so a histogram, made by a program of its own, since histograms are
what registers and time go to. The programs of a tile are neighbours in the grid, so that it comes from memory once and
the rest of them find it in the cache. The launches are as many as for one coat.

The passes may be given fewer edges than the layer has, where it is known that the threshold is among these
(kernels/score_step/op.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.bits import words_per_row
from supermask.kernels.base.keys import Threshold, score_key
from supermask.kernels.base.launch import jit, launch, tl
from supermask.kernels.base.table import dealt, on_device, spread
from supermask.kernels.select.sizes import SIZES

DIGITS = 3
DIGIT_BITS = 11
# A row of a table, 64 bytes: addresses of scores and survivors, edges, cols, words, first tile, `reciprocal` of cols.
FIELDS, FIRST_TILE = 8, 5


@jit
def tile_of(row_ptr, tile, TILE: tl.constexpr):
    """A tile of the layer at `row_ptr`: its first edge, length and scores; the survivors from the first edge's row on
    (0: all), that row, and what `word_and_bit` wants to know. What is counted from there fits 32 bits."""
    start = tile * TILE
    length = tl.minimum(tl.load(row_ptr + 2) - start, TILE).to(tl.int32)
    scores_ptr = tl.load(row_ptr).to(tl.pointer_type(tl.float32)) + start
    survivors = tl.load(row_ptr + 1)
    cols = tl.load(row_ptr + 3)
    words = tl.load(row_ptr + 4)
    row = start // cols
    survivors = tl.where(survivors != 0, survivors + 4 * words * row, 0)
    col = (start - row * cols).to(tl.uint32)
    bits = tl.load(row_ptr + 7).to(tl.uint32)
    packing = col, cols.to(tl.uint32), words.to(tl.int32), tl.load(row_ptr + 6).to(tl.uint32), bits
    return start, length, scores_ptr, survivors, row, packing


@jit
def word_and_bit(offs, packing):
    """Where packed bits hold the edges at `offs` in a tile: the word from the row of its first edge on, the bit."""
    col, cols, words, factor, bits = packing
    along = col + offs.to(tl.uint32)
    # Divided by multiplication, which takes a third of the instructions.
    half = tl.umulhi(along, factor)
    down = (half + ((along - half) >> tl.minimum(bits, 1))) >> (tl.maximum(bits, 1) - 1)
    bit = (along - down * cols).to(tl.int32)
    return down.to(tl.int32) * words + (bit >> 5), bit & 31


@jit
def _ranks(offs, length, scores_ptr, survivors, packing, ABSOLUTE: tl.constexpr):
    """Ranks of the edges of a tile: int32 bit patterns that order as unsigned numbers. Past the end, any rank."""
    # An address inside in place of a mask, so that no load waits for another's predicate.
    offs = tl.minimum(offs, length - 1)
    rank = score_key(tl.load(scores_ptr + offs), ABSOLUTE) ^ -2147483648
    if survivors != 0:
        at, bit = word_and_bit(offs, packing)
        word = tl.load(survivors.to(tl.pointer_type(tl.int32)) + at)
        rank = tl.where(((word >> bit) & 1) != 0, rank, 0)
    return rank


@jit
def _narrow(
    kept_ptr, count_ptr, state_ptr, lines, line, coats, step, DIGIT_BITS: tl.constexpr,
):  # fmt: skip
    """What `step` passes tell of a line: tau's leading digits, how many edges rank above all those that have them, and
    how many have them."""
    BINS: tl.constexpr = 1 << DIGIT_BITS
    prefix = tl.full((), 0, tl.int64)
    above = tl.full((), 0, tl.int64)
    equal = tl.full((), 0, tl.int64)
    if step > 0:
        before = lines.to(tl.int64) * (step - 1)
        previous = before + line
        # Those of the first digit are the same for all coats, and stand with the first.
        counted = before + tl.where(step == 1, line // coats * coats, line)
        offs = tl.arange(0, BINS)
        count = tl.load(count_ptr + counted * BINS + (BINS - 1 - offs))
        upto = tl.cumsum(count, 0)
        prefix = tl.load(state_ptr + previous * 2)
        above = tl.load(state_ptr + previous * 2 + 1)
        short = upto < tl.load(kept_ptr + line) - above
        # A `kept` that exceeds the layer (unchecked on the GPU) leaves every count short: stay inside the bins.
        digit = BINS - 1 - tl.minimum(tl.sum(short.to(tl.int32), 0), BINS - 1)
        equal = tl.sum(tl.where(BINS - 1 - offs == digit, count, 0), 0)
        above += tl.max(tl.where(short, upto, 0), 0)
        prefix |= digit.to(tl.int64) << tl.maximum(32 - step * DIGIT_BITS, 0)
    return prefix, above, equal


@jit(do_not_specialize=["lines", "step"])
def _select_count_kernel(
    table_ptr, layer_ptr, kept_ptr, state_ptr, count_ptr, lines, coats, programs, step, ABSOLUTE: tl.constexpr,
    DIGIT_BITS: tl.constexpr, FIELDS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile, by one of its `programs`: the digits of its edges that have tau's first `step` digits, added to the
    line's counts."""
    BINS: tl.constexpr = 1 << DIGIT_BITS
    pid = tl.program_id(0) // programs
    layer = tl.load(layer_ptr + pid)
    line = layer * coats + tl.program_id(0) % programs
    row_ptr = table_ptr + layer * FIELDS
    tile = pid - tl.load(row_ptr + 5)
    if tile * TILE < tl.load(row_ptr + 2):  # else the layer's row is that of fewer edges than the grid is made for
        prefix, above, _ = _narrow(kept_ptr, count_ptr, state_ptr, lines, line, coats, step, DIGIT_BITS)
        current = lines.to(tl.int64) * step + line
        if tile == 0:
            tl.store(state_ptr + current * 2, prefix)
            tl.store(state_ptr + current * 2 + 1, above)

        _, length, scores_ptr, survivors, _, packing = tile_of(row_ptr, tile, TILE)
        shift = tl.maximum(32 - (step + 1) * DIGIT_BITS, 0)
        known = tl.where(step > 0, -1 << (32 - step * DIGIT_BITS), 0)
        digits = prefix.to(tl.int32)
        found = tl.zeros((BINS,), tl.int32)
        for first in range(0, length, BLOCK):
            offs = first + tl.arange(0, BLOCK)
            rank = _ranks(offs, length, scores_ptr, survivors, packing, ABSOLUTE)
            alike = (offs < length) & (((rank ^ digits) & known) == 0)
            found += tl.histogram((rank >> shift) & (BINS - 1), BINS, mask=alike)
        bins_ptr = count_ptr + current * BINS + tl.arange(0, BINS)
        tl.atomic_add(bins_ptr, found.to(tl.int64), mask=found > 0, sem="relaxed")


@jit(do_not_specialize=["lines"])
def _select_ties_kernel(
    table_ptr, layer_ptr, kept_ptr, state_ptr, count_ptr, ties_ptr, lines, coats, ABSOLUTE: tl.constexpr,
    DIGITS: tl.constexpr, DIGIT_BITS: tl.constexpr, FIELDS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile and coat: how many of its edges have key tau, where not all of the layer's are selected."""
    pid = tl.program_id(0) // coats
    layer = tl.load(layer_ptr + pid)
    line = layer * coats + tl.program_id(0) % coats
    prefix, above, equal = _narrow(kept_ptr, count_ptr, state_ptr, lines, line, coats, DIGITS, DIGIT_BITS)
    if (prefix != 0) & (equal > tl.load(kept_ptr + line) - above):
        row_ptr = table_ptr + layer * FIELDS
        tile = pid - tl.load(row_ptr + 5)
        _, length, scores_ptr, survivors, _, packing = tile_of(row_ptr, tile, TILE)
        tau = prefix.to(tl.int32)
        ties = tl.zeros((BLOCK,), tl.int32)
        for first in range(0, length, BLOCK):
            offs = first + tl.arange(0, BLOCK)
            rank = _ranks(offs, length, scores_ptr, survivors, packing, ABSOLUTE)
            ties += ((offs < length) & (rank == tau)).to(tl.int32)
        tl.store(ties_ptr + tl.program_id(0), tl.sum(ties, 0))


@jit(do_not_specialize=["lines"])
def _select_threshold_kernel(
    table_ptr, kept_ptr, state_ptr, count_ptr, ties_ptr, tau_ptr, last_ptr, lines, coats, ABSOLUTE: tl.constexpr,
    DIGITS: tl.constexpr, DIGIT_BITS: tl.constexpr, FIELDS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """One line: tau, and among its ties the last selected."""
    line = tl.program_id(0).to(tl.int64)
    row_ptr = table_ptr + line // coats * FIELDS
    prefix, above, equal = _narrow(kept_ptr, count_ptr, state_ptr, lines, line, coats, DIGITS, DIGIT_BITS)
    edges = tl.load(row_ptr + 2)
    wanted = tl.load(kept_ptr + line) - above
    last = edges - 1
    if (prefix != 0) & (equal > wanted):
        tiles = (edges + TILE - 1) // TILE
        tile = tl.full((), 0, tl.int64)
        passed = tl.full((), 0, tl.int64)
        before = tl.full((), 0, tl.int64)
        ties_ptr += tl.load(row_ptr + 5) * coats + line % coats  # a count a tile and coat
        for first in range(0, tiles, TILES):
            offs = first + tl.arange(0, TILES)
            ties = tl.load(ties_ptr + offs * coats, mask=offs < tiles, other=0).to(tl.int64)
            upto = passed + tl.cumsum(ties, 0)
            short = (offs < tiles) & (upto < wanted)
            tile += tl.sum(short.to(tl.int32), 0)
            before = tl.maximum(before, tl.max(tl.where(short, upto, 0), 0))
            passed += tl.sum(ties, 0)

        start, length, scores_ptr, survivors, _, packing = tile_of(row_ptr, tile, TILE)
        tau = prefix.to(tl.int32)
        last = tl.full((), -1, tl.int64)
        for first in range(0, length, BLOCK):
            offs = first + tl.arange(0, BLOCK)
            rank = _ranks(offs, length, scores_ptr, survivors, packing, ABSOLUTE)
            tied = (offs < length) & (rank == tau)
            upto = before + tl.cumsum(tied.to(tl.int32), 0)
            last = tl.maximum(last, tl.max(tl.where(tied & (upto == wanted), start + offs, -1), 0))
            before += tl.sum(tied.to(tl.int32), 0)
    # No rank below that of NaN is ever a threshold: a layer short of survivors selects them all.
    tl.store(tau_ptr + line, (tl.maximum(prefix, 1) ^ 2147483648).to(tl.int32))
    tl.store(last_ptr + line, last)


def reciprocal(divisor: int) -> tuple[int, int]:
    """A factor m < 2**32 and a number of bits b, for which t = n * m >> 32 gives every 0 <= n < 2**32 divided by
    `divisor`, as t + (n - t >> min(b, 1)) >> max(b, 1) - 1 (Granlund and Montgomery 1994, figure 4.1).

    Of a divisor from 2**32 on, which no packed bits have, something.
    """
    bits = (divisor - 1).bit_length()
    return (2**32 * (2**bits - divisor) // divisor + 1) % 2**32, bits


def layer_rows(scores: Sequence[Tensor], survivors: Sequence[Tensor | None]) -> tuple[Any, int]:
    """The FIELDS of each layer, int64, and the tiles of all."""
    tile = SIZES.of()["TILE"]
    rows = np.zeros((len(scores), FIELDS), np.int64)
    for row, s, alive in zip(rows, scores, survivors, strict=True):
        edges, cols = s.numel(), s.numel() // s.shape[0]
        row[:FIRST_TILE] = s.data_ptr(), 0 if alive is None else alive.data_ptr(), edges, cols, words_per_row(cols)
        row[FIRST_TILE + 1 :] = reciprocal(cols)
    rows[:, FIRST_TILE], tiles = dealt(-(-rows[:, 2] // tile))
    return rows, tiles


def select_launches(
    source: Tensor, table: Tensor, layer_of: Tensor, kept: Tensor, absolute: bool
) -> tuple[Threshold, Tensor]:
    """The launches of a selection.

    Args:
        source: FIELDS of each layer, of the edges that are counted: all, or what is left of them when those known to
            rank above are taken off `kept` and those known to rank below left out.
        table: FIELDS of each layer, of all edges; ties are resolved in these.
        layer_of: of each tile in `table` the layer.
        kept: how many of those in `source`; int64 [layers] or [layers, coats].

    Returns:
        The thresholds, and the counts of the first digit in `source`, int64 [layers, coats, 2**DIGIT_BITS], of which
        the first coat's alone are filled.
    """
    device, lines = kept.device, kept.numel()
    coats = kept.shape[1] if kept.ndim == 2 else 1
    sizes = dict(SIZES.of())
    tiles = sizes.pop("TILES")
    state = torch.zeros(DIGITS * lines * (2 + (1 << DIGIT_BITS)), dtype=torch.int64, device=device)
    state, counts = state[: DIGITS * lines * 2], state[DIGITS * lines * 2 :]
    ties = torch.empty(layer_of.numel() * coats, dtype=torch.int32, device=device)
    tau = torch.empty(kept.shape, dtype=torch.int32, device=device)
    last_tied = torch.empty(kept.shape, dtype=torch.int64, device=device)
    meta = {"ABSOLUTE": absolute, "DIGIT_BITS": DIGIT_BITS, "FIELDS": FIELDS, **sizes}
    known = state, counts
    for step in range(DIGITS):
        programs = coats if step else 1
        grid, counted = (layer_of.numel() * programs,), (lines, coats, programs, step)
        launch(_select_count_kernel, grid, source, layer_of, kept, *known, *counted, **meta)
    meta["DIGITS"] = DIGITS
    launch(_select_ties_kernel, (ties.numel(),), table, layer_of, kept, *known, ties, lines, coats, **meta)
    meta["TILES"] = tiles
    launch(_select_threshold_kernel, (lines,), table, kept, *known, ties, tau, last_tied, lines, coats, **meta)
    return Threshold(tau, last_tied), counts[: lines << DIGIT_BITS].view(len(kept), coats, 1 << DIGIT_BITS)


def select_triton(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Tensor | None], absolute: bool
) -> Threshold:
    rows, tiles = layer_rows(scores, survivors)
    table = on_device(rows, kept.device)
    layer_of = spread(table, tiles, field=FIRST_TILE, fields=FIELDS)
    return select_launches(table, table, layer_of, kept, absolute)[0]
