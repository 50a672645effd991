"""subnet and its backward on CPU through the C extension (kernels/csrc/weights.c): one pass over a layer.

What C does not have, float64, is left to the blocks of kernels/subnet/cpu.py.
"""

import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.bits import words_per_row
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.theta import BITS_DTYPE, Theta
from supermask.kernels.subnet.cpu import subnet_backward_cpu, subnet_cpu


def subnet_native(
    scores: Tensor, threshold: Threshold, survivors: Tensor | None, theta: Theta, absolute: bool, dtype: torch.dtype,
    ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if dtype not in BITS_DTYPE:
        return subnet_cpu(scores, threshold, survivors, theta, absolute, dtype, ever)
    rows = scores.shape[0]
    cols = scores.numel() // rows
    weight = torch.empty(scores.shape, dtype=dtype)
    mask = torch.empty(rows, words_per_row(cols), dtype=torch.int32)
    constant, signs = theta.constant.to(dtype), theta.needed_words(rows, cols)
    base = None if theta.base is None else theta.base.to(dtype)
    tensors = survivors, constant, signs, base, weight, mask, ever
    sizes = rows, cols, words_per_row(cols), absolute, dtype.itemsize
    native.call("sm_subnet", "pilppppppplllii", scores, *map(int, threshold), *tensors, *sizes)
    return weight, mask


def subnet_backward_native(
    grad_weight: Tensor, scores: Tensor, survivors: Tensor | None, theta: Theta, absolute: bool
) -> Tensor:
    if scores.dtype is not torch.float32:
        return subnet_backward_cpu(grad_weight, scores, survivors, theta, absolute)
    rows = scores.shape[0]
    cols = scores.numel() // rows
    grad_weight = grad_weight.to(torch.float32).contiguous()
    grad = torch.empty_like(scores)
    tensors = grad_weight, scores, survivors, theta.constant, theta.needed_words(rows, cols), theta.base, grad
    native.call("sm_subnet_backward", "pppppppllli", *tensors, rows, cols, words_per_row(cols), absolute)
    return grad
