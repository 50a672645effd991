"""masked_conv2d: a 2-d convolution whose weights are made where they are used, from the seed and the mask's bits.

    y[n, r, oh, ow] = bias[r] + constant * sum over c, kh, kw of
                      x[n, c, oh * stride - padding + kh * dilation, ..] * w[r, c, kh, kw]
    w = (-1 if the edge's sign bit is set, else 1) * (number of coats whose mask bit is set)

An implicit matrix product: a tile of the weights' rows times a tile of positions, in steps of one tile of columns,
accumulated in float32; the constant multiplies the sum. The weights' columns run (c, kh, kw), and the activations are
read through their strides, fastest where channels lie side by side. Two orders of summation:

    natural   the weights' own order, each 128 columns one Philox call. For kernels of 1 x 1, where a tile's columns are
              128 channels of x; and for few channels, where every column finds its own x.
    by taps   (kh, kw, c): the bits are laid out tap by tap first (kernels/tap_codes.py, two bits an edge), and then a
              tile's columns are channels that lie side by side in x, under one bounds check a position.

The gradient of x is the same sum with the roles of rows and channels exchanged, by taps of the transposed bits. With a
stride, the positions of x fall into stride x stride phases; in each, only every stride-th tap meets an output, and over
those it is a convolution of stride 1. No atomics: every result is one program's sum in one order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from kernels._launch import cdiv, define_op, interpreted, jit, launch, tl
from kernels.bits import unpack
from kernels.conv_arguments import check_conv2d, out_size, pair
from kernels.philox import sign_words
from kernels.tap_codes import tap_codes
from kernels.theta import Theta, signs_of
from kernels.tile import _halves, sign_quad, warps_of, weight_tile


@jit
def _weights(code, DTYPE: tl.constexpr):
    """Weights [R, 16 * N] from codes uint32 [R, N], as kernels.tile.weights makes them from eight."""
    R: tl.constexpr = code.shape[0]
    place = 14 - 2 * tl.arange(0, 8)[None, None, :]
    pair = (code[:, :, None] << place) & 0xC000C000
    return tl.reshape(_halves(pair, DTYPE), (R, 16 * code.shape[1]))


@jit
def _axis(
    phase, KERNEL: tl.constexpr, STEP: tl.constexpr, PAD: tl.constexpr, DILATION: tl.constexpr, TRANSPOSED: tl.constexpr
):
    """How a sum runs along one axis: its first tap, the distance to the next, how many there are; where x is read for
    the first tap at position 0, how much further for the next tap, and for the next position. For the gradient, of the
    results phase, phase + STEP, ..: there x is the gradient of y, and only the taps that meet it count."""
    if TRANSPOSED:
        first, second, count = KERNEL, KERNEL, 0
        for i in tl.static_range(KERNEL):
            tap = KERNEL - 1 - i
            meets = (phase + PAD - tap * DILATION) % STEP == 0
            second = tl.where(meets, first, second)
            first = tl.where(meets, tap, first)
            count += meets.to(tl.int32)
        further = (first - second) * DILATION // STEP
        return first, second - first, count, (phase + PAD - first * DILATION) // STEP, further, 1
    else:
        return 0, 1, KERNEL, -PAD, DILATION, STEP


@jit
def _within(at, size):
    """0 <= at < size, in one comparison."""
    return at.to(tl.uint32, bitcast=True) < size


@jit
def _taps_within(first, size, KERNEL: tl.constexpr, DILATION: tl.constexpr):
    """A bit for each tap (up to 30) that falls inside x, where the first falls on `first`."""
    before = tl.minimum(tl.maximum((DILATION - 1 - first) // DILATION, 0), KERNEL)
    through = tl.minimum(tl.maximum((size - first + DILATION - 1) // DILATION, 0), KERNEL)
    return tl.maximum((1 << through) - (1 << before), 0)


@jit
def _upper(x, DTYPE: tl.constexpr):
    """The upper halves of float32 numbers, as DTYPE (bfloat16, or float32 where bfloat16 does not multiply)."""
    bits = x.to(tl.int32, bitcast=True)
    if DTYPE.primitive_bitwidth == 16:
        return (bits >> 16).to(tl.int16).to(DTYPE, bitcast=True)
    else:
        return (bits & -65536).to(DTYPE, bitcast=True)


@jit
def _product(w, x, total, DTYPE: tl.constexpr, EXACT: tl.constexpr):
    """total + w @ x^T; EXACT: x is float32, and goes in as three bfloat16 that add up to it."""
    if EXACT:
        upper = _upper(x, DTYPE)
        x = tl.where(x == upper.to(tl.float32), 0.0, x - upper.to(tl.float32))  # nothing is left of an infinity
        middle = _upper(x, DTYPE)
        lower = _upper(x - middle.to(tl.float32), DTYPE)
        total = tl.dot(w, tl.trans(lower), total, input_precision="ieee")
        total = tl.dot(w, tl.trans(middle), total, input_precision="ieee")
        total = tl.dot(w, tl.trans(upper), total, input_precision="ieee")
    else:
        total = tl.dot(w, tl.trans(x.to(DTYPE)), total, input_precision="ieee")
    return total


_ANY = ["seed", "layer", "stream", "images", "height", "width", "y_height", "y_width", "tiles"]


@jit(do_not_specialize=_ANY)
def _masked_conv2d_kernel(  # noqa: PLR0915
    x_ptr, mask_ptr, signs_ptr, flips_ptr, constant_ptr, bias_ptr, y_ptr, seed, layer, stream,
    images, height, width, y_height, y_width, channels, rows, group_rows, tiles,
    stride_xn, stride_xc, stride_xh, stride_xw, KH: tl.constexpr, KW: tl.constexpr,
    STEP_H: tl.constexpr, STEP_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, COATS: tl.constexpr,
    BY_TAPS: tl.constexpr, TRANSPOSED: tl.constexpr, TILE: tl.constexpr,
    INDEX: tl.constexpr, DTYPE: tl.constexpr, EXACT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tiles_r = tl.cdiv(group_rows, BLOCK_R)
    local = program % tiles_r * BLOCK_R + tl.arange(0, BLOCK_R)
    inside_r = local < group_rows
    program = program // tiles_r
    group = program % (rows // group_rows)
    row = group * group_rows + local
    program = program // (rows // group_rows)

    # Results lie apart, and in as many phases.
    apart_h, apart_w = (STEP_H, STEP_W) if TRANSPOSED else (1, 1)
    phase_h, phase_w = program % apart_h, program // apart_h % apart_w
    program = program // (apart_h * apart_w)
    first_h, period_h, count_h, start_h, further_h, over_h = _axis(phase_h, KH, STEP_H, PAD_H, DILATION_H, TRANSPOSED)
    first_w, period_w, count_w, start_w, further_w, over_w = _axis(phase_w, KW, STEP_W, PAD_W, DILATION_W, TRANSPOSED)

    m = program.to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M)
    across, down = tl.cdiv(y_width, apart_w), tl.cdiv(y_height, apart_h)
    position_w = (m % across).to(tl.int32)
    position_h = (m // across % down).to(tl.int32)
    image = m // across // down
    y_h, y_w = position_h * apart_h + phase_h, position_w * apart_w + phase_w
    inside_m = (image < images) & (y_h < y_height) & (y_w < y_width)
    top, left = start_h + position_h * over_h, start_w + position_w * over_w
    corner = image * stride_xn + top.to(INDEX) * stride_xh + left.to(INDEX) * stride_xw
    corner += tl.cast(group, INDEX) * channels * stride_xc
    top = tl.where(inside_m, top, -(1 << 30))  # outside, with any tap

    rows_met, cols_met = _taps_within(top, height, KH, DILATION_H), _taps_within(left, width, KW, DILATION_W)

    k = tl.arange(0, 16 * TILE)
    total = tl.zeros((BLOCK_R, BLOCK_M), dtype=tl.float32)
    tap_h, tap_w, start = 0, 0, 0
    words = tiles * (TILE if BY_TAPS else 4)  # of a row; known as a multiple, so that a tile's load at once
    plane = tl.cast(rows, tl.int64) * words
    per_tap = tiles
    if BY_TAPS:
        per_tap = tiles // (KH * KW)
        tiles = per_tap * count_h * count_w
    for tile in range(tiles):
        if BY_TAPS or KH * KW == 1:
            channel = (start if BY_TAPS else tile) * (16 * TILE) + k
            right_h, right_w = tap_h * further_h, tap_w * further_w
            met = _within(top + right_h, height) & _within(left + right_w, width)
            inside = met[:, None] & (channel < channels)[None, :]
        else:
            col = tile * (16 * TILE) + k
            channel = col // (KH * KW)
            kh, kw = col // KW % KH, col % KW
            right_h, right_w = kh * DILATION_H, kw * DILATION_W
            kh = tl.where(channel < channels, kh, KH)  # a bit that is never set
            inside = ((rows_met[:, None] >> kh[None, :]) & (cols_met[:, None] >> kw[None, :]) & 1) != 0
        place = channel.to(INDEX) * stride_xc
        place += tl.cast(right_h, INDEX) * stride_xh + tl.cast(right_w, INDEX) * stride_xw
        x = tl.load(x_ptr + (corner[:, None] + place[None, :]), mask=inside, other=0.0)
        if BY_TAPS:
            tap = (first_h + tap_h * period_h) * KW + first_w + tap_w * period_w
            at = row.to(tl.int64)[:, None] * words + (tap * per_tap + start) * TILE + tl.arange(0, TILE)[None, :]
            for coat in tl.static_range(COATS):
                code = tl.load(mask_ptr + coat * plane + at, mask=inside_r[:, None], other=0).to(
                    tl.uint32, bitcast=True
                )
                total = _product(_weights(code, DTYPE), x, total, DTYPE, EXACT)
            start += 1
            tap_w += (start == per_tap).to(tl.int32)
            start = tl.where(start == per_tap, 0, start)
            tap_h += (tap_w == count_w).to(tl.int32)
            tap_w = tl.where(tap_w == count_w, 0, tap_w)
        else:
            signs = sign_quad(signs_ptr, flips_ptr, seed, layer, stream, row.to(tl.int64), tile, words, inside_r)
            w = weight_tile(mask_ptr, signs, row.to(tl.int64), tile, words, inside_r, DTYPE)
            total = _product(w, x, total, DTYPE, EXACT)

    y = total * (tl.load(constant_ptr) * 0.5)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + row, mask=inside_r, other=0.0).to(tl.float32)[:, None]
    if TRANSPOSED:
        m = (image * y_height + y_h) * y_width + y_w
    y = tl.trans(y).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + m[:, None] * rows + row[None, :], y, mask=inside_m[:, None] & inside_r[None, :])


_WIDE = 1 << 31  # from here on, places are counted in 64 bits
_STEPS = "STEP_H", "STEP_W", "PAD_H", "PAD_W", "DILATION_H", "DILATION_W"


class _Block(NamedTuple):
    """What one program makes, and how."""

    rows: int
    positions: int
    warps: int
    stages: int


def _block(rows: int, dtype: torch.dtype, scattered: bool) -> _Block:
    """For `rows` of a group; `scattered` where every column finds its own x."""
    if interpreted():
        return _Block(32, 64, 4, 1)
    warps, positions, stages = warps_of(128), 64, 2
    if dtype is torch.float32:
        positions = 32  # three products a weight, and four bytes an element of x
    elif scattered and warps == 2:  # 64 lanes a warp, and two scalar registers for every bounds check
        warps, positions, stages = 4, 16, 1
    elif scattered:
        positions = 32
    return _Block(min(128, max(16, 1 << (rows - 1).bit_length())), positions, warps, stages)


def _tile(channels: int) -> int:
    """Codes of one tap in a tile, 16 channels each: short tiles spare registers and padding."""
    return 2 if channels <= 32 else 4


def _start(
    x: Tensor,
    mask: Tensor,
    signs: Tensor | None,
    flips: Tensor | None,
    constant: Tensor,
    bias: Tensor | None,
    draw: tuple[int, int, int],
    size: Sequence[int],
    kernel: Sequence[int],
    steps: Sequence[int],
    groups: int,
    tile: int | None,
    transposed: bool,
) -> Tensor:
    """Start the kernel; `size` is channels, height and width of the result, `tile` the codes of a tile by taps."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(
            f"x is {x.dtype}: kernels take torch.float32, bfloat16 and float16, the PyTorch path float64 too"
        )
    images, (rows, y_height, y_width) = x.shape[0], size
    group_rows = rows // groups
    # Interpreted, a store to bfloat16 would truncate.
    made = torch.float32 if interpreted() else x.dtype
    y = torch.empty(images, y_height, y_width, rows, dtype=made, device=x.device)
    block = _block(group_rows, x.dtype, tile is None and tuple(kernel) != (1, 1))
    phases = steps[0] * steps[1] if transposed else 1
    positions = images * y_height * y_width
    if transposed:
        positions = images * cdiv(y_height, steps[0]) * cdiv(y_width, steps[1])
    # Positions beyond the last are counted, too, and x's strides may reach past its elements.
    reach = sum(size * abs(step) for size, step in zip(x.shape, x.stride(), strict=True))
    most = max(y.numel() + block.positions * rows, 2 * reach, phases * positions + block.positions)
    launch(
        _masked_conv2d_kernel,
        (cdiv(group_rows, block.rows) * groups * phases * cdiv(positions, block.positions),),
        x, mask, signs, flips, constant, bias, y, *draw,
        images, x.shape[2], x.shape[3], y_height, y_width, x.shape[1] // groups, rows, group_rows,
        mask.shape[2] // (tile or 4),
        *x.stride(),
        **dict(zip(_STEPS, steps, strict=True)),
        KH=kernel[0],
        KW=kernel[1],
        COATS=mask.shape[0],
        BY_TAPS=tile is not None,
        TRANSPOSED=transposed,
        TILE=tile or 8,
        INDEX=tl.int64 if most >= _WIDE else tl.int32,
        DTYPE=tl.float32 if interpreted() else tl.float16 if x.dtype is torch.float16 else tl.bfloat16,
        EXACT=x.dtype is torch.float32,
        BLOCK_R=block.rows,
        BLOCK_M=block.positions,
        num_warps=block.warps,
        num_stages=block.stages,
    )  # fmt: skip
    return y.to(x.dtype).permute(0, 3, 1, 2)


