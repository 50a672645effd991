"""subnet: from scores to the effective weights theta0 * m, in one pass over the scores.

    m[e] = 1 where edge e is selected (kernels/threshold.py: key > tau, or key == tau and flat index <= last_tied; and a
    survivor), w = m * theta0 in the dtype asked for

On the way the mask is packed (kernels/bits.py) and, where asked, ORed into the bits of the edges ever selected. Weights
move as bit patterns, so every path gives the same bits; an edge that is not selected weighs +0.0.

Straight-through backward (Ramanujan et al. 2020, section 3), its own op:

    dL/ds = dL/dw * theta0 * sign(s) for abs scores, dL/dw * theta0 for raw ones, for every edge, selected or not, and
    zero for edges that hard pruning removed; sign(0) = +1, so that a score of zero can move

Nothing dense is kept for backward but the scores, which their parameter holds anyway: theta0 is made again.
"""

from typing import Any, Optional

import torch
from torch import Tensor

from kernels._launch import cdiv, define_op, jit, launch, tl
from kernels.bits import check_words, pack, unpack, words_per_row
from kernels.edge_tile import is_set, sign_of, tile_of_edges, tile_of_words, tile_rows, words_of
from kernels.radix_select import score_key
from kernels.search_cpu import subnet_backward_native, subnet_native
from kernels.subnet_cpu import grad_scores, weights_and_mask
from kernels.theta import BITS_DTYPE, Theta, draw_real, drawn_signs, kept_signs, signed_tile, signs_of, weights_torch
from kernels.threshold import selected


@jit
def _subnet_kernel(
    scores_ptr, tau_ptr, last_tied_ptr, survivors_ptr, constant_ptr, signs_ptr, base_ptr, weight_ptr, mask_ptr,
    ever_ptr, rows, cols, words, ABSOLUTE: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    first, row, start_word, word, there = tile_of_words(rows, words, BLOCK_R)
    start, edge, inside = tile_of_edges(first, row, there, cols)
    key = score_key(tl.load(scores_ptr + start + edge, mask=inside, other=0.0), ABSOLUTE)
    # Edges up to last_tied rank as if their keys were one higher, so that of equal ones these alone are above tau.
    last = tl.minimum(tl.maximum(tl.load(last_tied_ptr) - start, -1), 2147483647).to(tl.int32)
    chosen = inside & (key + (edge <= last).to(tl.int32) > tl.load(tau_ptr))
    if survivors_ptr is not None:
        chosen = chosen & is_set(tl.load(survivors_ptr + start_word + word, mask=there, other=0))

    if base_ptr is not None:
        theta = tl.load(base_ptr + start + edge, mask=inside, other=0)
    else:
        theta = signed_tile(constant_ptr, tl.load(signs_ptr + start_word + word, mask=there, other=0))
    tl.store(weight_ptr + start + edge, tl.where(chosen, theta, 0), mask=inside)

    packed = words_of(chosen)
    tl.store(mask_ptr + start_word + word, packed, mask=there)
    if ever_ptr is not None:
        ever = tl.load(ever_ptr + start_word + word, mask=there, other=0)
        tl.store(ever_ptr + start_word + word, ever | packed, mask=there)


@jit
def _subnet_backward_kernel(
    grad_weight_ptr, scores_ptr, survivors_ptr, constant_ptr, signs_ptr, base_ptr, grad_scores_ptr, rows, cols, words,
    ABSOLUTE: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    first, row, start_word, word, there = tile_of_words(rows, words, BLOCK_R)
    start, edge, inside = tile_of_edges(first, row, there, cols)
    grad = tl.load(grad_weight_ptr + start + edge, mask=inside, other=0.0).to(tl.float32)
    if base_ptr is not None:
        grad = grad * tl.load(base_ptr + start + edge, mask=inside, other=0.0)
    else:
        minus = sign_of(tl.load(signs_ptr + start_word + word, mask=there, other=0))
        grad = grad * tl.load(constant_ptr)
        grad = (grad.to(tl.int32, bitcast=True) ^ minus).to(tl.float32, bitcast=True)
    if ABSOLUTE:
        score = tl.load(scores_ptr + start + edge, mask=inside, other=0.0)
        grad = tl.where(score < 0.0, -grad, grad)
    if survivors_ptr is not None:
        survives = is_set(tl.load(survivors_ptr + start_word + word, mask=there, other=0))
        grad = tl.where(survives, grad, 0.0)
    tl.store(grad_scores_ptr + start + edge, grad, mask=inside)


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


def _subnet_triton(
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
    if dtype not in BITS_DTYPE:  # float64 is for checks, and exact from float32
        args = (scores, tau, last_tied, survivors, constant, signs, base, seed, layer, stream, absolute)
        weight, mask = _subnet_triton(*args, torch.float32, ever)
        return weight.to(dtype), mask
    rows, cols, words, grid, block = _shape(scores)
    as_bits = BITS_DTYPE[dtype]
    weight = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    mask = torch.empty(rows, words, dtype=torch.int32, device=scores.device)
    launch(
        _subnet_kernel,
        grid,
        scores,
        tau,
        last_tied,
        survivors,
        constant.to(dtype).view(as_bits),
        drawn_signs(signs, base, seed, layer, stream, rows, cols, scores.device),
        None if base is None else base.to(dtype).view(as_bits),
        weight.view(as_bits),
        mask,
        ever,
        rows,
        cols,
        words,
        ABSOLUTE=absolute,
        BLOCK_R=block,
        num_warps=4,
    )
    return weight, mask


def _subnet_backward_triton(
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
    rows, cols, words, grid, block = _shape(scores)
    grad_scores = torch.empty_like(scores)
    launch(
        _subnet_backward_kernel,
        grid,
        grad_weight.contiguous(),
        scores,
        survivors,
        constant,
        drawn_signs(signs, base, seed, layer, stream, rows, cols, scores.device),
        base,
        grad_scores,
        rows,
        cols,
        words,
        ABSOLUTE=absolute,
        BLOCK_R=block,
        num_warps=4,
    )
    return grad_scores


def _shape(scores: Tensor) -> tuple[int, int, int, tuple[int, int], int]:
    """rows, cols, words, grid and rows a program."""
    rows = scores.shape[0]
    cols = scores.numel() // rows
    words = words_per_row(cols)
    block = tile_rows(cols)
    return rows, cols, words, (cdiv(rows, block), words // 4), block


_subnet = define_op(
    "subnet",
    triton_impl=_subnet_triton,
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
    triton_impl=_subnet_backward_triton,
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
        tau, last_tied: the layer's threshold, one-element int32 and int64 (`kernels.threshold.select`).
        theta: where the weights come from.
        survivors: packed int32 [rows, words] of the edges that hard pruning left, or None for all.
        absolute: rank by |score| (EP), or by the score itself.
        dtype: of the weights.
        ever: packed int32 [rows, words] into which the mask is ORed, or None.
        straight_through: False leaves the gradient of the scores at dL/dw, contiguous float32, for a step that makes
            it theirs (kernels/score_step.py).

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
