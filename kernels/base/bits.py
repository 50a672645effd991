"""Packed bits: pack, unpack and count, one bit an edge in rows of whole 128-edge groups.

A boolean matrix rows x cols becomes int32 [rows, words], words = 4 * ceil(cols / 128): edge (row, col) is bit col % 32
of word col // 32 of its row. Padding bits are zero, so that words can be counted, compared and combined as they are.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.launch import cdiv, define_op, jit, launch, tl

_ROWS = 32  # of 128 columns each: what a program handles


def words_per_row(cols: int) -> int:
    """int32 words that hold `cols` bits in the row layout: whole groups of four, so that a Philox call fills one."""
    return 4 * cdiv(cols, 128)


@jit
def _pack_kernel(mask_ptr, words_ptr, rows, cols, words, BLOCK_R: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None, None]
    word = tl.program_id(1) * 4 + tl.arange(0, 4)[None, :, None]
    bit = tl.arange(0, 32)[None, None, :]
    col = word * 32 + bit
    chosen = tl.load(mask_ptr + row * cols + col, mask=(row < rows) & (col < cols), other=0)
    packed = tl.sum((chosen != 0).to(tl.int32) << bit, axis=2, keep_dims=True)
    tl.store(words_ptr + row * words + word, packed, mask=row < rows)


@jit
def _unpack_kernel(words_ptr, mask_ptr, rows, cols, words, BLOCK_R: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None, None]
    word = tl.program_id(1) * 4 + tl.arange(0, 4)[None, :, None]
    bit = tl.arange(0, 32)[None, None, :]
    col = word * 32 + bit
    packed = tl.load(words_ptr + row * words + word, mask=row < rows, other=0)
    tl.store(mask_ptr + row * cols + col, ((packed >> bit) & 1).to(tl.int8), mask=(row < rows) & (col < cols))


@jit
def _popcount_kernel(words_ptr, counts_ptr, words, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for start in range(0, words, BLOCK):
        word = start + tl.arange(0, BLOCK)
        x = tl.load(words_ptr + row * words + word, mask=word < words, other=0).to(tl.uint32, bitcast=True)
        x = x - ((x >> 1) & 0x55555555)
        x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
        x = (x + (x >> 4)) & 0x0F0F0F0F
        x = x + (x >> 8)
        total += ((x + (x >> 16)) & 0x3F).to(tl.int32)
    tl.store(counts_ptr + row, tl.sum(total.to(tl.int64)))


def _pack_torch(mask: Tensor) -> Tensor:
    cols = mask.shape[1]
    words = words_per_row(cols)
    packed = np.packbits(mask.numpy(), axis=1, bitorder="little")
    if cols % 128:
        packed = np.pad(packed, ((0, 0), (0, 4 * words - packed.shape[1])))
    return torch.from_numpy(packed.view("<i4"))


def bits_of(words: Tensor, cols: int) -> Any:
    """Packed bits on CPU as a NumPy array, uint8 [rows, cols] of 0 and 1."""
    return np.unpackbits(words.numpy().view(np.uint8), axis=1, count=cols, bitorder="little")


def _unpack_torch(words: Tensor, cols: int) -> Tensor:
    return torch.from_numpy(bits_of(words, cols).view(np.bool_))


def _popcount_torch(words: Tensor) -> Tensor:
    return torch.from_numpy(np.bitwise_count(words.numpy().view(np.uint32)).sum(axis=1, dtype=np.int64))


def count_bits(words: Tensor) -> int:
    """Set bits of words on CPU, by NumPy: the first call of an op imports torch's compiler."""
    return int(np.bitwise_count(words.numpy().view(np.uint32)).sum(dtype=np.int64))


def pack_triton(mask: Tensor) -> Tensor:
    rows, cols = mask.shape
    words = words_per_row(cols)
    out = torch.empty(rows, words, dtype=torch.int32, device=mask.device)
    grid = cdiv(rows, _ROWS), words // 4
    launch(_pack_kernel, grid, mask.view(torch.int8), out, rows, cols, words, BLOCK_R=_ROWS)
    return out


def unpack_triton(words: Tensor, cols: int) -> Tensor:
    rows = words.shape[0]
    out = torch.empty(rows, cols, dtype=torch.bool, device=words.device)
    grid = cdiv(rows, _ROWS), words.shape[1] // 4
    launch(_unpack_kernel, grid, words, out.view(torch.int8), rows, cols, words.shape[1], BLOCK_R=_ROWS)
    return out


def popcount_triton(words: Tensor) -> Tensor:
    counts = torch.empty(words.shape[0], dtype=torch.int64, device=words.device)
    launch(_popcount_kernel, (words.shape[0],), words, counts, words.shape[1], BLOCK=128)
    return counts


_pack = define_op(
    "pack",
    triton_impl=pack_triton,
    torch_impl=_pack_torch,
    fake=lambda mask: mask.new_empty(mask.shape[0], words_per_row(mask.shape[1]), dtype=torch.int32),
)
_unpack = define_op(
    "unpack",
    triton_impl=unpack_triton,
    torch_impl=_unpack_torch,
    fake=lambda words, cols: words.new_empty(words.shape[0], cols, dtype=torch.bool),
)
_popcount = define_op(
    "popcount",
    triton_impl=popcount_triton,
    torch_impl=_popcount_torch,
    fake=lambda words: words.new_empty(words.shape[0], dtype=torch.int64),
)


def pack(mask: Tensor) -> Tensor:
    """Boolean [rows, cols] to packed bits int32 [rows, words_per_row(cols)].

    Raises:
        ValueError: `mask` is not a boolean matrix.
    """
    if mask.dtype is not torch.bool or mask.ndim != 2:
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}: expected torch.bool of shape [rows, cols]"
        )
    return _pack(mask.contiguous())


def unpack(words: Tensor, cols: int) -> Tensor:
    """Packed bits int32 [rows, words_per_row(cols)] to boolean [rows, cols].

    Traced for CPU it is plain arithmetic, which the compiler fuses into what reads it.

    Raises:
        ValueError: `words` is not packed bits of `cols` columns.
    """
    check_words("words", words, cols)
    if torch.compiler.is_compiling() and words.device.type == "cpu":
        bits = words[:, :, None] >> torch.arange(32, dtype=torch.int32) & 1
        return bits.reshape(words.shape[0], -1)[:, :cols] != 0
    return _unpack(words.contiguous(), cols)


def popcount(words: Tensor) -> Tensor:
    """Set bits of each row of packed int32 [rows, words]: int64 [rows]."""
    if words.dtype is not torch.int32 or words.ndim != 2:
        raise ValueError(f"words is {words.dtype} of shape {tuple(words.shape)}: expected torch.int32 [rows, words]")
    return _popcount(words.contiguous())


def check_words(name: str, words: Tensor, cols: int, rows: int | None = None) -> None:
    """Raise ValueError unless `words` is int32 [rows, words_per_row(cols)]; contiguous, too, where `rows` is given."""
    wrong = words.dtype is not torch.int32 or words.ndim != 2 or words.shape[1] != words_per_row(cols)
    if wrong or (rows is not None and words.shape[0] != rows):
        raise ValueError(
            f"{name} is {words.dtype} of shape {tuple(words.shape)}: packed bits of {cols} columns are torch.int32 of "
            f"shape [{'rows' if rows is None else rows}, {words_per_row(cols)}]"
        )
    if rows is not None and not words.is_contiguous():
        raise ValueError(
            f"{name} of shape {tuple(words.shape)} has strides {words.stride()}: kernels read contiguous words, make "
            "them .contiguous()"
        )
