"""subnet: from scores to the effective weights theta0 * m, in one pass over the scores.

    m[e] = how many coats select edge e: 0 or 1 where there is one (kernels/select/op.py: key > tau, or key == tau and
    flat index <= last_tied; and a survivor), w = m * theta0 in the dtype asked for

On the way the mask of each coat is packed (kernels/base/bits.py), the first coat's also, where asked, ORed into the
bits of the edges ever selected. Weights of one coat move as bit patterns; of several they are products in float32,
rounded once to the dtype. So every path gives the same bits; an edge that is not selected weighs +0.0.

Straight-through backward (Ramanujan et al. 2020, section 3), its own op:

    dL/ds = dL/dw * theta0 * sign(s) for abs scores, dL/dw * theta0 for raw ones, for every edge, selected or not, and
    zero for edges that hard pruning removed; sign(0) = +1, so that a score of zero can move

Its theta0 may be another than the forward's. Of N coats, each straight-through, dL/ds is the sum over the coats, with
N * theta0 (Okoshi et al. 2022, "Multicoated supermasks enhance hidden networks").

Nothing dense is kept for backward but the scores, which their parameter holds anyway: theta0 is made again.
"""

from typing import Any

import torch
from torch import Tensor

from supermask.kernels.base.bits import pack, unpack
from supermask.kernels.base.keys import Threshold
from supermask.kernels.base.launch import define_op
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.op import selected
from supermask.kernels.subnet.arguments import check, mask_shape, matrix_of
from supermask.kernels.subnet.cpu import subnet_backward_cpu, subnet_cpu
from supermask.kernels.subnet.gpu import subnet_backward_triton, subnet_triton
from supermask.kernels.subnet.native import subnet_backward_native, subnet_native


