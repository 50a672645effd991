"""subnet and its backward on CPU through the C extension (kernels/csrc/weights.c): one pass over a layer.

What C does not have, float64, is left to the blocks of kernels/subnet/cpu.py.
"""

import torch
from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.bits import words_per_row
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.theta import BITS_DTYPE, Theta
from supermask.kernels.subnet.arguments import mask_shape, matrix_of
from supermask.kernels.subnet.cpu import subnet_backward_cpu, subnet_cpu


def subnet_native(
    scores: Tensor, threshold: Threshold, survivors: Tensor | None, theta: Theta, absolute: bool, dtype: torch.dtype,
    ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if dtype not in BITS_DTYPE:
        return subnet_cpu(scores, threshold, survivors, theta, absolute, dtype, ever)
    rows, cols = matrix_of(scores)
    coats = threshold.tau.numel()
    # Of one coat a weight is rounded before it is copied, of several their product.
    source = dtype if coats == 1 else torch.float32
    weight = torch.empty(scores.shape, dtype=dtype)
    mask = torch.empty(mask_shape(scores, coats), dtype=torch.int32)
    constant, signs = theta.constant.to(source), theta.needed_words(rows, cols)
    base = None if theta.base is None else theta.base.to(source)
    tensors = *(each.contiguous() for each in threshold), survivors, constant, signs, base, weight, mask, ever
    sizes = rows, cols, words_per_row(cols), coats, absolute, dtype.itemsize, dtype is torch.bfloat16
    native.call("sm_subnet", "pppppppppplllliii", scores, *tensors, *sizes)
    return weight, mask


def subnet_backward_native(
    grad_weight: Tensor, scores: Tensor, survivors: Tensor | None, theta: Theta, absolute: bool
) -> Tensor:
    if scores.dtype is not torch.float32:
        return subnet_backward_cpu(grad_weight, scores, survivors, theta, absolute)
    rows, cols = matrix_of(scores)
    grad_weight = grad_weight.to(torch.float32).contiguous()
    grad = torch.empty_like(scores)
    tensors = grad_weight, scores, survivors, theta.constant, theta.needed_words(rows, cols), theta.base, grad
    native.call("sm_subnet_backward", "pppppppllli", *tensors, rows, cols, words_per_row(cols), absolute)
    return grad
