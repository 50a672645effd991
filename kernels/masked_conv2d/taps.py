"""tap_codes: the bits of a convolution laid out tap by tap, mask and sign side by side, two bits an edge and coat.

A convolution's columns run (channel, kh, kw), the taps of one channel side by side. A product over channels_last
activations wants one tap's channels side by side instead, and the gradient of x one tap's rows. So each tap of a row
gets int32 codes of its own, as `supermask.kernels.base.tile.weights` reads them, 16 edges a code:

    forward   edge (r, c * taps + tap)          = field c % 16 of code tap * per_tap + c // 16 of row r
    gradient  edge (g * rows + r, c * taps + tap) = field r % 16 of code tap * per_tap + r // 16 of row g * channels + c

for row r and channel c of group g, counted within the group. Field 2 i is bits 2 i (mask) and 2 i + 1 (sign) of a code,
field 2 i + 1 the same bits of its upper half. Fields beyond a tap's last edge are zero.

A thread makes two codes of one tap: it loads, for each field, the words that hold the edge, and appends its bits. A
field beyond the last edge reads words that exist, and is cut out at the end, because a check a field costs more.
"""

import torch
from torch import Tensor

from supermask.kernels.base.launch import cdiv, jit, launch, tl
from supermask.kernels.base.tile import warps_of

_BLOCK = 128  # threads of a program, two codes each
_MOST = (1 << 31) - 2 * _BLOCK  # codes are counted in 32 bits: 64-bit divisions cost more than all the rest


@jit
def _filled(count):
    """The bits of the first `count` fields of a code."""
    count = tl.minimum(tl.maximum(count, 0), 16)
    return ((1 << ((count + 1) // 2 * 2)) - 1) | (((1 << (count // 2 * 2)) - 1) << 16)


@jit
def _append(code, word, bit):
    """`code` shifted right by one, and bit `bit` of `word` in front of it: two instructions."""
    return (code >> 1) | ((word.to(tl.uint32, bitcast=True) >> bit) << 31)


@jit(do_not_specialize=["count", "plane", "words", "half", "channels", "group_rows"])
def _tap_codes_kernel(
    mask_ptr, signs_ptr, codes_ptr, count, plane, words, half, channels, group_rows,
    TAPS: tl.constexpr, TRANSPOSED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    coat = tl.program_id(1).to(tl.int64)
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pair < count
    # Unsigned divisions are shorter, and the fewer the better.
    place = tl.minimum(pair, count - 1).to(tl.uint32)
    edge = (place % tl.cast(half, tl.uint32) * 32).to(tl.int32)
    place = place // tl.cast(half, tl.uint32)
    tap, row = (place % TAPS).to(tl.int32), place // TAPS
    if TRANSPOSED:
        bit = (row % tl.cast(channels, tl.uint32)).to(tl.int32) * TAPS + tap
        row = (row // tl.cast(channels, tl.uint32)).to(tl.int32) * group_rows
        left = group_rows - edge
        first = (row + edge) * words + (bit >> 5)
        last = (row + group_rows - 1) * words + (bit >> 5)
    else:
        left = channels - edge
        first = row.to(tl.int32) * words
        bit, last = edge * TAPS + tap, channels * TAPS - 1
    mask_ptr += coat * plane
    codes_ptr += coat * 2 * count
    for part in tl.static_range(2):
        made = tl.zeros((BLOCK,), tl.uint32)
        for i in tl.static_range(16):  # fields 0, 2, .. 14, and then 1, 3, .. 15
            if TRANSPOSED:
                at, word = bit, tl.minimum(first + (16 * part + 2 * i % 16 + i // 8) * words, last)
            else:
                at = tl.minimum(bit + (16 * part + 2 * i % 16 + i // 8) * TAPS, last)
                word = first + (at >> 5)
            made = _append(made, tl.load(mask_ptr + word), (at & 31).to(tl.uint32))
            made = _append(made, tl.load(signs_ptr + word), (at & 31).to(tl.uint32))
        made = made.to(tl.int32, bitcast=True) & _filled(left - 16 * part)
        tl.store(codes_ptr + (2 * pair + part), made, mask=inside)


def tap_codes(mask: Tensor, signs: Tensor, taps: int, channels: int, tile: int, groups: int | None = None) -> Tensor:
    """Start the kernel: int32 [coats, rows, taps * per_tap], for the gradient [coats, groups * channels, ..].

    Args:
        mask: contiguous packed int32 [coats, rows, words] of channels * taps columns.
        signs: contiguous packed int32 [rows, words].
        taps: of the convolution's kernel.
        channels: of one group.
        tile: per_tap is a multiple of this even number.
        groups: their number for the gradient's layout, None for the forward one.

    Raises:
        ValueError: more codes a coat than 32 bits count.
    """
    coats, rows, words = mask.shape
    group_rows = rows // (groups or 1)
    out_rows = rows if groups is None else groups * channels
    per_tap = tile * cdiv(channels if groups is None else group_rows, 16 * tile)
    count = out_rows * taps * per_tap
    if max(count, rows * words + 16 * per_tap * words) > _MOST:
        raise ValueError(
            f"{rows} rows of {channels} channels and {taps} taps take {count} codes of 16 edges: {_MOST} at most"
        )
    codes = torch.empty(coats, out_rows, taps * per_tap, dtype=torch.int32, device=mask.device)
    launch(
        _tap_codes_kernel,
        (cdiv(count, 2 * _BLOCK), coats),
        mask, signs, codes, count // 2, rows * words, words, per_tap // 2, channels, group_rows,
        TAPS=taps,
        TRANSPOSED=groups is not None,
        BLOCK=_BLOCK,
        num_warps=warps_of(_BLOCK),
    )  # fmt: skip
    return codes
