"""masked_conv2d on the GPU (kernels/masked_conv2d/op.py): one kernel, for the convolution and for the gradient of x.

An implicit matrix product: a tile of the weights' rows times a tile of positions, in steps of one tile of columns,
accumulated in float32; the constant multiplies the sum. The weights' columns run (c, kh, kw), and the activations are
read through their strides, fastest where channels lie side by side. Two orders of summation:

    natural   the weights' own order, each 128 columns one Philox call. For kernels of 1 x 1, where a tile's columns are
              128 channels that lie side by side in x; and for few channels, where every column finds its own x.
    by taps   (kh, kw, c): the bits are laid out tap by tap first (masked_conv2d/taps.py, two bits an edge), and then a
              tile's columns are channels that lie side by side in x, under one bounds check a position.

The gradient of x is the same sum with the roles of rows and channels exchanged, by taps of the transposed bits. With a
stride, the positions of x fall into stride x stride phases; in each, only every stride-th tap meets an output, and over
those it is a convolution of stride 1. No atomics: every result is one program's sum in one order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from supermask.kernels.base.launch import cdiv, interpreted, jit, launch, tl
from supermask.kernels.base.planes import Planes
from supermask.kernels.base.sizes import fitting
from supermask.kernels.base.theta import Theta
from supermask.kernels.base.tile import sign_quad, weight_tile, weights
from supermask.kernels.masked_conv2d.arguments import Window
from supermask.kernels.masked_conv2d.sizes import SIZES
from supermask.kernels.masked_conv2d.taps import tap_codes

__all__ = ["masked_conv2d_backward_triton", "masked_conv2d_triton"]


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


@jit
def _own_rows(rows, groups, BLOCK_R: tl.constexpr):
    """The program's group, its rows of this, and the number of what it does with them."""
    program, tiles = tl.program_id(0), tl.cdiv(rows, BLOCK_R)
    local = program % tiles * BLOCK_R + tl.arange(0, BLOCK_R)
    return program // tiles % groups, local, program // tiles // groups


