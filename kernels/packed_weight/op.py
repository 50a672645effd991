"""packed_weight: from one bit an edge to the effective weights theta0 * m, for a ticket that is no longer searched.

The mask is packed (kernels/base/bits.py), theta0 is made from the seed as in kernels/subnet/op.py, and the weights have
the same bits as the searched layer's: +0.0 where the mask is zero.
"""

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.bits import bits_of, check_words, unpack
from supermask.kernels.base.edge_tile import is_set, tile_of_edges, tile_of_words, tile_rows
from supermask.kernels.base.launch import cdiv, define_op, jit, launch, tl
from supermask.kernels.base.theta import (
    BITS_DTYPE,
    Theta,
    draw_real,
    drawn_signs,
    kept_signs,
    signed_tile,
    weights_torch,
)
from supermask.kernels.packed_weight.native import packed_weight_native


@jit
def _packed_weight_kernel(
    mask_ptr, constant_ptr, signs_ptr, base_ptr, weight_ptr, rows, cols, words, BLOCK_R: tl.constexpr,
):  # fmt: skip
    first, row, start, word, there = tile_of_words(rows, words, BLOCK_R)
    chosen = is_set(tl.load(mask_ptr + start + word, mask=there, other=0))
    if base_ptr is None:
        theta = signed_tile(constant_ptr, tl.load(signs_ptr + start + word, mask=there, other=0))
    start, edge, inside = tile_of_edges(first, row, there, cols)
    if base_ptr is not None:
        theta = tl.load(base_ptr + start + edge, mask=inside, other=0)
    tl.store(weight_ptr + start + edge, tl.where(chosen, theta, 0), mask=inside)


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
    weight = torch.empty(shape, dtype=dtype)
    packed_weight_native(mask, constant, signs, base, weight)
    return weight


def packed_weight_triton(
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
        return packed_weight_triton(mask, shape, constant, signs, base, seed, layer, stream, torch.float32).to(dtype)
    rows, words = mask.shape
    cols = math.prod(shape[1:])
    as_bits = BITS_DTYPE[dtype]
    weight = torch.empty(shape, dtype=dtype, device=mask.device)
    block = tile_rows(cols)
    launch(
        _packed_weight_kernel,
        (cdiv(rows, block), words // 4),
        mask,
        constant.to(dtype).view(as_bits),
        drawn_signs(signs, base, seed, layer, stream, rows, cols, mask.device),
        None if base is None else base.to(dtype).view(as_bits),
        weight.view(as_bits),
        rows,
        cols,
        words,
        BLOCK_R=block,
    )
    return weight


_packed_weight = define_op(
    "packed_weight",
    triton_impl=packed_weight_triton,
    torch_impl=_packed_weight_torch,
    native_impl=_packed_weight_native,
    fake=lambda mask, shape, constant, signs, base, seed, layer, stream, dtype: mask.new_empty(shape, dtype=dtype),
)


def packed_weight(mask: Tensor, shape: Sequence[int], theta: Theta, dtype: torch.dtype = torch.float32) -> Tensor:
    """Effective weights of one layer from its packed mask.

    Args:
        mask: packed int32 [rows, words], or [coats, rows, words] where a weight counts its coats, nested.
        shape: of the weight, [rows, ...].
        theta: where the weights come from.
        dtype: of the weights.

    Raises:
        ValueError: a mask or a theta that does not fit `shape`, or that is not contiguous.
    """
    rows, cols = shape[0], math.prod(shape[1:])
    if mask.ndim == 3:
        if len(mask) == 1:
            return packed_weight(mask[0], shape, theta, dtype)
        weight = packed_weight(mask[0], shape, theta)
        counts = torch.zeros(rows, cols, dtype=torch.int16, device=mask.device)
        for coat in mask:
            counts = counts + unpack(coat, cols)
        return (weight * counts.view(weight.shape)).to(dtype)
    check_words("mask", mask, cols, rows)
    theta.check(rows, cols)
    op = _packed_weight_torch if torch.compiler.is_compiling() and mask.device.type == "cpu" else _packed_weight
    constant, signs, base, seed, layer, stream = theta.schema()
    drawn = draw_real(theta.real, seed, layer, stream, rows, cols, mask.device)
    return op(mask, list(shape), constant, signs, base if drawn is None else drawn, seed, layer, stream, dtype)


def fill_weights(out: Tensor, mask: Tensor, constant: Tensor, signs: Tensor) -> Tensor:
    """Weights +-constant times the number of coats, on CPU, in memory that the caller has.

    Args:
        out: contiguous [rows, cols], of any floating dtype; it is returned.
        mask: packed int32 [coats, rows, words].
        constant: float32 [1].
        signs: packed int32 [rows, words].
    """
    if len(mask) == 1 and out.dtype in BITS_DTYPE and native.usable():
        packed_weight_native(mask[0], constant, signs, None, out)
        return out
    cols = out.shape[1]
    counts = bits_of(mask[0], cols).view(np.int8)
    for coat in mask[1:]:
        counts += bits_of(coat, cols).view(np.int8)
    plus_or_minus = bits_of(signs, cols).view(np.int8)
    plus_or_minus *= -2
    plus_or_minus += 1
    counts *= plus_or_minus  # a byte an edge all along, on one thread: what costs is memory
    if len(mask) == 1:
        return out.copy_(torch.from_numpy(counts)).mul_(constant.to(out.dtype))
    return out.copy_(torch.from_numpy(counts) * constant)  # rounded once, as everywhere
