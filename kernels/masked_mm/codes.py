"""Codes: mask and signs of a layer interleaved, 32 bits for 18 edges, as csrc/masked_mm.c reads them."""

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.bits import bits_of, pack
from supermask.kernels.base.launch import cdiv

__all__ = ["BAND", "LANES", "check_codes", "codes_shape", "deinterleave", "interleave"]

LANES = 16  # rows in a vector of codes
INPUTS = 18  # in a lane, three to 5 bits
BAND = 4  # vectors that lie side by side, so that a table is loaded once for 64 rows


def codes_shape(rows: int, cols: int) -> tuple[int, int]:
    """Of the codes of a layer rows x cols, int32."""
    return cdiv(rows, LANES), LANES * cdiv(cols, INPUTS)


def check_codes(codes: Tensor, rows: int, cols: int) -> None:
    """Raise ValueError unless `codes` are those of a layer rows x cols."""
    shape = codes_shape(rows, cols)
    if codes.dtype is not torch.int32 or codes.shape != shape or not codes.is_contiguous():
        raise ValueError(
            f"codes are {codes.dtype} of shape {tuple(codes.shape)} and strides {codes.stride()}: those of a layer "
            f"{rows} x {cols} are contiguous torch.int32 of shape {shape}, from "
            "supermask.kernels.masked_mm.codes.interleave"
        )


def interleave(mask: Tensor, signs: Tensor, cols: int) -> Tensor:
    """Mask and signs as codes.

    An edge is a digit, 0 absent, 1 plus, 2 minus; three of a row, from the lower input on, are the number d0 + 3 d1 +
    9 d2, of 5 bits; three numbers are bits 0 to 14 of a half, two halves, the lower first, the 18 inputs of a lane; 16
    rows' lanes a vector. Four vectors of 16 rows lie side by side, then the next 18 inputs of the same 64 rows; the
    last rows' vectors are as many as there are. Beyond the layer all digits are 0.

    Args:
        mask: packed int32 [rows, words].
        signs: packed int32 [rows, words], flips applied.
        cols: of the layer.

    Returns:
        int32 of `codes_shape(rows, cols)`.
    """
    rows = mask.shape[0]
    groups, width = codes_shape(rows, cols)
    vectors = width // LANES
    codes = np.empty((groups, width), np.uint32)
    for band in _bands(groups):
        part = slice(band.start * LANES, min(band.stop * LANES, rows))
        kept = bits_of(mask[part], cols)
        digits = np.zeros(((band.stop - band.start) * LANES, vectors * INPUTS), np.uint16)
        digits[: len(kept), :cols] = kept + (kept & bits_of(signs[part], cols))
        numbers = digits.reshape(-1, vectors, 2, 3, 3) @ np.array([1, 3, 9], np.uint16)
        lanes = (numbers << np.array([0, 5, 10], np.uint16)).sum(-1, dtype=np.uint16).view(np.uint32)
        codes[band] = lanes.reshape(-1, LANES, vectors).transpose(2, 0, 1).reshape(-1, width)
    return torch.from_numpy(codes.view(np.int32))


def deinterleave(codes: Tensor, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """Mask and signs, zero where the mask is, of `codes`: the inverse of `interleave`."""
    groups, width = codes_shape(rows, cols)
    vectors = width // LANES
    digits = np.zeros((groups * LANES, vectors * INPUTS), np.uint16)
    for band in _bands(groups):
        lanes = codes[band].numpy().reshape(vectors, -1, LANES).transpose(1, 2, 0)
        halves = np.ascontiguousarray(lanes).view(np.uint16).reshape(-1, vectors, 2, 1, 1)
        numbers = halves >> np.array([[0], [5], [10]], np.uint16) & 31
        digits[band.start * LANES : band.stop * LANES] = (numbers // np.array([1, 3, 9], np.uint16) % 3).reshape(
            -1, vectors * INPUTS
        )
    mask, signs = (pack(torch.from_numpy(plane[:rows, :cols])) for plane in (digits != 0, digits == 2))
    return mask, signs


def _bands(groups: int) -> list[slice]:
    return [slice(group, min(group + BAND, groups)) for group in range(0, groups, BAND)]
