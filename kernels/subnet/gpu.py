"""subnet and its backward in Triton: a program handles a tile of rows by 128 columns."""

from collections.abc import Mapping

import torch
from torch import Tensor

from supermask.kernels.base.bits import words_per_row
from supermask.kernels.base.edge_tile import SIZES, is_set, sign_of, tile_of_edges, tile_of_words, words_of
from supermask.kernels.base.keys import Threshold, score_key
from supermask.kernels.base.launch import cdiv, jit, launch, tl
from supermask.kernels.base.theta import BITS_DTYPE, Theta, signed_tile, times_tile
from supermask.kernels.subnet.arguments import mask_shape, matrix_of


@jit
def _chosen(key, edge, start, tau_ptr, last_tied_ptr):
    """The edges that a threshold selects, past the layer's end too."""
    # Edges up to last_tied rank as if their keys were one higher, so that of equal ones these alone are above tau.
    last = tl.minimum(tl.maximum(tl.load(last_tied_ptr) - start, -1), 2147483647).to(tl.int32)
    return key + (edge <= last).to(tl.int32) > tl.load(tau_ptr)


@jit
def _subnet_kernel(
    scores_ptr, tau_ptr, last_tied_ptr, survivors_ptr, constant_ptr, signs_ptr, base_ptr, weight_ptr, mask_ptr,
    ever_ptr, rows, cols, words, plane, ABSOLUTE: tl.constexpr, COATS: tl.constexpr, DTYPE: tl.constexpr,
    BLOCK_R: tl.constexpr,
):  # fmt: skip
    first, row, start_word, word, there = tile_of_words(rows, words, BLOCK_R)
    start, edge, inside = tile_of_edges(first, row, there, cols)
    key = score_key(tl.load(scores_ptr + start + edge, mask=inside, other=0.0), ABSOLUTE)
    able = inside
    if survivors_ptr is not None:
        able = able & is_set(tl.load(survivors_ptr + start_word + word, mask=there, other=0))
    chosen = able & _chosen(key, edge, start, tau_ptr, last_tied_ptr)

    if base_ptr is not None:
        theta = tl.load(base_ptr + start + edge, mask=inside, other=0)
    else:
        theta = signed_tile(constant_ptr, tl.load(signs_ptr + start_word + word, mask=there, other=0))
    if COATS == 1:
        weight = tl.where(chosen, theta, 0)
    else:
        count = chosen.to(tl.int32)
        for coat in tl.static_range(1, COATS):
            inner = able & _chosen(key, edge, start, tau_ptr + coat, last_tied_ptr + coat)
            count += inner.to(tl.int32)
            tl.store(mask_ptr + coat * plane + start_word + word, words_of(inner), mask=there)
        weight = times_tile(theta.to(tl.float32, bitcast=True), count, DTYPE)
    tl.store(weight_ptr + start + edge, weight, mask=inside)

    packed = words_of(chosen)
    tl.store(mask_ptr + start_word + word, packed, mask=there)
    if ever_ptr is not None:
        ever = tl.load(ever_ptr + start_word + word, mask=there, other=0)
        tl.store(ever_ptr + start_word + word, ever | packed, mask=there)


@jit
def _subnet_backward_kernel(
    grad_weight_ptr, scores_ptr, survivors_ptr, constant_ptr, signs_ptr, base_ptr, grad_scores_ptr, rows, cols, words,
    ABSOLUTE: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    first, row, start_word, word, there = tile_of_words(rows, words, BLOCK_R)
    start, edge, inside = tile_of_edges(first, row, there, cols)
    grad = tl.load(grad_weight_ptr + start + edge, mask=inside, other=0.0).to(tl.float32)
    if base_ptr is not None:
        grad = grad * tl.load(base_ptr + start + edge, mask=inside, other=0.0)
    else:
        minus = sign_of(tl.load(signs_ptr + start_word + word, mask=there, other=0))
        grad = grad * tl.load(constant_ptr)
        grad = (grad.to(tl.int32, bitcast=True) ^ minus).to(tl.float32, bitcast=True)
    if ABSOLUTE:
        score = tl.load(scores_ptr + start + edge, mask=inside, other=0.0)
        negative = (score < 0.0).to(tl.int32) << 31  # its sign bit: minus, of a zero, is no minus zero in every Triton
        grad = (grad.to(tl.int32, bitcast=True) ^ negative).to(tl.float32, bitcast=True)
    if survivors_ptr is not None:
        survives = is_set(tl.load(survivors_ptr + start_word + word, mask=there, other=0))
        grad = tl.where(survives, grad, 0.0)
    tl.store(grad_scores_ptr + start + edge, grad, mask=inside)


def subnet_triton(
    scores: Tensor, threshold: Threshold, survivors: Tensor | None, theta: Theta, absolute: bool, dtype: torch.dtype,
    ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if dtype not in BITS_DTYPE:  # float64 is for checks, and exact from float32
        weight, mask = subnet_triton(scores, threshold, survivors, theta, absolute, torch.float32, ever)
        return weight.to(dtype), mask
    rows, cols, words, grid, sizes = _shape(scores)
    coats, as_bits = threshold.tau.numel(), BITS_DTYPE[dtype]
    # Of one coat a weight is rounded before it is copied, of several their product.
    source = dtype if coats == 1 else torch.float32
    weight = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    mask = torch.empty(mask_shape(scores, coats), dtype=torch.int32, device=scores.device)
    launch(
        _subnet_kernel,
        grid,
        scores,
        *threshold,
        survivors,
        theta.constant.to(source).view(BITS_DTYPE[source]),
        theta.launched_words(rows, cols, scores.device),
        None if theta.base is None else theta.base.to(source).view(BITS_DTYPE[source]),
        weight.view(as_bits),
        mask,
        ever,
        rows,
        cols,
        words,
        mask.numel() // coats,
        ABSOLUTE=absolute,
        COATS=coats,
        DTYPE=getattr(tl, str(dtype).removeprefix("torch.")),
        **sizes,
    )
    return weight, mask


def subnet_backward_triton(
    grad_weight: Tensor, scores: Tensor, survivors: Tensor | None, theta: Theta, absolute: bool
) -> Tensor:
    rows, cols, words, grid, sizes = _shape(scores)
    grad_scores = torch.empty_like(scores)
    launch(
        _subnet_backward_kernel,
        grid,
        grad_weight.contiguous(),
        scores,
        survivors,
        theta.constant,
        theta.launched_words(rows, cols, scores.device),
        theta.base,
        grad_scores,
        rows,
        cols,
        words,
        ABSOLUTE=absolute,
        **sizes,
    )
    return grad_scores


def _shape(scores: Tensor) -> tuple[int, int, int, tuple[int, int], Mapping[str, int]]:
    """rows, cols, words, grid and the sizes of a program."""
    rows, cols = matrix_of(scores)
    words = words_per_row(cols)
    sizes = SIZES.of(cols=cols)
    return rows, cols, words, (cdiv(rows, sizes["BLOCK_R"]), words // 4), sizes
