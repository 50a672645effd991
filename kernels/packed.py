"""packed_weight: from one bit an edge to the effective weights theta0 * m, for a ticket that is no longer searched.

The mask is packed (kernels/bits.py), theta0 is made from the seed as in kernels/subnet.py, and the weights have the
same bits as the searched layer's: +0.0 where the mask is zero.
"""

import math
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from kernels._launch import cdiv, define_op, interpreted, jit, launch, tl
from kernels.bits import check_words, unpack
from kernels.search_cpu import packed_weight_native
from kernels.theta import BITS_DTYPE, Theta, draw_real, kept_signs, theta_tile, weights_torch


@jit(do_not_specialize=["seed", "layer", "stream"])
def _packed_weight_kernel(
    mask_ptr, constant_ptr, signs_ptr, base_ptr, seed, layer, stream, weight_ptr, rows, cols, words,
    SIGN_BIT: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None, None]
    j = tl.arange(0, 4)[None, :, None]
    bit = tl.arange(0, 32)[None, None, :]
    col = tile * 128 + j * 32 + bit
    inside = (row < rows) & (col < cols)
    edge = row * cols + col
    mask = tl.load(mask_ptr + row * words + tile * 4 + j, mask=row < rows, other=0)
    theta = theta_tile(
        constant_ptr, signs_ptr, base_ptr, seed, layer, stream, row, tile, edge, words, inside, row < rows, SIGN_BIT
    )
    tl.store(weight_ptr + edge, tl.where(((mask >> bit) & 1) != 0, theta, 0), mask=inside)


def _packed_weight_torch(
    mask: Tensor,
    shape: Sequence[int],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    seed: int,
    layer: int,
    stream: int,
    dtype: torch.dtype,
) -> Tensor:
    cols = math.prod(shape[1:])
    return weights_torch(unpack(mask, cols), constant, signs, base, seed, layer, stream, dtype).view(shape)


def _packed_weight_native(
    mask: Tensor,
    shape: Sequence[int],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    seed: int,
    layer: int,
    stream: int,
    dtype: torch.dtype,
) -> Tensor:
    if dtype not in BITS_DTYPE:
        return _packed_weight_torch(mask, shape, constant, signs, base, seed, layer, stream, dtype)
    if base is None:
        signs = kept_signs(signs, seed, layer, stream, shape[0], math.prod(shape[1:]))
    return packed_weight_native(mask, shape, constant, signs, base, dtype)


def _packed_weight_triton(
    mask: Tensor,
    shape: Sequence[int],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    seed: int,
    layer: int,
    stream: int,
    dtype: torch.dtype,
) -> Tensor:
    if dtype not in BITS_DTYPE:
        return _packed_weight_triton(mask, shape, constant, signs, base, seed, layer, stream, torch.float32).to(dtype)
    rows, words = mask.shape
    as_bits = BITS_DTYPE[dtype]
    weight = torch.empty(shape, dtype=dtype, device=mask.device)
    block = 64 if interpreted() else 16
    launch(
        _packed_weight_kernel,
        (cdiv(rows, block), words // 4),
        mask,
        constant.to(dtype).view(as_bits),
        signs,
        None if base is None else base.to(dtype).view(as_bits),
        seed,
        layer,
        stream,
        weight.view(as_bits),
        rows,
        math.prod(shape[1:]),
        words,
        SIGN_BIT=8 * dtype.itemsize - 1,
        BLOCK_R=block,
    )
    return weight


_packed_weight = define_op(
    "packed_weight",
    triton_impl=_packed_weight_triton,
    torch_impl=_packed_weight_torch,
    native_impl=_packed_weight_native,
    fake=lambda mask, shape, constant, signs, base, seed, layer, stream, dtype: mask.new_empty(shape, dtype=dtype),
)


def packed_weight(mask: Tensor, shape: Sequence[int], theta: Theta, dtype: torch.dtype = torch.float32) -> Tensor:
    """Effective weights of one layer from its packed mask.

    Args:
        mask: packed int32 [rows, words].
        shape: of the weight, [rows, ...].
        theta: where the weights come from.
        dtype: of the weights.

    Raises:
        ValueError: a mask or a theta that does not fit `shape`, or that is not contiguous.
    """
    rows, cols = shape[0], math.prod(shape[1:])
    check_words("mask", mask, cols, rows)
    theta.check(rows, cols)
    op = _packed_weight_torch if torch.compiler.is_compiling() and mask.device.type == "cpu" else _packed_weight
    constant, signs, base, seed, layer, stream = theta.schema()
    drawn = draw_real(theta.real, seed, layer, stream, rows, cols, mask.device)
    return op(mask, list(shape), constant, signs, base if drawn is None else drawn, seed, layer, stream, dtype)
