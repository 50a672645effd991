"""packed_weight in Triton: a program handles a tile of rows by 128 columns."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from supermask.kernels.base.edge_tile import SIZES, is_set, tile_of_edges, tile_of_words
from supermask.kernels.base.launch import cdiv, jit, launch, tl
from supermask.kernels.base.theta import BITS_DTYPE, Theta, signed_tile


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


def packed_weight_triton(mask: Tensor, shape: Sequence[int], theta: Theta, dtype: torch.dtype) -> Tensor:
    if dtype not in BITS_DTYPE:
        return packed_weight_triton(mask, shape, theta, torch.float32).to(dtype)
    rows, words = mask.shape
    cols = math.prod(shape[1:])
    as_bits = BITS_DTYPE[dtype]
    weight = torch.empty(shape, dtype=dtype, device=mask.device)
    sizes = SIZES.of(cols=cols)
    launch(
        _packed_weight_kernel,
        (cdiv(rows, sizes["BLOCK_R"]), words // 4),
        mask,
        theta.constant.to(dtype).view(as_bits),
        theta.launched_words(rows, cols, mask.device),
        None if theta.base is None else theta.base.to(dtype).view(as_bits),
        weight.view(as_bits),
        rows,
        cols,
        words,
        **sizes,
    )
    return weight
