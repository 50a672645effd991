"""score_step on the GPU (kernels/score_step/op.py): a fixed number of launches, and nothing that waits for the host.

One pass over all layers updates the scores, counts those above each layer's bracket and compacts those inside, in any
order, which no count sees. Then a launch of a program a layer writes the table from which the launches of the select
(kernels/select/gpu.py) learn what to count, compacted scores or all; ties it resolves over the whole layer. With it,
one for the next brackets and one that tells each tile its layer there are 9 launches, two more where signs are drawn
from a seed, two memsets and one copy of a table of addresses, whatever the number of layers.

A step moves 12 bytes an edge, 8 more with momentum, 4 more where theta0 is dense, a bit for signs, one for survivors.
Signs are drawn in a launch before, where a thread makes the Philox call of 128 edges: here every thread of these would
make it again. A layer whose bracket fails costs 12 bytes an edge more, one whose ties are cut 4.
All that is compared, counted and bracketed is integer: the result is the same whatever order the atomics take.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.keys import Threshold, score_key
from supermask.kernels.base.launch import interpreted, jit, launch, tl
from supermask.kernels.base.sgd import Sgd
from supermask.kernels.base.table import dealt, on_device, spread
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.sizes import SIZES
from supermask.kernels.select import sizes as select_sizes
from supermask.kernels.select.gpu import (
    DIGIT_BITS,
    FIELDS,
    FIRST_TILE,
    layer_rows,
    select_launches,
    tile_of,
    word_and_bit,
)

# Fields of a layer: addresses of gradient, momentum, signs, theta0, constant, compacted; room there; Philox' three; how
# many launches' worth of Philox calls come before.
STEPS, FIRST_CALL = 11, 10
ROOM = 16  # the bracket may hold so many times fewer edges than the layer has
SIDE = 100  # and is meant to hold so many times fewer on each side of tau


@jit
def _score_signs_kernel(
    steps_ptr, table_ptr, layer_ptr, FIELDS: tl.constexpr, STEPS: tl.constexpr, FIRST_CALL: tl.constexpr,
    CALLS: tl.constexpr,
):  # fmt: skip
    """Sign words of `CALLS` Philox calls of a layer: 128 edges each, none made twice."""
    pid = tl.program_id(0)
    layer = tl.load(layer_ptr + pid)
    step_ptr = steps_ptr + layer * STEPS
    first = (pid - tl.load(step_ptr + FIRST_CALL)) * CALLS
    row_ptr = table_ptr + layer * FIELDS
    calls = tl.load(row_ptr + 4) // 4  # in a row
    total = tl.load(row_ptr + 2) // tl.load(row_ptr + 3) * calls
    row = first // calls
    along = (first - row * calls).to(tl.uint32) + tl.arange(0, CALLS).to(tl.uint32)
    down = along // calls.to(tl.uint32)
    position = (along - down * calls.to(tl.uint32)).to(tl.int32)
    seed = tl.load(step_ptr + 7)
    index = tl.load(step_ptr + 8).to(tl.int32)
    stream = tl.load(step_ptr + 9).to(tl.int32)
    drawn = tl.philox(seed, position, row.to(tl.int32) + down.to(tl.int32), index, stream)
    words_ptr = tl.load(step_ptr + 2).to(tl.pointer_type(tl.int32)) + 4 * first
    offs = tl.arange(0, CALLS)
    inside = offs < tl.minimum(total - first, CALLS).to(tl.int32)
    for j in tl.static_range(4):
        tl.store(words_ptr + 4 * offs + j, drawn[j].to(tl.int32, bitcast=True), mask=inside)


@jit
def _signed(g, minus, s, ABSOLUTE: tl.constexpr):
    """g with its sign changed where the lowest bit of `minus` is set and, for absolute scores, where s < 0."""
    if ABSOLUTE:
        minus = minus ^ (s < 0.0).to(tl.int32)
    return (g.to(tl.int32, bitcast=True) ^ (minus << 31)).to(tl.float32, bitcast=True)


@jit
def _gather(s, found, count_ptr, compact_ptr, room):
    """Count those found of a block and append their scores, while there is room."""
    each = tl.sum(found, 0)  # of the columns, of which a thread holds whole ones: scanning these takes few exchanges
    count = tl.sum(each, 0)
    if count > 0:
        before = tl.atomic_add(count_ptr, count.to(tl.int64), sem="relaxed")
        place = (tl.cumsum(each, 0) - each)[None, :] + tl.cumsum(found, 0) - 1
        left = tl.minimum(tl.maximum(room - before, 0), count).to(tl.int32)
        tl.store(compact_ptr + before + place, s, mask=(found != 0) & (place < left))


@jit
def _score_step_kernel(
    table_ptr, steps_ptr, layer_ptr, bracket_ptr, lr_ptr, count_ptr, momentum, weight_decay, ABSOLUTE: tl.constexpr,
    DECAY: tl.constexpr, MOMENTUM: tl.constexpr, NESTEROV: tl.constexpr, FIELDS: tl.constexpr, STEPS: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, STRIPS: tl.constexpr,
):  # fmt: skip
    """One tile: its scores stepped, those that come to lie above the bracket counted, those inside counted and kept."""
    pid = tl.program_id(0)
    layer = tl.load(layer_ptr + pid)
    row_ptr = table_ptr + layer * FIELDS
    step_ptr = steps_ptr + layer * STEPS
    tile = pid - tl.load(row_ptr + 5)
    start, length, scores_ptr, survivors, row, packing = tile_of(row_ptr, tile, TILE)
    grads_ptr = tl.load(step_ptr).to(tl.pointer_type(tl.float32)) + start
    momenta_ptr = tl.load(step_ptr + 1).to(tl.pointer_type(tl.float32)) + start
    signs_ptr = tl.load(step_ptr + 2).to(tl.pointer_type(tl.int32)) + row * tl.load(row_ptr + 4)
    base = tl.load(step_ptr + 3)
    constant = tl.load(tl.load(step_ptr + 4).to(tl.pointer_type(tl.float32)))
    compact_ptr = tl.load(step_ptr + 5).to(tl.pointer_type(tl.float32))
    room = tl.load(step_ptr + 6)
    low = tl.load(bracket_ptr + 2 * layer)
    high = tl.load(bracket_ptr + 2 * layer + 1)
    minus_lr = -tl.load(lr_ptr)
    count_ptr += 2 * layer
    above = tl.zeros((BLOCK // STRIPS,), tl.int32)
    for first in range(0, length, BLOCK):
        strip = first + tl.arange(0, STRIPS) * (BLOCK // STRIPS)
        offs = strip[:, None] + tl.arange(0, BLOCK // STRIPS)[None, :]
        inside = offs < length
        s = tl.load(scores_ptr + offs, mask=inside, other=0.0)
        g = tl.load(grads_ptr + offs, mask=inside, other=0.0)
        at, bit = word_and_bit(offs, packing)
        alive = inside
        if survivors != 0:
            word = tl.load(survivors.to(tl.pointer_type(tl.int32)) + at, mask=inside, other=0)
            alive = inside & (((word >> bit) & 1) != 0)
        minus = tl.zeros_like(at)
        if base != 0:
            theta_ptr = base.to(tl.pointer_type(tl.float32)) + start
            g = g * tl.load(theta_ptr + offs, mask=inside, other=0.0)
        else:
            g = g * constant
            minus = tl.load(signs_ptr + at, mask=inside, other=0) >> bit
        g = tl.where(alive, _signed(g, minus, s, ABSOLUTE), 0.0)

        if DECAY:
            g = tl.fma(weight_decay, s, g)
        if MOMENTUM:
            v = tl.load(momenta_ptr + offs, mask=inside, other=0.0) * momentum + g
            tl.store(momenta_ptr + offs, v, mask=inside)
            g = tl.fma(momentum, v, g) if NESTEROV else v
        s = tl.fma(minus_lr, g, s)
        tl.store(scores_ptr + offs, s, mask=inside)

        key = score_key(s, ABSOLUTE)
        above += tl.sum((alive & (key > high)).to(tl.int32), 0)
        _gather(s, (alive & (key >= low) & (key <= high)).to(tl.int32), count_ptr + 1, compact_ptr, room)
    tl.atomic_add(count_ptr, tl.sum(above, 0).to(tl.int64), sem="relaxed")


@jit
def _hit(step_ptr, kept, count_ptr, layer):
    """Whether tau is in the bracket; how many edges are above, how many inside."""
    above = tl.load(count_ptr + 2 * layer)
    inside = tl.load(count_ptr + 2 * layer + 1)
    return (above < kept) & (kept <= above + inside) & (inside <= tl.load(step_ptr + 6)), above, inside


@jit
def _score_source_kernel(
    table_ptr, steps_ptr, kept_ptr, count_ptr, source_ptr, wanted_ptr, FIELDS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """One layer: what the select is to count, and how many edges it is to keep of that."""
    layer = tl.program_id(0).to(tl.int64)
    step_ptr = steps_ptr + layer * STEPS
    kept = tl.load(kept_ptr + layer)
    hit, above, inside = _hit(step_ptr, kept, count_ptr, layer)
    field = tl.arange(0, FIELDS)
    row = tl.load(table_ptr + layer * FIELDS + field)
    compacted = tl.where(field == 0, tl.load(step_ptr + 5), tl.where(field == 1, 0, tl.where(field == 2, inside, row)))
    tl.store(source_ptr + layer * FIELDS + field, tl.where(hit, compacted, row))
    tl.store(wanted_ptr + layer, kept - tl.where(hit, above, 0))


@jit
def _rank_at(bins_ptr, place, lowest, highest, DIGIT_BITS: tl.constexpr):
    """About the rank of the `place`-th highest of those counted, all from `lowest` to `highest`: as if they lay evenly
    in each of the ranges that share a first digit, and beyond the outermost of these as in it."""
    BINS: tl.constexpr = 1 << DIGIT_BITS
    offs = tl.arange(0, BINS)
    count = tl.load(bins_ptr + (BINS - 1 - offs))
    upto = tl.cumsum(count, 0)
    short = upto < tl.minimum(tl.maximum(place, 1), tl.sum(count, 0))
    before = tl.max(tl.where(short, upto, 0), 0)
    digit = (BINS - 1 - tl.minimum(tl.sum(short.to(tl.int32), 0), BINS - 1)).to(tl.int64)
    count = tl.maximum(tl.load(bins_ptr + digit), 1)
    top = tl.minimum(((digit + 1) << (32 - DIGIT_BITS)) - 1, highest)
    width = top - tl.maximum(digit << (32 - DIGIT_BITS), lowest) + 1
    return top - (place - before) * width // count


@jit
def _score_bracket_kernel(
    table_ptr, steps_ptr, kept_ptr, count_ptr, wanted_ptr, bins_ptr, tau_ptr, bracket_ptr, DIGIT_BITS: tl.constexpr,
    FIELDS: tl.constexpr, STEPS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """One layer: the bracket for the next step."""
    layer = tl.program_id(0).to(tl.int64)
    wanted = tl.load(wanted_ptr + layer)
    hit, _, inside = _hit(steps_ptr + layer * STEPS, tl.load(kept_ptr + layer), count_ptr, layer)
    within = inside <= tl.load(steps_ptr + layer * STEPS + 6)
    lost = within & (tl.load(bracket_ptr + 2 * layer) <= tl.load(bracket_ptr + 2 * layer + 1))
    lowest = tl.where(hit, tl.load(bracket_ptr + 2 * layer).to(tl.int64), -2147483648) + 2147483648
    highest = tl.where(hit, tl.load(bracket_ptr + 2 * layer + 1).to(tl.int64), 2147483647) + 2147483648
    # Where tau moved by more than half of what the bracket allows, twice as much is allowed next.
    moved = tl.where(hit, 2 * tl.abs(2 * wanted - inside) > inside, lost)
    side = (tl.load(table_ptr + layer * FIELDS + 2) // SIDE + 4) * tl.where(moved, 2, 1)
    rank = tl.load(tau_ptr + layer).to(tl.int64) + 2147483648
    bins_ptr += layer << DIGIT_BITS
    low = tl.minimum(_rank_at(bins_ptr, wanted + side, lowest, highest, DIGIT_BITS), rank)
    high = tl.maximum(_rank_at(bins_ptr, wanted - side, lowest, highest, DIGIT_BITS), rank)
    nothing = rank <= 1  # NaN, or fewer survivors than are to be kept
    low = tl.where(nothing, 1, tl.maximum(low, 1) - 2147483648)
    high = tl.where(nothing, 0, tl.minimum(high, 4294967295) - 2147483648)
    tl.store(bracket_ptr + 2 * layer, low.to(tl.int32))
    tl.store(bracket_ptr + 2 * layer + 1, high.to(tl.int32))


def score_step_triton(
    scores: Sequence[Tensor], grads: Sequence[Tensor], momenta: Sequence[Tensor], survivors: Sequence[Tensor | None],
    thetas: Sequence[Theta], kept: Tensor, brackets: Tensor, sgd: Sgd, absolute: bool,
) -> Threshold:  # fmt: skip
    device, count = kept.device, len(scores)
    sizes, tile = dict(SIZES.of()), select_sizes.SIZES.of()["TILE"]
    calls, slack = sizes.pop("CALLS"), 16 if interpreted() else 1024
    rows, tiles = layer_rows(scores, survivors)
    edges = rows[:, 2]
    room = np.minimum(edges, edges // ROOM + slack)
    seeded = [theta.signs is None and theta.base is None for theta in thetas]
    words = np.where(seeded, edges // rows[:, 3] * rows[:, 4], 0)
    compacted = torch.empty(int(room.sum()), device=device)
    drawn = torch.empty(int(words.sum()), dtype=torch.int32, device=device)
    fields = np.zeros((count, STEPS), np.int64)
    sources = zip(*((theta.signs, theta.base, theta.constant) for theta in thetas), strict=True)
    for field, tensors in enumerate((grads, momenta, *sources)):
        fields[: len(tensors), field] = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    fields[:, 2] += np.where(words > 0, drawn.data_ptr() + 4 * (words.cumsum() - words), 0)
    fields[:, 5] = compacted.data_ptr() + 4 * (room.cumsum() - room)
    fields[:, 6] = room
    fields[:, 7:FIRST_CALL] = np.array([theta.counter() for theta in thetas], np.int64).reshape(count, 3)
    fields[:, FIRST_CALL], draws = dealt(-(-words // (4 * calls)))
    table, steps = on_device(np.concatenate([rows.reshape(-1), fields.reshape(-1)]), device).split(
        [rows.size, fields.size]
    )
    layer_of = spread(table, tiles, field=FIRST_TILE, fields=FIELDS)

    rows_of = {"FIELDS": FIELDS, "STEPS": STEPS}
    if draws:
        drawing = spread(steps, draws, field=FIRST_CALL, fields=STEPS)
        placed = {"FIRST_CALL": FIRST_CALL, "CALLS": calls, "num_warps": 4}
        launch(_score_signs_kernel, (draws,), steps, table, drawing, **placed, **rows_of)
    counts = torch.zeros(2 * count, dtype=torch.int64, device=device)
    launch(
        _score_step_kernel,
        (layer_of.numel(),),
        table,
        steps,
        layer_of,
        brackets,
        sgd.lr,
        counts,
        sgd.momentum,
        sgd.weight_decay,
        ABSOLUTE=absolute,
        DECAY=sgd.weight_decay != 0,
        MOMENTUM=sgd.momentum != 0,
        NESTEROV=sgd.nesterov,
        TILE=tile,
        **sizes,
        enable_fp_fusion=False,  # a product and a sum round twice, where tl.fma is not written
        **rows_of,
    )
    source, wanted = torch.empty_like(table), torch.empty_like(kept)
    launch(_score_source_kernel, (count,), table, steps, kept, counts, source, wanted, num_warps=1, **rows_of)
    threshold, bins = select_launches(source, table, layer_of, wanted, absolute)
    launch(
        _score_bracket_kernel,
        (count,),
        table,
        steps,
        kept,
        counts,
        wanted,
        bins,
        threshold.tau,
        brackets,
        DIGIT_BITS=DIGIT_BITS,
        SIDE=SIDE,
        num_warps=4,
        **rows_of,
    )
    return threshold
