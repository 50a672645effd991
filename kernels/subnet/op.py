"""subnet: from scores to the effective weights theta0 * m, in one pass over the scores.

    m[e] = 1 where edge e is selected (kernels/select/op.py: key > tau, or key == tau and flat index <= last_tied; and a
    survivor), w = m * theta0 in the dtype asked for

On the way the mask is packed (kernels/base/bits.py) and, where asked, ORed into the bits of the edges ever selected.
Weights move as bit patterns, so every path gives the same bits; an edge that is not selected weighs +0.0.

Straight-through backward (Ramanujan et al. 2020, section 3), its own op:

    dL/ds = dL/dw * theta0 * sign(s) for abs scores, dL/dw * theta0 for raw ones, for every edge, selected or not, and
    zero for edges that hard pruning removed; sign(0) = +1, so that a score of zero can move

Nothing dense is kept for backward but the scores, which their parameter holds anyway: theta0 is made again.
"""

from typing import Any

import torch
from torch import Tensor

from supermask.kernels.base.bits import check_words, pack, unpack, words_per_row
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.op import selected
from supermask.kernels.subnet.cpu import subnet_backward_cpu, subnet_cpu
from supermask.kernels.subnet.gpu import subnet_backward_triton, subnet_triton
from supermask.kernels.subnet.native import subnet_backward_native, subnet_native


