"""subnet and its backward on CPU through the C extension (kernels/csrc/search.c): one pass over a layer."""

from typing import Optional

import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.bits import words_per_row


def subnet_native(
    scores: Tensor,
    tau: Tensor,
    last_tied: Tensor,
    survivors: Optional[Tensor],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    absolute: bool,
    dtype: torch.dtype,
    ever: Optional[Tensor],
) -> tuple[Tensor, Tensor]:
    """Weights, in float32 or 16 bits, and mask; `signs` are packed words wherever `base` is None."""
    rows = scores.shape[0]
    cols = scores.numel() // rows
    weight = torch.empty(scores.shape, dtype=dtype)
    mask = torch.empty(rows, words_per_row(cols), dtype=torch.int32)
    constant = constant.to(dtype)
    base = None if base is None else base.to(dtype)
    tensors = survivors, constant, signs, base, weight, mask, ever
    sizes = rows, cols, words_per_row(cols), absolute, dtype.itemsize
    native.call("sm_subnet", "pilppppppplllii", scores, int(tau), int(last_tied), *tensors, *sizes)
    return weight, mask


def subnet_backward_native(
    grad_weight: Tensor,
    scores: Tensor,
    survivors: Optional[Tensor],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    absolute: bool,
) -> Tensor:
    """Gradient of the scores; `grad_weight` of any floating dtype and layout."""
    rows = scores.shape[0]
    grad_weight = grad_weight.to(torch.float32).contiguous()
    grad = torch.empty_like(scores)
    cols = scores.numel() // rows
    tensors = grad_weight, scores, survivors, constant, signs, base, grad
    native.call("sm_subnet_backward", "pppppppllli", *tensors, rows, cols, words_per_row(cols), absolute)
    return grad
