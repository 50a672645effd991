"""Which edges a layer selects: the exact threshold of its `kept` highest scores, for all layers in one call.

A score becomes an int32 key that orders as the score ranks. `abs`: the bits of |s|. `raw`: the bits of s, those of a
negative number with all but the sign inverted, and -0.0 as +0.0. Below every number stands NAN_KEY, below that
REMOVED_KEY, which an edge has that hard pruning removed. Edges of equal key rank by flat index, the smaller first, so
the threshold is a pair (tau, last_tied), and an edge is selected iff

    key > tau  or  key == tau and index <= last_tied,    and it is a survivor.

`last_tied` is n - 1 where every edge with key tau is selected. With fewer survivors than `kept`, tau is NAN_KEY and
last_tied is n - 1: every survivor is selected.

On the GPU this is a radix select on rank = key ^ 2**31, in three digits of 11 bits from the top (the last shares one
bit with its predecessor, which does no harm, as its candidates agree in it). A pass counts the digits of the edges that
have the digits found so far. There is no launch between passes to find the digit: every program of the next one scans
its layer's 2048 counts itself. Then one launch counts the ties of each tile, and one finds the tile and in it the edge
of the last tie; both read scores only in layers where not all ties are selected. That makes 5 launches, one memset and
one copy of a table of addresses, whatever the number of layers, and 12 bytes read an edge (16 in a layer whose ties
are cut), plus 1 bit an edge and pass where there are survivors. Counts and indices are int64, so a layer may have more
than 2**31 edges. All arithmetic is integer: the result is the same whatever order the atomics take.

On the CPU a sample of the keys brackets the threshold and one pass finds it (kernels/threshold_cpu.py).
"""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from kernels._launch import cdiv, define_op, interpreted, jit, launch, tl
from kernels.bits import words_per_row
from kernels.threshold_cpu import INF_BITS, NAN_KEY, REMOVED_KEY, select_layer

__all__ = ["NAN_KEY", "REMOVED_KEY", "score_key", "score_keys", "select", "selected"]

DIGITS = 3
DIGIT_BITS = 11
FIELDS = 8  # a row of the table: addresses of scores and survivors, edges, cols, words, first tile; rows of 64 bytes


@jit
def score_key(s, ABSOLUTE: tl.constexpr):
    """The int32 keys of float32 scores (`score_keys` inside a kernel)."""
    bits = s.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    key = magnitude if ABSOLUTE else tl.where(magnitude == 0, 0, bits ^ ((bits >> 31) & 0x7FFFFFFF))
    return tl.where(magnitude > 0x7F800000, -2147483647, key)  # NAN_KEY: kernels cannot read plain globals


@jit
def _tile(row_ptr, tile, TILE: tl.constexpr):
    """A tile of the layer at `row_ptr`: its first edge, length and scores; the survivors from the first edge's row on
    (0: all, and then words is 0), cols, words, the first edge's col. What is counted from there fits 32 bits."""
    start = tile * TILE
    length = tl.minimum(tl.load(row_ptr + 2) - start, TILE).to(tl.int32)
    scores_ptr = tl.load(row_ptr).to(tl.pointer_type(tl.float32)) + start
    survivors = tl.load(row_ptr + 1)
    cols = tl.load(row_ptr + 3)
    words = tl.load(row_ptr + 4)
    row = start // cols
    survivors += 4 * words * row
    col = (start - row * cols).to(tl.uint32)
    return start, length, scores_ptr, survivors, cols.to(tl.uint32), words.to(tl.int32), col


@jit
def _ranks(offs, length, scores_ptr, survivors, cols, words, col, ABSOLUTE: tl.constexpr):
    """Ranks of the edges of a tile: int32 bit patterns that order as unsigned numbers. Past the end, any rank."""
    # An address inside in place of a mask, so that no load waits for another's predicate.
    offs = tl.minimum(offs, length - 1)
    rank = score_key(tl.load(scores_ptr + offs), ABSOLUTE) ^ -2147483648
    if survivors != 0:
        along = col + offs.to(tl.uint32)
        row = along // cols
        bit = (along - row * cols).to(tl.int32)
        word = tl.load(survivors.to(tl.pointer_type(tl.int32)) + (row.to(tl.int32) * words + (bit >> 5)))
        rank = tl.where(((word >> (bit & 31)) & 1) != 0, rank, 0)
    return rank


