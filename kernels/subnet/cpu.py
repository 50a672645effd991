"""subnet and its backward on CPU, eager: the statements of kernels/subnet/op.py, a block of rows at a time.

A whole-layer expression costs a fresh array an operation, whose pages the system must map and clear: far more than the
arithmetic. Here only the results are of the layer's size; what leads to them stays in cache, most of it a byte an edge.
NumPy computes a block on one thread: PyTorch would start all of them for some microseconds' work.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.bits import bits_of
from supermask.kernels.base.keys import Threshold, keys_of
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.cpu import row_blocks, scratch
from supermask.kernels.subnet.arguments import mask_shape, matrix_of


def subnet_cpu(
    scores: Tensor, threshold: Threshold, survivors: Tensor | None, theta: Theta, absolute: bool, dtype: torch.dtype,
    ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Effective weights, of the scores' shape, and the packed mask."""
    rows, cols = matrix_of(scores)
    matrix, coats = scores.view(rows, cols), threshold.tau.numel()
    constant, signs, base = theta.constant, theta.needed_words(rows, cols), theta.base
    weight = torch.empty(matrix.shape, dtype=dtype)
    mask = torch.zeros(mask_shape(scores, coats), dtype=torch.int32)
    packed = mask.view(coats, rows, -1).numpy().view(np.uint8)
    # Of one coat a weight is rounded before it is copied, of several their product.
    magnitude = (constant.to(dtype).float() if coats == 1 else constant).numpy()
    levels = [*zip(*(each.flatten().tolist() for each in threshold), packed, strict=True)]
    space = scratch(rows, cols)
    for block in row_blocks(rows, cols):
        part = matrix[block].numpy()
        keys = keys_of(part, absolute, out=space[: len(part)])
        alive = None if survivors is None else bits_of(survivors[block], cols)
        counts = _counts(keys, levels, block, alive)
        # float32 holds the weights of every dtype exactly, or is what they are rounded from.
        found = weight[block].numpy() if dtype is torch.float32 else keys.view(np.float32)
        if base is not None:
            _times(found, base[block].numpy(), counts, coats)
        elif signs is not None:
            np.copyto(found, _plus_or_minus(bits_of(signs[block], cols)) * counts.view(np.int8))
            found *= magnitude
        if dtype is not torch.float32:
            weight[block] = torch.from_numpy(found)
    if ever is not None:
        ever.bitwise_or_(mask.view(coats, rows, -1)[0])
    return weight.view(scores.shape), mask


def subnet_backward_cpu(
    grad_weight: Tensor, scores: Tensor, survivors: Tensor | None, theta: Theta, absolute: bool
) -> Tensor:
    """Straight-through gradient of the scores; grad_weight of any layout."""
    rows = scores.shape[0]
    matrix = scores.view(rows, -1)
    cols = matrix.shape[1]
    constant, signs, base = theta.constant, theta.needed_words(rows, cols), theta.base
    grad = torch.empty(matrix.shape, dtype=scores.dtype)
    space = scratch(rows, cols).view(np.float32)
    for block in row_blocks(rows, cols):
        given = grad_weight[block].to(scores.dtype).reshape(-1, cols).numpy()
        found = grad[block].numpy()
        negative = np.zeros(found.shape, np.uint8) if signs is None else bits_of(signs[block], cols)
        if absolute:
            negative ^= matrix[block].numpy() < 0
        sign = space[: len(found)]
        np.copyto(sign, _plus_or_minus(negative))
        sign *= constant.numpy() if base is None else base[block].numpy()
        with np.errstate(over="ignore"):
            np.multiply(given, sign, out=found)
        if survivors is not None:
            _keep(found, bits_of(survivors[block], cols))
    return grad.view(scores.shape)


def _counts(keys: Any, levels: Sequence[tuple[int, int, Any]], block: slice, alive: Any) -> Any:
    """How many coats select each edge of a block, uint8; each coat packed on the way.

    Args:
        levels: of each coat tau, last_tied, and the bytes of the layer's packed bits.
        alive: of each edge 0 or 1, or None.
    """
    counts = None
    for tau, last_tied, packed in levels:
        chosen = _on_or_above(keys, tau, last_tied + 1 - block.start * keys.shape[1])
        if alive is not None:
            chosen &= alive
        packed[block, : -(-keys.shape[1] // 8)] = np.packbits(chosen, axis=1, bitorder="little")
        counts = chosen if counts is None else np.add(counts, chosen, out=counts)
    return counts


def _times(found: Any, base: Any, counts: Any, coats: int) -> None:
    """`base` times `counts` of up to so many coats, which multiply, into `found`."""
    np.copyto(found, base)
    if coats > 1:
        with np.errstate(over="ignore", invalid="ignore"):  # infinities, also of edges that none selects
            found *= counts
        counts = counts != 0
    _keep(found, counts)


def _on_or_above(keys: Any, tau: int, tied: int) -> Any:
    """Which keys of a block are selected, uint8 of 0 and 1; those equal to tau only among the first `tied`."""
    chosen = np.empty(keys.shape, np.uint8)
    flat, result = keys.reshape(-1), chosen.reshape(-1).view(np.bool_)
    tied = min(max(tied, 0), flat.size)
    np.greater_equal(flat[:tied], tau, out=result[:tied])
    np.greater(flat[tied:], tau, out=result[tied:])
    return chosen


def _plus_or_minus(negative: Any) -> Any:
    """int8 -1 and +1 of uint8 1 and 0, in place."""
    signs = negative.view(np.int8)
    signs *= -2
    signs += 1
    return signs


def _keep(values: Any, chosen: Any) -> None:
    """Make `values` +0.0 where `chosen`, a byte of 0 or 1, is 0, whatever stands there: NaN too."""
    bits = values.view(f"i{values.itemsize}")
    bits &= -chosen.view(np.int8)
