"""packed_weight: from one bit an edge to the effective weights theta0 * m, for a ticket that is no longer searched.

The mask is packed (kernels/base/bits.py), theta0 is made from the seed as in kernels/subnet/op.py, and the weights have
the same bits as the searched layer's: +0.0 where the mask is zero.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.bits import bits_of, check_words, unpack
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.theta import BITS_DTYPE, Theta
from supermask.kernels.packed_weight.gpu import packed_weight_triton
from supermask.kernels.packed_weight.native import fill_native


def reference(mask: Tensor, shape: Sequence[int], theta: Theta, dtype: torch.dtype) -> Tensor:
    """theta0 * m."""
    chosen = unpack(mask, math.prod(shape[1:]))
    return theta.where(chosen, dtype).view(shape)


def _packed_weight_native(mask: Tensor, shape: Sequence[int], theta: Theta, dtype: torch.dtype) -> Tensor:
    if dtype not in BITS_DTYPE:
        return reference(mask, shape, theta, dtype)
    out = torch.empty(shape, dtype=dtype)
    fill_native(out, mask, theta.constant, theta.needed_words(shape[0], math.prod(shape[1:])), theta.base)
    return out


def _records(
    mask: Tensor, shape: Sequence[int], constant: Tensor, signs: Tensor | None, base: Tensor | None, seed: int,
    layer: int, stream: int, dtype: torch.dtype,
) -> tuple[Tensor, Sequence[int], Theta, torch.dtype]:  # fmt: skip
    return mask, shape, Theta.of(constant, signs, base, seed, layer, stream), dtype


_packed_weight = define_op(
    "packed_weight",
    triton_impl=packed_weight_triton,
    torch_impl=reference,
    native_impl=_packed_weight_native,
    schema="(Tensor mask, SymInt[] shape, Tensor constant, Tensor? signs, Tensor? base, SymInt seed, SymInt layer, "
    "SymInt stream, ScalarType dtype) -> Tensor",
    records=_records,
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
    theta = theta.made(rows, cols, mask.device)
    if torch.compiler.is_compiling() and mask.device.type == "cpu":
        return reference(mask, shape, theta, dtype)
    return _packed_weight(mask, list(shape), *theta.schema(), dtype)


def fill_weights(out: Tensor, mask: Tensor, constant: Tensor, signs: Tensor) -> Tensor:
    """Weights +-constant times the number of coats, on CPU, in memory that the caller has.

    Args:
        out: contiguous [rows, cols], of any floating dtype; it is returned.
        mask: packed int32 [coats, rows, words].
        constant: float32 [1].
        signs: packed int32 [rows, words].
    """
    if len(mask) == 1 and out.dtype in BITS_DTYPE and native.usable():
        fill_native(out, mask[0], constant, signs)
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
