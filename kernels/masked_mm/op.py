"""masked_mm: y = x W^T + bias with W made inside the kernel from one bit an edge, never in memory.

    w[row, col] = sign * constant * (coats whose bit is set), signs from the seed or given, XORed with a flip plane

Products are of exact small integers (kernels/base/tile.py) with x, sums are float32, and the float32 constant
multiplies the sum, so that no weight is rounded; the bias is added in float32 and the result rounded once to the dtype
of x.

A program makes 128 rows of weights, 128 columns at a time, and multiplies them by up to 64 rows of x: W is the first
operand of the product, because that is the one tensor cores take from registers. Where the output is too small to fill
a GPU the sum is split among programs that write float32 partial sums, which a second kernel adds in a fixed order.

The gradient for x is grad_y W, from the same bits, its own op. The CPU's ways are in kernels/masked_mm/cpu.py.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from supermask.kernels.base.bits import unpack
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.planes import Planes
from supermask.kernels.base.theta import Theta
from supermask.kernels.masked_mm.arguments import check_mm
from supermask.kernels.masked_mm.cpu import masked_mm_backward_cpu, masked_mm_cpu, masked_mm_traced, prefers_traced
from supermask.kernels.masked_mm.gpu import masked_mm_backward_triton, masked_mm_triton


def reference(x: Tensor, planes: Planes, codes: Tensor | None, bias: Tensor | None) -> Tensor:
    """The equation, W in memory and all; `codes` say again what the planes say."""
    mask, theta, _ = planes
    cols = x.shape[-1]
    coats = torch.stack([unpack(coat, cols) for coat in mask]).sum(0)
    negative = unpack(planes.signs(cols, x.device), cols)
    y = x @ torch.where(negative, -coats, coats).to(x.dtype).t() * theta.constant
    return (y if bias is None else y + bias).to(x.dtype)


def _records(
    x: Tensor, mask: Tensor, constant: Tensor, signs: Tensor | None, flips: Tensor | None, codes: Tensor | None,
    bias: Tensor | None, *place: int,
) -> tuple[Tensor, Planes, Tensor | None, Tensor | None]:  # fmt: skip
    return x, Planes.of(mask, constant, signs, flips, *place), codes, bias


def _backward_records(
    grad: Tensor, mask: Tensor, constant: Tensor, signs: Tensor | None, flips: Tensor | None, seed: int, layer: int,
    stream: int, cols: int,
) -> tuple[Tensor, Planes, int]:  # fmt: skip
    return grad, Planes.of(mask, constant, signs, flips, seed, layer, stream), cols


_PLANES = "Tensor mask, Tensor constant, Tensor? signs, Tensor? flips"
_PLACE = "SymInt seed, SymInt layer, SymInt stream"
_masked_mm = define_op(
    "masked_mm",
    triton_impl=masked_mm_triton,
    torch_impl=masked_mm_cpu,
    schema=f"(Tensor x, {_PLANES}, Tensor? codes, Tensor? bias, {_PLACE}) -> Tensor",
    records=_records,
    fake=lambda x, mask, *rest: x.new_empty(*x.shape[:-1], mask.shape[1]),
)
_masked_mm_backward = define_op(
    "masked_mm_backward",
    triton_impl=masked_mm_backward_triton,
    torch_impl=masked_mm_backward_cpu,
    schema=f"(Tensor grad, {_PLANES}, {_PLACE}, SymInt cols) -> Tensor",
    records=_backward_records,
    fake=lambda grad, mask, constant, signs, flips, seed, layer, stream, cols: grad.new_empty(*grad.shape[:-1], cols),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, mask, constant, signs, flips, _, bias, *ctx.plain = inputs
    ctx.save_for_backward(mask, constant, signs, flips)
    ctx.cols, ctx.bias = x.shape[-1], None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = _masked_mm_backward(grad, *ctx.saved_tensors, *ctx.plain, ctx.cols) if ctx.needs_input_grad[0] else None
    grad_bias = None
    if ctx.bias is not None and ctx.needs_input_grad[6]:
        grad_bias = grad.flatten(0, -2).sum(0, dtype=torch.promote_types(grad.dtype, ctx.bias)).to(ctx.bias)
    return grad_x, None, None, None, None, None, grad_bias, None, None, None


def _setup_twice(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *tensors, seed, layer, stream, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.plain = seed, layer, stream


def _backward_twice(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (_masked_mm(grad, *ctx.saved_tensors, None, None, *ctx.plain), *(None,) * 8)


_masked_mm.register_autograd(_backward, setup_context=_setup)
_masked_mm_backward.register_autograd(_backward_twice, setup_context=_setup_twice)


def masked_mm(
    x: Tensor,
    mask: Tensor,
    theta: Theta,
    *,
    bias: Tensor | None = None,
    flips: Tensor | None = None,
    codes: Tensor | None = None,
) -> Tensor:
    """x W^T + bias, differentiable in x and bias; few rows traced for CPU without codes are plain arithmetic.

    Args:
        x: [..., cols] float32, bfloat16 or float16, of any strides; float64 on CPU, for checks.
        mask: packed int32 [rows, words], or [coats, rows, words] where a weight counts its coats.
        theta: a constant with signs, given or drawn.
        bias: [rows], float32 or of the dtype of x.
        flips: packed int32 [rows, words], XORed into the signs.
        codes: mask and signs interleaved (kernels/masked_mm/codes.py), for the CPU; one coat only.

    Returns:
        [..., rows] in the dtype of x.

    Raises:
        TypeError: x, bias or codes of another dtype.
        ValueError: shapes that do not belong together, packed bits that are not contiguous, tensors of several
            devices, or a theta of real-valued weights.
    """
    check_mm(x, mask, theta, bias, flips, codes)
    if forward_ad.unpack_dual(x).tangent is not None:
        raise ValueError("x carries a tangent: masked_mm has no forward-mode derivative; use dense weights for it")
    coats, constant = mask if mask.ndim == 3 else mask[None], theta.constant.detach()
    if torch.compiler.is_compiling() and x.device.type == "cpu" and codes is None and prefers_traced(x):
        return masked_mm_traced(x, Planes.of(coats, constant, theta.signs, flips, *theta.counter()), bias)
    return _masked_mm(x, coats, constant, theta.signs, flips, codes, bias, *theta.counter())
