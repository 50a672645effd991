"""What subnet is given, checked, and the shapes that follow from it."""

import torch
from torch import Tensor

from supermask.kernels.base.bits import check_words, words_per_row
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.arguments import MOST_COATS


def matrix_of(scores: Tensor) -> tuple[int, int]:
    """rows and cols."""
    rows = scores.shape[0]
    return rows, scores.numel() // rows


def mask_shape(scores: Tensor, coats: int) -> tuple[int, ...]:
    """Of the packed mask: [rows, words], or of several coats [coats, rows, words]."""
    rows, cols = matrix_of(scores)
    return (rows, words_per_row(cols)) if coats == 1 else (coats, rows, words_per_row(cols))


def check(
    scores: Tensor, threshold: Threshold, thetas: dict[str, Theta], bits: dict[str, Tensor | None]
) -> None:  # fmt: skip
    """Raise TypeError or ValueError unless the arguments are what `subnet` takes, of one layer; `bits` are packed."""
    if scores.dtype is not torch.float32:
        raise TypeError(
            f"scores are {scores.dtype}: masks are exact for torch.float32 only; keep the scores in float32 and use "
            "torch.autocast for low-precision weights"
        )
    if not scores.is_contiguous():
        raise ValueError(f"scores of shape {tuple(scores.shape)} have strides {scores.stride()}: make them contiguous")
    for name, tensor, dtype in (("tau", threshold.tau, torch.int32), ("last_tied", threshold.last_tied, torch.int64)):
        if tensor.dtype is not dtype:
            raise TypeError(f"threshold.{name} is {tensor.dtype}: expected {dtype}")
    shape = threshold.tau.shape
    one = threshold.tau.numel() == 1
    if threshold.last_tied.shape != shape or not (one or (len(shape) == 1 and 1 <= shape[0] <= MOST_COATS)):
        raise ValueError(
            f"threshold.tau has shape {tuple(shape)}, threshold.last_tied {tuple(threshold.last_tied.shape)}: expected "
            f"both of one layer, [1], or [coats] with up to {MOST_COATS} coats"
        )
    rows, cols = matrix_of(scores)
    for name, words in bits.items():
        if words is not None:
            check_words(name, words, cols, rows)
    for name, theta in thetas.items():
        theta.check(rows, cols, name)
