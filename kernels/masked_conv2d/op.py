"""masked_conv2d: a 2-d convolution whose weights are made where they are used, from the seed and the mask's bits.

    y[n, r, oh, ow] = bias[r] + constant * sum over c, kh, kw of
                      x[n, c, oh * stride - padding + kh * dilation, ..] * w[r, c, kh, kw]
    w = (-1 if the edge's sign bit is set, else 1) * (number of coats whose mask bit is set)

The weights' columns run (c, kh, kw). The gradient of x is an op of its own, from the same bits. On the GPU:
kernels/masked_conv2d/gpu.py, where no weight is in memory. The PyTorch path, the CPU's, makes dense weights.
"""

from collections.abc import Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from supermask.kernels.base.bits import unpack
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.theta import Theta, kept_signs
from supermask.kernels.masked_conv2d.arguments import check_conv2d, out_size, pair
from supermask.kernels.masked_conv2d.gpu import masked_conv2d_backward_triton, masked_conv2d_triton
from supermask.kernels.packed_weight.op import fill_weights

__all__ = ["masked_conv2d"]


def _weight(
    mask: Tensor,
    constant: Tensor,
    signs: Tensor | None,
    flips: Tensor | None,
    seed: int,
    layer: int,
    stream: int,
    cols: int,
    dtype: torch.dtype,
) -> Tensor:
    """The weights as a matrix rows x cols in `dtype`; traced they are plain arithmetic, for the compiler to fuse."""
    coats, rows, _ = mask.shape
    signs = kept_signs(signs, seed, layer, stream, rows, cols)
    signs = signs if flips is None else signs ^ flips
    if not torch.compiler.is_compiling():
        return fill_weights(torch.empty(rows, cols, dtype=dtype), mask, constant, signs)
    negative = unpack(signs, cols)
    count = unpack(mask[0], cols).to(torch.int16)
    for coat in range(1, coats):
        count = count + unpack(mask[coat], cols)
    return torch.where(negative, -count, count).to(dtype) * constant.to(dtype)


def _channels_last(tensor: Tensor) -> Tensor:
    """Copied only where it is not."""
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _masked_conv2d_torch(
    x: Tensor,
    mask: Tensor,
    constant: Tensor,
    signs: Optional[Tensor],
    flips: Optional[Tensor],
    bias: Optional[Tensor],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    seed: int,
    layer: int,
    stream: int,
) -> Tensor:
    channels = x.shape[1] // groups
    weight = _weight(mask, constant, signs, flips, seed, layer, stream, channels * kernel[0] * kernel[1], x.dtype)
    weight = weight.view(-1, channels, *kernel)
    bias = None if bias is None else bias.to(x.dtype)
    return _channels_last(F.conv2d(x, weight, bias, stride, padding, dilation, groups))


def _masked_conv2d_backward_torch(
    grad: Tensor,
    mask: Tensor,
    constant: Tensor,
    signs: Optional[Tensor],
    flips: Optional[Tensor],
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    seed: int,
    layer: int,
    stream: int,
) -> Tensor:
    channels = size[0] // groups
    weight = _weight(mask, constant, signs, flips, seed, layer, stream, channels * kernel[0] * kernel[1], grad.dtype)
    weight = weight.view(-1, channels, *kernel)
    shape = grad.shape[0], *size
    return _channels_last(conv2d_input(shape, weight, grad, stride, padding, dilation, groups))


_masked_conv2d = define_op(
    "masked_conv2d",
    triton_impl=masked_conv2d_triton,
    torch_impl=_masked_conv2d_torch,
    fake=lambda x, mask, constant, signs, flips, bias, kernel, stride, padding, dilation, *_: x.new_empty(
        x.shape[0], *out_size(x.shape[2:], kernel, stride, padding, dilation), mask.shape[1]
    ).permute(0, 3, 1, 2),
)
_masked_conv2d_backward = define_op(
    "masked_conv2d_backward",
    triton_impl=masked_conv2d_backward_triton,
    torch_impl=_masked_conv2d_backward_torch,
    fake=lambda grad, mask, constant, signs, flips, size, *_: grad.new_empty(
        grad.shape[0], size[1], size[2], size[0]
    ).permute(0, 3, 1, 2),
)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, mask, constant, signs, flips, bias, *ctx.plain = inputs
    ctx.save_for_backward(mask, constant, signs, flips)
    ctx.size = x.shape[1:]
    ctx.bias = None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = _masked_conv2d_backward(grad, *ctx.saved_tensors, ctx.size, *ctx.plain)
    if ctx.needs_input_grad[5]:
        grad_bias = grad.sum((0, 2, 3)).to(ctx.bias)
    return grad_x, None, None, None, None, grad_bias, *(None,) * len(ctx.plain)


_masked_conv2d.register_autograd(_backward, setup_context=_keep)


def masked_conv2d(
    x: Tensor,
    mask: Tensor,
    theta: Theta,
    kernel_size: int | Sequence[int],
    *,
    bias: Tensor | None = None,
    flips: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """2-d convolution with weights +-constant times the number of coats whose mask bit is set.

    Differentiable in x and bias; the bits and the constant get no gradient. Under torch.autocast, x is converted first.

    Args:
        x: [N, C, H, W], float32, bfloat16 or float16, on CPU also float64; read through its strides, fastest where it
            is channels_last.
        mask: packed int32 [rows, words] or [coats, rows, words], of C / groups * kernel height * kernel width columns.
        theta: where the weights come from: a constant, with signs drawn or given.
        kernel_size: height and width, or one number for both; so are `stride`, `padding` (zeros) and `dilation`.
        bias: [rows], or None.
        flips: packed int32 [rows, words], XORed into the signs, or None.
        groups: of channels and rows, each with its own convolution.

    Returns:
        [N, rows, H', W'], channels_last, in x's dtype.

    Raises:
        TypeError: a dtype or a kind of argument that the convolution does not take.
        ValueError: shapes that do not fit each other, a kernel larger than the padded input, weights that are not a
            constant.
    """
    kernel, steps, spaces, gaps = (
        pair(name, value, least)
        for name, value, least in (
            ("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1),
        )
    )  # fmt: skip
    mask = mask[None] if mask.ndim == 2 else mask
    check_conv2d(x, mask, theta, flips, bias, kernel, steps, spaces, gaps, groups)
    if torch.is_autocast_enabled(x.device.type) and x.dtype is not torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    op = _masked_conv2d_torch if torch.compiler.is_compiling() and x.device.type == "cpu" else _masked_conv2d
    constant, signs, _, *draw = theta.schema()
    return op(x, mask, constant.detach(), signs, flips, bias, kernel, steps, spaces, gaps, groups, *draw)