def reference(
    scores: Tensor, threshold: Threshold, survivors: Tensor | None, theta: Theta, absolute: bool, dtype: torch.dtype,
    ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The equation: w and m, packed."""
    chosen = selected(scores, threshold, absolute)
    if survivors is not None:
        chosen = chosen & unpack(survivors, chosen.shape[-1])
    coats = chosen.view(-1, *chosen.shape[-2:]).unbind()
    masks = [pack(coat) for coat in coats]
    if ever is not None:
        ever.bitwise_or_(masks[0])
    if len(coats) == 1:
        return theta.where(coats[0], dtype).view(scores.shape), masks[0]
    weight = theta.where(chosen.any(0), torch.float32) * chosen.sum(0, dtype=torch.int8)
    return weight.to(dtype).view(scores.shape), torch.stack(masks)


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


def _subnet_fake(
    scores: Tensor, tau: Tensor, last_tied: Tensor, survivors: Tensor | None, constant: Tensor, signs: Tensor | None,
    base: Tensor | None, seed: int, layer: int, stream: int, absolute: bool, dtype: torch.dtype, ever: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    mask = scores.new_empty(mask_shape(scores, tau.numel()), dtype=torch.int32)
    return scores.new_empty(scores.shape, dtype=dtype), mask


_THETA = "Tensor constant, Tensor? signs, Tensor? base, SymInt seed, SymInt layer, SymInt stream"
_subnet = define_op(
    "subnet",
    triton_impl=subnet_triton,
    torch_impl=subnet_cpu,
    native_impl=subnet_native,
    schema=f"(Tensor scores, Tensor tau, Tensor last_tied, Tensor? survivors, {_THETA}, bool absolute, "
    "ScalarType dtype, Tensor(a!)? ever) -> (Tensor, Tensor)",
    records=_records,
    fake=_subnet_fake,
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
        ctx: Any, scores: Tensor, tau: Tensor, last_tied: Tensor, survivors: Tensor | None, absolute: bool,
        dtype: torch.dtype, ever: Tensor | None, straight_through: bool, *thetas: Any,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        forwards, backwards, shared = thetas[:_FLAT], thetas[_FLAT : 2 * _FLAT], thetas[2 * _FLAT :]
        ctx.straight_through = straight_through
        if straight_through:
            tensors = [one if same else other for one, other, same in zip(forwards, backwards, shared, strict=False)]
            ctx.save_for_backward(scores, survivors, *tensors)
            ctx.plain = *backwards[len(shared) :], absolute
        theta = _made(Theta.of(*forwards), scores)
        if _visible(scores):
            weight, mask = reference(scores, Threshold(tau, last_tied), survivors, theta, absolute, dtype, ever)
        else:
            weight, mask = _subnet(scores, tau, last_tied, survivors, *theta.schema(), absolute, dtype, ever)
        ctx.mark_non_differentiable(mask)
        return weight, mask

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        others = (None,) * (7 + 2 * _FLAT + 3)
        if not ctx.straight_through:
            return (_row_major(grad_weight.float()), *others)
        scores, survivors, *tensors = ctx.saved_tensors
        *place, absolute = ctx.plain
        theta = _made(Theta.of(*tensors, *place), scores)
        if _visible(scores):
            grad = reference_backward(grad_weight, scores, survivors, theta, absolute)
        else:
            grad = _subnet_backward(grad_weight, scores, survivors, *theta.schema(), absolute)
        return (_row_major(grad), *others)


def _row_major(grad: Tensor) -> Tensor:
    """`grad` with the strides of the scores: contiguous says nothing of those of axes of length one, which whoever
    buckets gradients compares."""
    return grad.contiguous().view(-1).view(grad.shape)


_FLAT = 8  # what a theta is as arguments: Theta.flat


def _made(theta: Theta, scores: Tensor) -> Theta:
    """With real-valued weights drawn, again at each use."""
    return theta.made(*matrix_of(scores), scores.device)


def _visible(scores: Tensor) -> bool:
    return torch.compiler.is_compiling() and scores.device.type == "cpu"


def subnet(
    scores: Tensor,
    threshold: Threshold,
    theta: Theta,
    *,
    survivors: Tensor | None = None,
    absolute: bool = True,
    dtype: torch.dtype = torch.float32,
    ever: Tensor | None = None,
    straight_through: bool = True,
    gradient: Theta | None = None,
) -> tuple[Tensor, Tensor]:
    """Effective weights and packed mask of one layer; straight-through for the scores.

    Args:
        scores: float32, contiguous, the shape of the weight, [out, ...].
        threshold: the layer's (`supermask.kernels.select.select`), of one coat, one element each, or of several,
            [coats] from the widest.
        theta: where the weights come from.
        survivors: packed int32 [rows, words] of the edges that hard pruning left, or None for all.
        absolute: rank by |score| (EP), or by the score itself.
        dtype: of the weights.
        ever: packed int32 [rows, words] into which the mask, of the first coat, is ORed, or None.
        straight_through: False leaves the gradient of the scores at dL/dw, contiguous float32, for a step that makes
            it theirs (kernels/score_step/op.py) with a theta0 of its own.
        gradient: the theta0 by which straight-through multiplies, where it is not the forward's: N * theta0 of N coats
            (`Theta.scaled`); None is `theta`.

    Returns:
        The weights, shaped like `scores`, and the mask, packed int32 [rows, words], or [coats, rows, words].

    Raises:
        TypeError: scores that are not float32, a threshold of other dtypes than int32 and int64.
        ValueError: scores or packed bits that are not contiguous, packed bits or a theta of another layer's shape, a
            threshold of more than one layer.
    """
    named = {"theta": theta} | ({} if gradient is None else {"gradient": gradient})
    check(scores, threshold, named, {"survivors": survivors, "ever": ever})
    plain = survivors, absolute, dtype, ever, straight_through
    forwards, backwards = theta.flat(), (theta if gradient is None else gradient).flat()
    # A tensor goes in once: a compiler's tracing takes none twice.
    shared = [one is other for one, other in zip(forwards[:3], backwards[:3], strict=True)]
    own = [None if same else other for other, same in zip(backwards[:3], shared, strict=True)]
    thetas = *forwards, *own, *backwards[3:], *shared
    return _Subnet.apply(scores, threshold.tau.flatten(), threshold.last_tied.flatten(), *plain, *thetas)
