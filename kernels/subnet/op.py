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

from typing import Any, Optional

import torch
from torch import Tensor

from supermask.kernels.base.bits import check_words, pack, unpack, words_per_row
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.theta import (
    BITS_DTYPE,
    Theta,
    draw_real,
    kept_signs,
    signs_of,
    weights_torch,
)
from supermask.kernels.select.op import selected
from supermask.kernels.subnet.cpu import grad_scores, weights_and_mask
from supermask.kernels.subnet.gpu import subnet_backward_triton, subnet_triton
from supermask.kernels.subnet.native import subnet_backward_native, subnet_native


def _subnet_torch(
    scores: Tensor,
    tau: Tensor,
    last_tied: Tensor,
    survivors: Optional[Tensor],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    seed: int,
    layer: int,
    stream: int,
    absolute: bool,
    dtype: torch.dtype,
    ever: Optional[Tensor],
) -> tuple[Tensor, Tensor]:
    chosen = selected(scores, tau, last_tied, absolute)
    if survivors is not None:
        chosen = chosen & unpack(survivors, chosen.shape[1])
    mask = pack(chosen)
    if ever is not None:
        ever.bitwise_or_(mask)
    weight = weights_torch(chosen, constant, signs, base, seed, layer, stream, dtype)
    return weight.view(scores.shape), mask


def _subnet_backward_torch(
    grad_weight: Tensor,
    scores: Tensor,
    survivors: Optional[Tensor],
    constant: Tensor,
    signs: Optional[Tensor],
    base: Optional[Tensor],
    seed: int,
    layer: int,
    stream: int,
    absolute: bool,
) -> Tensor:
    rows = scores.shape[0]
    grad = grad_weight.reshape(rows, -1).to(scores.dtype)
    cols = grad.shape[1]
    if base is not None:
        grad = grad * base.to(scores.dtype)
    else:
        negative = signs_of(signs, seed, layer, stream, rows, cols)
        grad = torch.where(negative, -constant, constant).to(scores.dtype) * grad
    if absolute:
        grad = torch.where(scores.view(rows, cols) < 0, -grad, grad)
    if survivors is not None:
        grad = torch.where(unpack(survivors, cols), grad, 0)
    return grad.view(scores.shape)


def _subnet_cpu(
    scores: Tensor, tau: Tensor, last_tied: Tensor, survivors: Optional[Tensor], constant: Tensor,
    signs: Optional[Tensor], base: Optional[Tensor], seed: int, layer: int, stream: int, absolute: bool,
    dtype: torch.dtype, ever: Optional[Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    signs = _signs_unless(base, signs, seed, layer, stream, scores)
    found = weights_and_mask(scores, int(tau), int(last_tied), survivors, constant, signs, base, absolute, dtype)
    if ever is not None:
        ever.bitwise_or_(found[1])
    return found


def _subnet_backward_cpu(
    grad_weight: Tensor, scores: Tensor, survivors: Optional[Tensor], constant: Tensor, signs: Optional[Tensor],
    base: Optional[Tensor], seed: int, layer: int, stream: int, absolute: bool,
) -> Tensor:  # fmt: skip
    signs = _signs_unless(base, signs, seed, layer, stream, scores)
    return grad_scores(grad_weight, scores, survivors, constant, signs, base, absolute)


def _subnet_native(
    scores: Tensor, tau: Tensor, last_tied: Tensor, survivors: Optional[Tensor], constant: Tensor,
    signs: Optional[Tensor], base: Optional[Tensor], seed: int, layer: int, stream: int, absolute: bool,
    dtype: torch.dtype, ever: Optional[Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    place = seed, layer, stream
    if dtype not in BITS_DTYPE:
        args = (scores, tau, last_tied, survivors, constant, signs, base, *place, absolute)
        return _subnet_cpu(*args, dtype, ever)
    signs = _signs_unless(base, signs, *place, scores)
    return subnet_native(scores, tau, last_tied, survivors, constant, signs, base, absolute, dtype, ever)


def _subnet_backward_native(
    grad_weight: Tensor, scores: Tensor, survivors: Optional[Tensor], constant: Tensor, signs: Optional[Tensor],
    base: Optional[Tensor], seed: int, layer: int, stream: int, absolute: bool,
) -> Tensor:  # fmt: skip
    place = seed, layer, stream
    if scores.dtype is not torch.float32:
        return _subnet_backward_cpu(grad_weight, scores, survivors, constant, signs, base, *place, absolute)
    signs = _signs_unless(base, signs, *place, scores)
    return subnet_backward_native(grad_weight, scores, survivors, constant, signs, base, absolute)


def _signs_unless(
    base: Optional[Tensor], signs: Optional[Tensor], seed: int, layer: int, stream: int, scores: Tensor
) -> Optional[Tensor]:
    """Packed sign words, given or drawn, where theta0 is not dense."""
    rows = scores.shape[0]
    return None if base is not None else kept_signs(signs, seed, layer, stream, rows, scores.numel() // rows)


_subnet = define_op(
    "subnet",
    triton_impl=subnet_triton,
    torch_impl=_subnet_cpu,
    native_impl=_subnet_native,
    fake=lambda scores, tau, last_tied, survivors, constant, signs, base, seed, layer, stream, absolute, dtype, ever: (
        scores.new_empty(scores.shape, dtype=dtype),
        scores.new_empty(scores.shape[0], words_per_row(scores.numel() // scores.shape[0]), dtype=torch.int32),
    ),
    mutates=("ever",),
)
_subnet_backward = define_op(
    "subnet_backward",
    triton_impl=subnet_backward_triton,
    torch_impl=_subnet_backward_cpu,
    native_impl=_subnet_backward_native,
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
            ctx.plain = seed, layer, stream, absolute
            ctx.real = real
        theta = constant, signs, _base(base, real, seed, layer, stream, scores), seed, layer, stream
        op = _subnet_torch if _visible(scores) else _subnet
        weight, mask = op(scores, tau, last_tied, survivors, *theta, absolute, dtype, ever)
        ctx.mark_non_differentiable(mask)
        return weight, mask

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.straight_through:
            return (grad_weight.float().contiguous(), *(None,) * 14)
        scores, survivors, constant, signs, base = ctx.saved_tensors
        seed, layer, stream, _ = ctx.plain
        base = _base(base, ctx.real, seed, layer, stream, scores)
        op = _subnet_backward_torch if _visible(scores) else _subnet_backward
        return (op(grad_weight, scores, survivors, constant, signs, base, *ctx.plain), *(None,) * 14)


def _base(
    base: Tensor | None, real: tuple[str, float] | None, seed: int, layer: int, stream: int, scores: Tensor
) -> Tensor | None:
    """The dense weights of a layer, given or drawn; None where they are a constant with signs."""
    rows = scores.shape[0]
    drawn = draw_real(real, seed, layer, stream, rows, scores.numel() // rows, scores.device)
    return base if drawn is None else drawn


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