@jit
def _narrow(
    kept_ptr, count_ptr, state_ptr, layers, layer, step, DIGIT_BITS: tl.constexpr,
):  # fmt: skip
    """What `step` passes tell of a layer: tau's leading digits, how many edges rank above all those that have them, and
    how many have them."""
    BINS: tl.constexpr = 1 << DIGIT_BITS
    prefix = tl.full((), 0, tl.int64)
    above = tl.full((), 0, tl.int64)
    equal = tl.full((), 0, tl.int64)
    if step > 0:
        previous = layers.to(tl.int64) * (step - 1) + layer
        offs = tl.arange(0, BINS)
        count = tl.load(count_ptr + previous * BINS + (BINS - 1 - offs))
        upto = tl.cumsum(count, 0)
        prefix = tl.load(state_ptr + previous * 2)
        above = tl.load(state_ptr + previous * 2 + 1)
        short = upto < tl.load(kept_ptr + layer) - above
        # A `kept` that exceeds the layer (unchecked on the GPU) leaves every count short: stay inside the bins.
        digit = BINS - 1 - tl.minimum(tl.sum(short.to(tl.int32), 0), BINS - 1)
        equal = tl.sum(tl.where(BINS - 1 - offs == digit, count, 0), 0)
        above += tl.max(tl.where(short, upto, 0), 0)
        prefix |= digit.to(tl.int64) << tl.maximum(32 - step * DIGIT_BITS, 0)
    return prefix, above, equal


