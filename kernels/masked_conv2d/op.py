"""masked_conv2d: a 2-d convolution whose weights are made where they are used, from the seed and the mask's bits.

    y[n, r, oh, ow] = bias[r] + constant * sum over c, kh, kw of
                      x[n, c, oh * stride - padding + kh * dilation, ..] * w[r, c, kh, kw]
    w = (-1 if the edge's sign bit is set, else 1) * (number of coats whose mask bit is set)

The weights' columns run (c, kh, kw). The gradient of x is an op of its own, from the same bits. On the GPU:
kernels/masked_conv2d/gpu.py, where no weight is in memory. The PyTorch path, the CPU's, makes dense weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from supermask.kernels.base.bits import unpack
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.planes import Planes
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_conv2d.arguments import Window, check_conv2d, pair
from supermask.kernels.masked_conv2d.gpu import masked_conv2d_backward_triton, masked_conv2d_triton
from supermask.kernels.packed_weight.op import fill_weights

__all__ = ["masked_conv2d"]


def reference(x: Tensor, planes: Planes, bias: Tensor | None, window: Window) -> Tensor:
    """The equation, the weights in memory and all."""
    weight = _weight(planes, x.shape[1] // window.groups, window.kernel, x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    _, stride, padding, dilation, groups = window
    return _channels_last(F.conv2d(x, weight, bias, stride, padding, dilation, groups))


def reference_backward(grad: Tensor, planes: Planes, size: Sequence[int], window: Window) -> Tensor:
    """The gradient of x, `size` its channels, height and width."""
    weight = _weight(planes, size[0] // window.groups, window.kernel, grad.dtype)
    _, *steps = window
    return _channels_last(conv2d_input((grad.shape[0], *size), weight, grad, *steps))


def _weight(planes: Planes, channels: int, kernel: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The weights in `dtype`; traced they are plain arithmetic, for the compiler to fuse."""
    mask, theta, _ = planes
    coats, rows, _ = mask.shape
    shape = rows, channels, *kernel
    cols = channels * kernel[0] * kernel[1]
    signs = planes.signs(cols)
    if not torch.compiler.is_compiling():
        return fill_weights(torch.empty(rows, cols, dtype=dtype), mask, theta.constant, signs).view(shape)
    negative = unpack(signs, cols)
    count = unpack(mask[0], cols).to(torch.int16)
    for coat in range(1, coats):
        count = count + unpack(mask[coat], cols)
    return (torch.where(negative, -count, count).to(dtype) * theta.constant.to(dtype)).view(shape)


def _channels_last(tensor: Tensor) -> Tensor:
    """Copied only where it is not."""
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _records(
    x: Tensor, mask: Tensor, constant: Tensor, signs: Tensor | None, flips: Tensor | None, bias: Tensor | None,
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
    *place: int,
) -> tuple[Tensor, Planes, Tensor | None, Window]:  # fmt: skip
    planes = Planes.of(mask, constant, signs, flips, *place)
    return x, planes, bias, Window(kernel, stride, padding, dilation, groups)


def _backward_records(
    grad: Tensor, mask: Tensor, constant: Tensor, signs: Tensor | None, flips: Tensor | None, size: Sequence[int],
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
    *place: int,
) -> tuple[Tensor, Planes, Sequence[int], Window]:  # fmt: skip
    planes = Planes.of(mask, constant, signs, flips, *place)
    return grad, planes, size, Window(kernel, stride, padding, dilation, groups)


_PLANES = "Tensor mask, Tensor constant, Tensor? signs, Tensor? flips"
_PLACE = (
    "SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, SymInt seed, "
    "SymInt layer, SymInt stream"
)
_masked_conv2d = define_op(
    "masked_conv2d",
    triton_impl=masked_conv2d_triton,
    torch_impl=reference,
    schema=f"(Tensor x, {_PLANES}, Tensor? bias, {_PLACE}) -> Tensor",
    records=_records,
    fake=lambda x, mask, constant, signs, flips, bias, *window: x.new_empty(
        x.shape[0], *Window(*window[:5]).out_size(x.shape[2:]), mask.shape[1]
    ).permute(0, 3, 1, 2),
)
_masked_conv2d_backward = define_op(
    "masked_conv2d_backward",
    triton_impl=masked_conv2d_backward_triton,
    torch_impl=reference_backward,
    schema=f"(Tensor grad, {_PLANES}, SymInt[] size, {_PLACE}) -> Tensor",
    records=_backward_records,
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
    window = Window(
        kernel=pair("kernel_size", kernel_size, 1),
        stride=pair("stride", stride, 1),
        padding=pair("padding", padding, 0),
        dilation=pair("dilation", dilation, 1),
        groups=groups,
    )
    mask = mask[None] if mask.ndim == 2 else mask
    check_conv2d(x, mask, theta, flips, bias, window)
    if torch.is_autocast_enabled(x.device.type) and x.dtype is not torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    constant = theta.constant.detach()
    if torch.compiler.is_compiling() and x.device.type == "cpu":
        return reference(x, Planes.of(mask, constant, theta.signs, flips, *theta.counter()), bias, window)
    return _masked_conv2d(x, mask, constant, theta.signs, flips, bias, *window, *theta.counter())