def reference(
    scores: Tensor, threshold: Threshold, survivors: Tensor | None, theta: Theta, absolute: bool, dtype: torch.dtype,
    ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The equation: w and m, packed."""
    chosen = selected(scores, *threshold, absolute)
    if survivors is not None:
        chosen = chosen & unpack(survivors, chosen.shape[1])
    mask = pack(chosen)
    if ever is not None:
        ever.bitwise_or_(mask)
    return theta.where(chosen, dtype).view(scores.shape), mask


def reference_backward(
    grad_weight: Tensor, scores: Tensor, survivors: Tensor | None, theta: Theta, absolute: bool
) -> Tensor:
    """The straight-through equation: dL/ds."""
    rows = scores.shape[0]
    grad = grad_weight.reshape(rows, -1).to(scores.dtype)
    cols = grad.shape[1]
    if theta.base is not None:
        grad = grad * theta.base.to(scores.dtype)
    else:
        negative = unpack(theta.words(rows, cols), cols)
        grad = torch.where(negative, -theta.constant, theta.constant).to(scores.dtype) * grad
    if absolute:
        grad = torch.where(scores.view(rows, cols) < 0, -grad, grad)
    if survivors is not None:
        grad = torch.where(unpack(survivors, cols), grad, 0)
    return grad.view(scores.shape)


def _records(
    scores: Tensor, tau: Tensor, last_tied: Tensor, survivors: Tensor | None, constant: Tensor, signs: Tensor | None,
    base: Tensor | None, seed: int, layer: int, stream: int, *plain: Any,
) -> tuple[Any, ...]:  # fmt: skip
    return scores, Threshold(tau, last_tied), survivors, Theta.of(constant, signs, base, seed, layer, stream), *plain


def _backward_records(
    grad_weight: Tensor, scores: Tensor, survivors: Tensor | None, constant: Tensor, signs: Tensor | None,
    base: Tensor | None, seed: int, layer: int, stream: int, absolute: bool,
) -> tuple[Any, ...]:  # fmt: skip
    return grad_weight, scores, survivors, Theta.of(constant, signs, base, seed, layer, stream), absolute


_THETA = "Tensor constant, Tensor? signs, Tensor? base, SymInt seed, SymInt layer, SymInt stream"
_subnet = define_op(
    "subnet",
    triton_impl=subnet_triton,
    torch_impl=subnet_cpu,
    native_impl=subnet_native,
    schema=f"(Tensor scores, Tensor tau, Tensor last_tied, Tensor? survivors, {_THETA}, bool absolute, "
    "ScalarType dtype, Tensor(a!)? ever) -> (Tensor, Tensor)",
    records=_records,
    fake=lambda scores, tau, last_tied, survivors, constant, signs, base, seed, layer, stream, absolute, dtype, ever: (
        scores.new_empty(scores.shape, dtype=dtype),
        scores.new_empty(scores.shape[0], words_per_row(scores.numel() // scores.shape[0]), dtype=torch.int32),
    ),
    mutates=("ever",),
)
_subnet_backward = define_op(
    "subnet_backward",
    triton_impl=subnet_backward_triton,
    torch_impl=subnet_backward_cpu,
    native_impl=subnet_backward_native,
    schema=f"(Tensor grad_weight, Tensor scores, Tensor? survivors, {_THETA}, bool absolute) -> Tensor",
    records=_backward_records,
    fake=lambda grad_weight, scores, *rest: torch.empty_like(scores),
)


class _Subnet(torch.autograd.Function):
    """Ties the two ops together; traced for CPU, the compiler sees the PyTorch statement and fuses it."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, tau: Tensor, last_tied: Tensor, survivors: Tensor | None, constant: Tensor,
        signs: Tensor | None, base: Tensor | None, seed: int, layer: int, stream: int,
        real: tuple[str, float] | None, absolute: bool, dtype: torch.dtype, ever: Tensor | None,
        straight_through: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.straight_through = straight_through
        if straight_through:
            ctx.save_for_backward(scores, survivors, constant, signs, base)
            ctx.plain = seed, layer, stream, real, absolute
        theta = _made(Theta.of(constant, signs, base, seed, layer, stream, real), scores)
        if _visible(scores):
            weight, mask = reference(scores, Threshold(tau, last_tied), survivors, theta, absolute, dtype, ever)
        else:
            weight, mask = _subnet(scores, tau, last_tied, survivors, *theta.schema(), absolute, dtype, ever)
        ctx.mark_non_differentiable(mask)
        return weight, mask

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.straight_through:
            return (grad_weight.float().contiguous(), *(None,) * 14)
        scores, survivors, *tensors = ctx.saved_tensors
        *place, absolute = ctx.plain
        theta = _made(Theta.of(*tensors, *place), scores)
        if _visible(scores):
            grad = reference_backward(grad_weight, scores, survivors, theta, absolute)
        else:
            grad = _subnet_backward(grad_weight, scores, survivors, *theta.schema(), absolute)
        return (grad, *(None,) * 14)


def _made(theta: Theta, scores: Tensor) -> Theta:
    """With real-valued weights drawn, again at each use."""
    rows = scores.shape[0]
    return theta.made(rows, scores.numel() // rows, scores.device)


def _visible(scores: Tensor) -> bool:
    return torch.compiler.is_compiling() and scores.device.type == "cpu"


def subnet(
    scores: Tensor,
    tau: Tensor,
    last_tied: Tensor,
    theta: Theta,
    *,
    survivors: Tensor | None = None,
    absolute: bool = True,
    dtype: torch.dtype = torch.float32,
    ever: Tensor | None = None,
    straight_through: bool = True,
) -> tuple[Tensor, Tensor]:
    """Effective weights and packed mask of one layer; straight-through for the scores.

    Args:
        scores: float32, contiguous, the shape of the weight, [out, ...].
        tau, last_tied: the layer's threshold, one-element int32 and int64 (`supermask.kernels.select.select`).
        theta: where the weights come from.
        survivors: packed int32 [rows, words] of the edges that hard pruning left, or None for all.
        absolute: rank by |score| (EP), or by the score itself.
        dtype: of the weights.
        ever: packed int32 [rows, words] into which the mask is ORed, or None.
        straight_through: False leaves the gradient of the scores at dL/dw, contiguous float32, for a step that makes
            it theirs (kernels/score_step/op.py).

    Returns:
        The weights, shaped like `scores`, and the mask, packed int32 [rows, words].

    Raises:
        TypeError: scores that are not float32.
        ValueError: scores or packed bits that are not contiguous, packed bits or a theta of another layer's shape.
    """
    if scores.dtype is not torch.float32:
        raise TypeError(
            f"scores are {scores.dtype}: masks are exact for torch.float32 only; keep the scores in float32 and use "
            "torch.autocast for low-precision weights"
        )
    if not scores.is_contiguous():
        raise ValueError(f"scores of shape {tuple(scores.shape)} have strides {scores.stride()}: make them contiguous")
    rows = scores.shape[0]
    cols = scores.numel() // rows
    for name, words in (("survivors", survivors), ("ever", ever)):
        if words is not None:
            check_words(name, words, cols, rows)
    theta.check(rows, cols)
    plain = theta.real, absolute, dtype, ever, straight_through
    return _Subnet.apply(scores, tau, last_tied, survivors, *theta.schema(), *plain)