@jit
def _position(m, images, height, width, phase_h, phase_w, apart_h, apart_w):
    """Of the results phase, phase + apart, .. along each axis, number `m`: its image, row and column among these, its
    row and column in y, and whether it is there."""
    across, down = tl.cdiv(width, apart_w), tl.cdiv(height, apart_h)
    position_w = (m % across).to(tl.int32)
    position_h = (m // across % down).to(tl.int32)
    image = m // across // down
    y_h, y_w = position_h * apart_h + phase_h, position_w * apart_w + phase_w
    return image, position_h, position_w, y_h, y_w, (image < images) & (y_h < height) & (y_w < width)


@jit
def _column(col, channels, rows_met, cols_met, KH: tl.constexpr, KW: tl.constexpr):
    """Channel, kh and kw of columns in natural order, and where they meet x: [positions, columns]."""
    channel, kh, kw = col // (KH * KW), col // KW % KH, col % KW
    bit = tl.where(channel < channels, kh, KH)  # one that is never set
    inside = ((rows_met[:, None] >> bit[None, :]) & (cols_met[:, None] >> kw[None, :]) & 1) != 0
    return channel, kh, kw, inside


@jit
def _advanced(start, tap_h, tap_w, per_tap, count_w):
    """The next tile by taps: of the same tap, or the first of the next one."""
    start += 1
    tap_w += (start == per_tap).to(tl.int32)
    tap_h += (tap_w == count_w).to(tl.int32)
    return tl.where(start == per_tap, 0, start), tap_h, tl.where(tap_w == count_w, 0, tap_w)


_ANY = ["seed", "layer", "stream", "images", "height", "width", "y_height", "y_width", "tiles"]


@jit(do_not_specialize=_ANY)
def _masked_conv2d_kernel(
    x_ptr, mask_ptr, signs_ptr, flips_ptr, constant_ptr, bias_ptr, y_ptr, seed, layer, stream,
    images, height, width, y_height, y_width, channels, rows, group_rows, tiles,
    stride_xn, stride_xc, stride_xh, stride_xw, KH: tl.constexpr, KW: tl.constexpr,
    STEP_H: tl.constexpr, STEP_W: tl.constexpr, PAD_H: tl.constexpr, PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, COATS: tl.constexpr,
    BY_TAPS: tl.constexpr, TRANSPOSED: tl.constexpr, TILE: tl.constexpr,
    INDEX: tl.constexpr, DTYPE: tl.constexpr, EXACT: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    group, local, program = _own_rows(group_rows, rows // group_rows, BLOCK_R)
    row, inside_r = (group * group_rows + local).to(tl.int64), local < group_rows

    # Results lie apart, and in as many phases.
    apart_h, apart_w = (STEP_H, STEP_W) if TRANSPOSED else (1, 1)
    phase_h, phase_w = program % apart_h, program // apart_h % apart_w
    m = (program // (apart_h * apart_w)).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M)
    image, top, left, y_h, y_w, inside_m = _position(m, images, y_height, y_width, phase_h, phase_w, apart_h, apart_w)
    first_h, period_h, count_h, start_h, further_h, over_h = _axis(phase_h, KH, STEP_H, PAD_H, DILATION_H, TRANSPOSED)
    first_w, period_w, count_w, start_w, further_w, over_w = _axis(phase_w, KW, STEP_W, PAD_W, DILATION_W, TRANSPOSED)
    top, left = start_h + top * over_h, start_w + left * over_w
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
            channel, kh, kw, inside = _column(tile * (16 * TILE) + k, channels, rows_met, cols_met, KH, KW)
            right_h, right_w = kh * DILATION_H, kw * DILATION_W
        right = tl.cast(right_h, INDEX) * stride_xh + tl.cast(right_w, INDEX) * stride_xw
        place = corner[:, None] + (channel.to(INDEX) * stride_xc + right)[None, :]
        x = tl.load(x_ptr + place, mask=inside, other=0.0)
        if BY_TAPS:
            tap = (first_h + tap_h * period_h) * KW + first_w + tap_w * period_w
            at = row[:, None] * words + (tap * per_tap + start) * TILE + tl.arange(0, TILE)[None, :]
            for coat in tl.static_range(COATS):
                code = tl.load(mask_ptr + coat * plane + at, mask=inside_r[:, None], other=0)
                total = _product(weights(code.to(tl.uint32, bitcast=True), DTYPE), x, total, DTYPE, EXACT)
            start, tap_h, tap_w = _advanced(start, tap_h, tap_w, per_tap, count_w)
        else:
            signs = sign_quad(signs_ptr, flips_ptr, seed, layer, stream, row, tile, words, inside_r)
            w = weight_tile(mask_ptr, signs, row, tile, words, inside_r, DTYPE)
            total = _product(w, x, total, DTYPE, EXACT)

    y = total * (tl.load(constant_ptr) * 0.5)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + row, mask=inside_r, other=0.0).to(tl.float32)[:, None]
    if TRANSPOSED:
        m = (image * y_height + y_h) * y_width + y_w
    place = m[:, None] * rows + row.to(INDEX)[None, :]
    tl.store(y_ptr + place, tl.trans(y).to(y_ptr.dtype.element_ty), mask=inside_m[:, None] & inside_r[None, :])


_WIDE = 1 << 31  # from here on, places are counted in 64 bits
_STEPS = "STEP_H", "STEP_W", "PAD_H", "PAD_W", "DILATION_H", "DILATION_W"


def _aligned(x: Tensor, channels: int) -> bool:
    """Whether channels of x are loaded several at once; `channels` are those of a group."""
    return x.stride(1) == 1 and not any(size % 16 for size in (channels, *x.stride()[2:]))


def _tile(channels: int) -> int:
    """Codes of one tap in a tile, 16 channels each: short tiles spare registers and padding."""
    return 2 if channels <= 32 else 4


def _start(
    x: Tensor, weights: tuple[Tensor, Tensor | None, Tensor | None, Tensor], bias: Tensor | None, theta: Theta,
    size: Sequence[int], window: Window, tile: int | None, transposed: bool,
) -> Tensor:  # fmt: skip
    """Start the kernel; `weights` are mask or codes, signs, flips and constant, `size` is channels, height and width of
    the result, `tile` the codes of a tile by taps."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(
            f"x is {x.dtype}: kernels take torch.float32, bfloat16 and float16, the PyTorch path float64 too"
        )
    images, (rows, y_height, y_width) = x.shape[0], size
    mask, (kernel, stride, *_, groups) = weights[0], window
    group_rows = rows // groups
    # Interpreted, a store to bfloat16 would truncate.
    made = torch.float32 if interpreted() else x.dtype
    y = torch.empty(images, y_height, y_width, rows, dtype=made, device=x.device)
    phases = stride[0] * stride[1] if transposed else 1
    positions = images * y_height * y_width
    if transposed:
        positions = images * cdiv(y_height, stride[0]) * cdiv(y_width, stride[1])
    # Positions beyond the last (up to 64) are counted, too, and x's strides may reach past its elements.
    reach = sum(size * abs(step) for size, step in zip(x.shape, x.stride(), strict=True))
    wide = max(y.numel() + 64 * rows, 2 * reach, phases * positions + 64) >= _WIDE
    channels = x.shape[1] // groups
    scattered = not _aligned(x, channels) or (tile is None and tuple(kernel) != (1, 1))
    exact = x.dtype is torch.float32
    sizes = dict(SIZES.of(scattered=scattered, wide=wide, exact=exact, natural=tile is None))
    sizes["BLOCK_R"] = fitting(group_rows, 16, sizes["BLOCK_R"])
    programs = cdiv(group_rows, sizes["BLOCK_R"]) * groups * phases * cdiv(positions, sizes["BLOCK_M"])
    launch(
        _masked_conv2d_kernel,
        (programs,),
        x, *weights, bias, y, *theta.counter(),
        images, x.shape[2], x.shape[3], y_height, y_width, channels, rows, group_rows,
        mask.shape[2] // (tile or 4),
        *x.stride(),
        **dict(zip(_STEPS, (*stride, *window.padding, *window.dilation), strict=True)),
        KH=kernel[0],
        KW=kernel[1],
        COATS=mask.shape[0],
        BY_TAPS=tile is not None,
        TRANSPOSED=transposed,
        TILE=tile or 8,
        INDEX=tl.int64 if wide else tl.int32,
        DTYPE=tl.float32 if interpreted() else tl.float16 if x.dtype is torch.float16 else tl.bfloat16,
        EXACT=exact,
        **sizes,
    )  # fmt: skip
    return y.to(x.dtype).permute(0, 3, 1, 2)


def masked_conv2d_triton(x: Tensor, planes: Planes, bias: Tensor | None, window: Window) -> Tensor:
    mask, theta, flips = planes
    rows, taps, channels = mask.shape[1], window.kernel[0] * window.kernel[1], x.shape[1] // window.groups
    signs, tile = theta.signs, None
    # The weights' own order takes more registers: it is for one coat, and products of 16 bits.
    natural = channels <= 16 if taps > 1 else _aligned(x, channels)
    if not natural or mask.shape[0] > 1 or x.dtype is torch.float32 or max(window.kernel) > 30:
        tile = _tile(channels)
        mask = tap_codes(mask, planes.signs(channels * taps, x.device), taps, channels, tile)
        signs = flips = None
    weights = mask, signs, flips, theta.constant
    return _start(x, weights, bias, theta, (rows, *window.out_size(x.shape[2:])), window, tile, False)


def masked_conv2d_backward_triton(grad: Tensor, planes: Planes, size: Sequence[int], window: Window) -> Tensor:
    mask, theta, _ = planes
    taps, channels = window.kernel[0] * window.kernel[1], size[0] // window.groups
    tile = _tile(mask.shape[1] // window.groups)
    signs = planes.signs(channels * taps, grad.device)
    mask = tap_codes(mask, signs, taps, channels, tile, window.groups)
    return _start(grad, (mask, None, None, theta.constant), None, theta, size, window, tile, True)
