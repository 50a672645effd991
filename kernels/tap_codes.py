"""tap_codes: the bits of a convolution laid out tap by tap, mask and sign side by side, two bits an edge and coat.

A convolution's columns run (channel, kh, kw), the taps of one channel side by side. A product over channels_last
activations wants one tap's channels side by side instead, and the gradient of x one tap's rows. So each tap of a row
gets int32 codes of its own, as `kernels.tile.weights` reads them, 16 edges a code:

    forward   edge (r, c * taps + tap)          = field c % 16 of code tap * per_tap + c // 16 of row r
    gradient  edge (g * rows + r, c * taps + tap) = field r % 16 of code tap * per_tap + r // 16 of row g * channels + c

for row r and channel c of group g, counted within the group. Field 2 i is bits 2 i (mask) and 2 i + 1 (sign) of a code,
field 2 i + 1 the same bits of its upper half. Fields beyond a tap's last edge are zero.
"""

import torch
from torch import Tensor

from kernels._launch import cdiv, jit, launch, tl

_BLOCK = 128  # codes a program makes


@jit
def _tap_codes_kernel(
    mask_ptr, signs_ptr, codes_ptr, count, plane, words, taps, per_tap, channels, group_rows, out_rows,
    TRANSPOSED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    code = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    field = tl.arange(0, 16)[None, :]
    row = code // (taps * per_tap)
    place = (code % (taps * per_tap)).to(tl.int32)
    tap = place // per_tap
    other = place % per_tap * 16 + field
    inside = code < count
    coat = row // out_rows
    row = (row % out_rows).to(tl.int32)
    if TRANSPOSED:
        col = row % channels * taps + tap
        row = row // channels * group_rows + other
        inside &= other < group_rows
    else:
        col = other * taps + tap
        inside &= other < channels
    word = row.to(tl.int64) * words + (col >> 5)
    mask = tl.load(mask_ptr + coat * plane + word, mask=inside, other=0) >> (col & 31)
    sign = tl.load(signs_ptr + word, mask=inside, other=0) >> (col & 31)
    edge = (mask & 1) | ((sign & 1) << 1)
    made = tl.sum(edge << ((field & 14) + ((field & 1) << 4)), axis=1, keep_dims=True)
    tl.store(codes_ptr + code, made, mask=code < count)


def tap_codes(mask: Tensor, signs: Tensor, taps: int, channels: int, tile: int, groups: int | None = None) -> Tensor:
    """Start the kernel: int32 [coats, rows, taps * per_tap], for the gradient [coats, groups * channels, ..].

    Args:
        mask: contiguous packed int32 [coats, rows, words] of channels * taps columns.
        signs: contiguous packed int32 [rows, words].
        taps: of the convolution's kernel.
        channels: of one group.
        tile: per_tap is a multiple of this.
        groups: their number for the gradient's layout, None for the forward one.
    """
    coats, rows, words = mask.shape
    group_rows = rows // (groups or 1)
    out_rows = rows if groups is None else groups * channels
    per_tap = tile * cdiv(channels if groups is None else group_rows, 16 * tile)
    codes = torch.empty(coats, out_rows, taps * per_tap, dtype=torch.int32, device=mask.device)
    count = codes.numel()
    launch(
        _tap_codes_kernel, (cdiv(count, _BLOCK),), mask, signs, codes, count, rows * words, words, taps, per_tap,
        channels, group_rows, out_rows, TRANSPOSED=groups is not None, BLOCK=_BLOCK,
    )  # fmt: skip
    return codes