def _kept_signs(
    signs: Tensor | None, flips: Tensor | None, draw: tuple[int, int, int], rows: int, cols: int, device: torch.device
) -> Tensor:
    """Sign words, given or drawn, with the flips in them."""
    seed, layer, stream = draw
    if signs is None:
        signs = sign_words(seed % (1 << 64), layer, rows, cols, generation=stream // 256, device=device)
    return signs if flips is None else signs ^ flips


def _masked_conv2d_triton(
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
    rows, taps, channels = mask.shape[1], kernel[0] * kernel[1], x.shape[1] // groups
    draw = seed, layer, stream
    tile = None
    # The weights' own order takes more registers: it is for one coat, and products of 16 bits.
    natural = mask.shape[0] == 1 and x.dtype is not torch.float32 and max(kernel) <= 30
    if not natural or (taps > 1 and channels > 16):
        tile = _tile(channels)
        signs = _kept_signs(signs, flips, draw, rows, channels * taps, x.device)
        mask, signs, flips = tap_codes(mask, signs, taps, channels, tile), None, None
    size = rows, *out_size(x.shape[2:], kernel, stride, padding, dilation)
    steps = *stride, *padding, *dilation
    return _start(x, mask, signs, flips, constant, bias, draw, size, kernel, steps, groups, tile, False)


def _masked_conv2d_backward_triton(
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
    draw, rows = (seed, layer, stream), mask.shape[1]
    taps, channels = kernel[0] * kernel[1], size[0] // groups
    tile = _tile(rows // groups)
    signs = _kept_signs(signs, flips, draw, rows, channels * taps, grad.device)
    mask = tap_codes(mask, signs, taps, channels, tile, groups)
    steps = *stride, *padding, *dilation
    return _start(grad, mask, None, None, constant, None, draw, size, kernel, steps, groups, tile, True)


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
    """The weights as a matrix rows x cols in `dtype`."""
    coats, rows, _ = mask.shape
    negative = signs_of(signs, seed, layer, stream, rows, cols)
    if flips is not None:
        negative = negative ^ unpack(flips, cols)
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
    triton_impl=_masked_conv2d_triton,
    torch_impl=_masked_conv2d_torch,
    fake=lambda x, mask, constant, signs, flips, bias, kernel, stride, padding, dilation, *_: x.new_empty(
        x.shape[0], *out_size(x.shape[2:], kernel, stride, padding, dilation), mask.shape[1]
    ).permute(0, 3, 1, 2),
)
_masked_conv2d_backward = define_op(
    "masked_conv2d_backward",
    triton_impl=_masked_conv2d_backward_triton,
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
