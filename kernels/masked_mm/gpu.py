"""masked_mm and its backward in Triton: bits become weights in registers, beside the product."""

import math
from typing import Any

import torch
from torch import Tensor

from supermask.kernels.base.launch import cdiv, interpreted, jit, launch, tl
from supermask.kernels.base.planes import Planes
from supermask.kernels.base.sizes import fitting
from supermask.kernels.base.tile import sign_quad, weight_tile
from supermask.kernels.masked_mm.sizes import SIZES


@jit
def _accumulate(
    acc, x, mask_ptr, plane, signs, row, tile, words, inside,
    COATS: tl.constexpr, DTYPE: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """acc + W x for a tile of W: a product a coat on tensor cores; in float32, by multiply-adds, one of their sum."""
    w = weight_tile(mask_ptr, signs, row, tile, words, inside, DTYPE, TRANSPOSED)
    for coat in tl.static_range(1, COATS):
        more = weight_tile(mask_ptr + coat * plane, signs, row, tile, words, inside, DTYPE, TRANSPOSED)
        if tl.float32 == DTYPE:
            w += more
        else:
            acc = tl.dot(w, x, acc)
            w = more
    return tl.dot(w, x, acc, input_precision="ieee")


@jit(do_not_specialize=["seed", "layer", "stream"])
def _masked_mm_kernel(
    x_ptr, mask_ptr, constant_ptr, signs_ptr, flips_ptr, bias_ptr, seed, layer, stream, y_ptr,
    M, N, K, words, plane, stride_xm, stride_xk, steps,
    COATS: tl.constexpr, DTYPE: tl.constexpr, PARTIAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_m = offs_m < M
    mask_n = offs_n < N
    first = tl.program_id(2) * steps
    offs_k = tl.arange(0, 128)
    stride_tile = tl.full((), 128, tl.int64) * stride_xk
    x_ptrs = x_ptr + offs_m[:, None] * stride_xm + offs_k.to(tl.int64)[None, :] * stride_xk + first * stride_tile
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for tile in range(first, tl.minimum(first + steps, words // 4)):
        x = tl.load(x_ptrs, mask=mask_m[:, None] & (tile * 128 + offs_k < K)[None, :], other=0.0)
        x_ptrs += stride_tile
        signs = sign_quad(signs_ptr, flips_ptr, seed, layer, stream, offs_n, tile, words, mask_n)
        x = tl.trans(x.to(DTYPE))
        acc = _accumulate(acc, x, mask_ptr, plane, signs, offs_n, tile, words, mask_n, COATS, DTYPE, False)
    y_ptrs = offs_m[:, None] * N + offs_n[None, :]
    mask_y = mask_m[:, None] & mask_n[None, :]
    y = tl.trans(acc)
    if PARTIAL:
        tl.store(y_ptr + tl.program_id(2).to(tl.int64) * M * N + y_ptrs, y, mask=mask_y)
    else:
        y *= 0.5 * tl.load(constant_ptr)
        if bias_ptr is not None:
            y += tl.load(bias_ptr + offs_n, mask=mask_n, other=0.0).to(tl.float32)[None, :]
        tl.store(y_ptr + y_ptrs, y.to(y_ptr.dtype.element_ty), mask=mask_y)


@jit(do_not_specialize=["seed", "layer", "stream"])
def _masked_mm_backward_kernel(
    grad_ptr, mask_ptr, constant_ptr, signs_ptr, flips_ptr, seed, layer, stream, out_ptr,
    M, N, K, words, plane, stride_gm, stride_gn, steps,
    COATS: tl.constexpr, DTYPE: tl.constexpr, PARTIAL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(1)
    offs_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_k = tile * 128 + tl.arange(0, 128)
    mask_m = offs_m < M
    first = tl.program_id(2) * steps
    acc = tl.zeros((128, BLOCK_M), tl.float32)
    for block in range(first, tl.minimum(first + steps, tl.cdiv(N, BLOCK_N))):
        offs_n = (block * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
        mask_n = offs_n < N
        grad_ptrs = grad_ptr + offs_m[:, None] * stride_gm + offs_n[None, :] * stride_gn
        grad = tl.load(grad_ptrs, mask=mask_m[:, None] & mask_n[None, :], other=0.0)
        signs = sign_quad(signs_ptr, flips_ptr, seed, layer, stream, offs_n, tile, words, mask_n)
        grad = tl.trans(grad.to(DTYPE))
        acc = _accumulate(acc, grad, mask_ptr, plane, signs, offs_n, tile, words, mask_n, COATS, DTYPE, True)
    out_ptrs = offs_m[:, None] * K + offs_k[None, :]
    mask_out = mask_m[:, None] & (offs_k < K)[None, :]
    out = tl.trans(acc)
    if PARTIAL:
        tl.store(out_ptr + tl.program_id(2).to(tl.int64) * M * K + out_ptrs, out, mask=mask_out)
    else:
        out *= 0.5 * tl.load(constant_ptr)
        tl.store(out_ptr + out_ptrs, out.to(out_ptr.dtype.element_ty), mask=mask_out)


@jit
def _masked_mm_sum_kernel(partial_ptr, constant_ptr, bias_ptr, y_ptr, size, N, splits, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < size
    y = tl.zeros((BLOCK,), tl.float32)
    for _ in range(splits):
        y += tl.load(partial_ptr + offs, mask=mask, other=0.0)
        partial_ptr += size
    y *= 0.5 * tl.load(constant_ptr)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + offs % N, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offs, y.to(y_ptr.dtype.element_ty), mask=mask)


_PROGRAMS = 256  # with fewer, a GPU of some hundred processors has idle ones


def _matrix(x: Tensor) -> Tensor:
    """[..., cols] as [M, cols]: a view wherever there is one, and always of a vector or a matrix."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _product(
    kernel: Any, left: Tensor, weights: tuple[Any, ...], bias: Tensor | None, N: int, K: int, transposed: bool
) -> Tensor:
    """Start `kernel` for `left` [M, K], or [M, N] where `transposed`; `weights` are its arguments from the mask on."""
    mask, constant = weights[:2]
    (coats, _, words), M, dtype = mask.shape, left.shape[0], left.dtype
    exact = dtype is torch.float32
    single = left.stride(1) != 1 or any(size % 16 for size in (left.shape[1], left.stride(0)))
    sizes = dict(SIZES.of(exact=exact, single=single, several=coats > 1, transposed=transposed, rows=M))
    block_m, block_n = fitting(M, 16, sizes["BLOCK_M"]), sizes["BLOCK_N"]
    sizes["BLOCK_M"] = block_m
    columns, blocks, steps = (K, words // 4, cdiv(N, block_n)) if transposed else (N, cdiv(N, block_n), words // 4)

    programs = max(1, cdiv(M, block_m) * blocks)
    splits = max(1, min(_PROGRAMS // programs, steps // (block_m // 8)))
    each = cdiv(steps, splits)  # a part's own sums are to cost less than its weights
    splits = max(1, cdiv(steps, max(1, each)))

    # The interpreter knows bfloat16 as integers and truncates to it.
    dtype = torch.float32 if interpreted() and dtype is torch.bfloat16 else dtype
    out = torch.empty(M, columns, dtype=dtype, device=left.device)
    partial = out if splits == 1 else torch.empty(splits, M, columns, dtype=torch.float32, device=left.device)
    launch(
        kernel,
        (cdiv(M, block_m), blocks, splits),
        left,
        *weights,
        partial,
        M,
        N,
        K,
        words,
        mask.stride(0),
        *left.stride(),
        each,
        COATS=coats,
        DTYPE=getattr(tl, str(dtype).removeprefix("torch.")),
        PARTIAL=splits > 1,
        **sizes,
    )
    if splits > 1:
        grid = (cdiv(out.numel(), 256),)
        launch(_masked_mm_sum_kernel, grid, partial, constant, bias, out, out.numel(), columns, splits, BLOCK=256)
    return out.to(left.dtype)


def masked_mm_triton(x: Tensor, planes: Planes, codes: Tensor | None, bias: Tensor | None) -> Tensor:
    mask, theta, flips = planes
    rows, cols = mask.shape[1], x.shape[-1]
    weights = mask, theta.constant, theta.signs, flips, bias, *theta.counter()
    y = _product(_masked_mm_kernel, _matrix(x), weights, bias, rows, cols, transposed=False)
    return y.view(*x.shape[:-1], rows)


def masked_mm_backward_triton(grad: Tensor, planes: Planes, cols: int) -> Tensor:
    mask, theta, flips = planes
    weights = mask, theta.constant, theta.signs, flips, *theta.counter()
    out = _product(_masked_mm_backward_kernel, _matrix(grad), weights, None, mask.shape[1], cols, transposed=True)
    return out.view(*grad.shape[:-1], cols)