@jit(do_not_specialize=["layers", "step"])
def _select_count_kernel(
    table_ptr, layer_ptr, kept_ptr, state_ptr, count_ptr, layers, step, ABSOLUTE: tl.constexpr,
    DIGIT_BITS: tl.constexpr, FIELDS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile: the digits of its edges that have tau's first `step` digits, added to the layer's counts."""
    BINS: tl.constexpr = 1 << DIGIT_BITS
    pid = tl.program_id(0)
    layer = tl.load(layer_ptr + pid)
    prefix, above, _ = _narrow(kept_ptr, count_ptr, state_ptr, layers, layer, step, DIGIT_BITS)
    row_ptr = table_ptr + layer * FIELDS
    tile = pid - tl.load(row_ptr + 5)
    current = layers.to(tl.int64) * step + layer
    if tile == 0:
        tl.store(state_ptr + current * 2, prefix)
        tl.store(state_ptr + current * 2 + 1, above)

    _, length, scores_ptr, survivors, cols, words, col = _tile(row_ptr, tile, TILE)
    shift = tl.maximum(32 - (step + 1) * DIGIT_BITS, 0)
    known = tl.where(step > 0, -1 << (32 - step * DIGIT_BITS), 0)
    digits = prefix.to(tl.int32)
    found = tl.zeros((BINS,), tl.int32)
    for first in range(0, length, BLOCK):
        offs = first + tl.arange(0, BLOCK)
        rank = _ranks(offs, length, scores_ptr, survivors, cols, words, col, ABSOLUTE)
        alike = (offs < length) & (((rank ^ digits) & known) == 0)
        found += tl.histogram((rank >> shift) & (BINS - 1), BINS, mask=alike)
    tl.atomic_add(count_ptr + current * BINS + tl.arange(0, BINS), found.to(tl.int64), mask=found > 0, sem="relaxed")


@jit(do_not_specialize=["layers"])
def _select_ties_kernel(
    table_ptr, layer_ptr, kept_ptr, state_ptr, count_ptr, ties_ptr, layers, ABSOLUTE: tl.constexpr,
    DIGITS: tl.constexpr, DIGIT_BITS: tl.constexpr, FIELDS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile: how many of its edges have key tau, where not all of the layer's are selected."""
    pid = tl.program_id(0)
    layer = tl.load(layer_ptr + pid)
    prefix, above, equal = _narrow(kept_ptr, count_ptr, state_ptr, layers, layer, DIGITS, DIGIT_BITS)
    if (prefix != 0) & (equal > tl.load(kept_ptr + layer) - above):
        row_ptr = table_ptr + layer * FIELDS
        tile = pid - tl.load(row_ptr + 5)
        _, length, scores_ptr, survivors, cols, words, col = _tile(row_ptr, tile, TILE)
        tau = prefix.to(tl.int32)
        ties = tl.zeros((BLOCK,), tl.int32)
        for first in range(0, length, BLOCK):
            offs = first + tl.arange(0, BLOCK)
            rank = _ranks(offs, length, scores_ptr, survivors, cols, words, col, ABSOLUTE)
            ties += ((offs < length) & (rank == tau)).to(tl.int32)
        tl.store(ties_ptr + pid, tl.sum(ties, 0))


@jit(do_not_specialize=["layers"])
def _select_threshold_kernel(
    table_ptr, kept_ptr, state_ptr, count_ptr, ties_ptr, tau_ptr, last_ptr, layers, ABSOLUTE: tl.constexpr,
    DIGITS: tl.constexpr, DIGIT_BITS: tl.constexpr, FIELDS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """One layer: tau, and among its ties the last selected."""
    layer = tl.program_id(0).to(tl.int64)
    row_ptr = table_ptr + layer * FIELDS
    prefix, above, equal = _narrow(kept_ptr, count_ptr, state_ptr, layers, layer, DIGITS, DIGIT_BITS)
    edges = tl.load(row_ptr + 2)
    wanted = tl.load(kept_ptr + layer) - above
    last = edges - 1
    if (prefix != 0) & (equal > wanted):
        tiles = (edges + TILE - 1) // TILE
        tile = tl.full((), 0, tl.int64)
        passed = tl.full((), 0, tl.int64)
        before = tl.full((), 0, tl.int64)
        ties_ptr += tl.load(row_ptr + 5)
        for first in range(0, tiles, TILES):
            offs = first + tl.arange(0, TILES)
            ties = tl.load(ties_ptr + offs, mask=offs < tiles, other=0).to(tl.int64)
            upto = passed + tl.cumsum(ties, 0)
            short = (offs < tiles) & (upto < wanted)
            tile += tl.sum(short.to(tl.int32), 0)
            before = tl.maximum(before, tl.max(tl.where(short, upto, 0), 0))
            passed += tl.sum(ties, 0)

        start, length, scores_ptr, survivors, cols, words, col = _tile(row_ptr, tile, TILE)
        tau = prefix.to(tl.int32)
        last = tl.full((), -1, tl.int64)
        for first in range(0, length, BLOCK):
            offs = first + tl.arange(0, BLOCK)
            rank = _ranks(offs, length, scores_ptr, survivors, cols, words, col, ABSOLUTE)
            tied = (offs < length) & (rank == tau)
            upto = before + tl.cumsum(tied.to(tl.int32), 0)
            last = tl.maximum(last, tl.max(tl.where(tied & (upto == wanted), start + offs, -1), 0))
            before += tl.sum(tied.to(tl.int32), 0)
    # No rank below that of NaN is ever a threshold: a layer short of survivors selects them all.
    tl.store(tau_ptr + layer, (tl.maximum(prefix, 1) ^ 2147483648).to(tl.int32))
    tl.store(last_ptr + layer, last)


def score_keys(scores: Tensor, absolute: bool) -> Tensor:
    """The int32 keys, in the shape of the float32 `scores`, that order as scores rank (see the module's docstring)."""
    bits = scores.detach().view(torch.int32)
    magnitude = bits & 0x7FFFFFFF
    key = magnitude if absolute else torch.where(magnitude == 0, 0, bits ^ ((bits >> 31) & 0x7FFFFFFF))
    return torch.where(magnitude > INF_BITS, NAN_KEY, key)


def selected(scores: Tensor, tau: Tensor, last_tied: Tensor, absolute: bool) -> Tensor:
    """Which edges a threshold selects, survivors or not: boolean [rows, cols].

    Args:
        scores: float32 of any shape; its first dimension is rows.
        tau: the threshold's key, int32, one element of any shape.
        last_tied: flat index of the last edge selected of those with key tau, int64, one element of any shape.
        absolute: whether edges rank by |score| or by score.
    """
    keys = score_keys(scores, absolute).reshape(scores.shape[0], -1)
    edges = torch.arange(keys.numel(), device=keys.device).view(keys.shape)
    tau, last_tied = tau.reshape(()), last_tied.reshape(())
    return (keys > tau) | ((keys == tau) & (edges <= last_tied))


def _select_torch(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    counts: list[int] = kept.tolist()
    for layer, (s, count) in enumerate(zip(scores, counts, strict=True)):
        if not 1 <= count <= s.numel():
            raise ValueError(f"layer {layer}: kept is {count}: expected 1 to {s.numel()}, the layer's edges")
    found = [select_layer(s, count, alive, absolute) for s, count, alive in zip(scores, counts, survivors, strict=True)]
    tau = torch.tensor([key for key, _ in found], dtype=torch.int32)
    return tau, torch.tensor([last for _, last in found], dtype=torch.int64)


def _tables(
    scores: Sequence[Tensor], survivors: Sequence[Optional[Tensor]], tile: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """On the device, in one copy: the FIELDS of each layer, and the layer of each tile."""
    rows, first = [], 0
    for s, alive in zip(scores, survivors, strict=True):
        edges, words = s.numel(), 0 if alive is None else alive.shape[1]
        address = 0 if alive is None else alive.data_ptr()
        rows.append((s.data_ptr(), address, edges, edges // s.shape[0], words, first, 0, 0))
        first += cdiv(edges, tile)
    # From pinned memory, so that the copy waits for nothing; the allocator keeps the memory until the copy is done.
    host = torch.empty(len(rows) * FIELDS + first, dtype=torch.int64, pin_memory=device.type == "cuda")
    fields, layers = np.split(host.numpy(), [len(rows) * FIELDS])
    fields[:] = np.array(rows, dtype=np.int64).reshape(-1)
    layers[:] = np.repeat(np.arange(len(rows)), np.diff([*(row[5] for row in rows), first]))
    table = host.to(device, non_blocking=True)
    return table[: len(rows) * FIELDS], table[len(rows) * FIELDS :]


def _select_triton(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    device, count = kept.device, len(scores)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "select cannot be captured in a CUDA graph: it copies a table of addresses from host memory, which a "
            "replay would find reused; call it outside the graph"
        )
    # The interpreter takes milliseconds a program or step, so small layers must do to reach every loop's second step.
    TILE, BLOCK, TILES = (256, 128, 2) if interpreted() else (32768, 2048, 1024)
    table, layer_of = _tables(scores, survivors, TILE, device)
    state = torch.zeros(DIGITS * count * (2 + (1 << DIGIT_BITS)), dtype=torch.int64, device=device)
    state, counts = state[: DIGITS * count * 2], state[DIGITS * count * 2 :]
    ties = torch.empty(layer_of.numel(), dtype=torch.int32, device=device)
    tau = torch.empty(count, dtype=torch.int32, device=device)
    last_tied = torch.empty(count, dtype=torch.int64, device=device)
    tiles = (layer_of.numel(),)
    meta = {"ABSOLUTE": absolute, "DIGIT_BITS": DIGIT_BITS, "FIELDS": FIELDS, "TILE": TILE, "BLOCK": BLOCK}
    meta["num_warps"] = 8
    for step in range(DIGITS):
        launch(_select_count_kernel, tiles, table, layer_of, kept, state, counts, count, step, **meta)
    meta["DIGITS"] = DIGITS
    launch(_select_ties_kernel, tiles, table, layer_of, kept, state, counts, ties, count, **meta)
    meta["TILES"] = TILES
    launch(_select_threshold_kernel, (count,), table, kept, state, counts, ties, tau, last_tied, count, **meta)
    return tau, last_tied


def _select_fake(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool
) -> tuple[Tensor, Tensor]:
    return kept.new_empty(len(scores), dtype=torch.int32), kept.new_empty(len(scores))


_select = define_op("select", triton_impl=_select_triton, torch_impl=_select_torch, fake=_select_fake)


def select(
    scores: Sequence[Tensor], kept: Tensor, survivors: Sequence[Optional[Tensor]], absolute: bool = True
) -> tuple[Tensor, Tensor]:
    """The threshold of every layer: exactly `kept` of its edges lie on or above it, or every survivor where fewer are.

    Args:
        scores: of each layer, float32 [rows, ...], contiguous.
        kept: of each layer the edges to keep, 1 to all; int64 [layers], on the scores' device. Its values are checked
            on the CPU only: on a GPU that would wait for the device.
        survivors: of each layer the packed bits of the edges that may be selected, int32 [rows, words]; None is all.
        absolute: rank by |score| (`abs`) or by score (`raw`).

    Returns:
        tau, int32 [layers], the key of each threshold, and last_tied, int64 [layers], the flat index of the last edge
        selected of those with key tau (see `selected`).

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: lengths, shapes, layouts or devices disagree, or on the CPU a count is out of range.
    """
    if kept.dtype is not torch.int64:
        raise TypeError(f"kept is {kept.dtype}: expected torch.int64")
    if kept.shape != (len(scores),) or len(survivors) != len(scores):
        raise ValueError(
            f"{len(scores)} layers of scores, kept of shape {tuple(kept.shape)}, {len(survivors)} survivors: expected "
            "one of each for each layer (survivors may be None)"
        )
    for layer, (s, alive) in enumerate(zip(scores, survivors, strict=True)):
        _check_layer(layer, s, alive, kept.device)
    found: tuple[Tensor, Tensor] = _select([s.detach() for s in scores], kept.contiguous(), list(survivors), absolute)
    return found


def _check_layer(layer: int, scores: Tensor, survivors: Optional[Tensor], device: torch.device) -> None:
    if scores.dtype is not torch.float32:
        raise TypeError(f"layer {layer}: scores are {scores.dtype}: expected torch.float32; convert them with .float()")
    if scores.ndim == 0 or scores.numel() == 0:
        raise ValueError(f"layer {layer}: scores have shape {tuple(scores.shape)}: expected [rows, ...] with an edge")
    if not scores.is_contiguous():
        raise ValueError(
            f"layer {layer}: scores have strides {scores.stride()} for shape {tuple(scores.shape)}: expected a "
            "contiguous tensor; keep them .contiguous(), so that no call has to copy them"
        )
    for name, tensor in (("scores", scores), ("survivors", survivors)):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"layer {layer}: {name} are on {tensor.device}, kept on {device}: use one device")
    if survivors is None:
        return
    if survivors.dtype is not torch.int32:
        raise TypeError(f"layer {layer}: survivors are {survivors.dtype}: expected packed bits in torch.int32")
    cols = scores.numel() // scores.shape[0]
    if cols >= 2**31:
        raise ValueError(f"layer {layer}: {cols} columns: survivors are supported up to {2**31 - 1} columns")
    shape = (scores.shape[0], words_per_row(cols))
    if survivors.shape != shape or not survivors.is_contiguous():
        raise ValueError(
            f"layer {layer}: survivors have shape {tuple(survivors.shape)} and strides {survivors.stride()}: expected "
            f"contiguous packed bits {shape} for scores of shape {tuple(scores.shape)} (kernels.bits.pack)"
        )
