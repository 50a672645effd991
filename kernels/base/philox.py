"""Philox-4x32-10: random words as a function of (seed, position), the same on every device.

key = (seed mod 2^32, seed >> 32), counter = (position, row, layer, stream), stream = purpose + 256 * generation
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3). One call makes four 32-bit words.

A layer is a matrix rows x cols. Its signs take one bit an edge: edge (row, col) reads bit col % 32 of word
(col % 128) // 32 of the call at position col // 128, and a set bit means minus. Its reals take one word an edge:
position col // 4, word col % 4, u = (word >> 8) * 2^-24.

    uniform   low + (high - low) * u, every step rounded to float32: equal to the bit everywhere
    normal    std * Box-Muller of the words (0, 1) and (2, 3), in float64 and rounded once at the end: equal to 2 ulp
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.bits import words_per_row
from supermask.kernels.base.launch import cdiv, define_op, jit, launch, tl

SIGNS, WEIGHTS, SCORES, RERANDOMISE = 0, 1, 2, 3

_LOW32 = 0xFFFFFFFF
_MULTIPLY_A, _MULTIPLY_B = 0xD2511F53, 0xCD9E8D57
_RAISE_A, _RAISE_B = 0x9E3779B9, 0xBB67AE85
_CALLS_AT_ONCE = 1 << 15  # temporaries stay in cache, and small enough that torch does not split them among threads


@jit(do_not_specialize=["seed", "layer", "stream", "used_a", "used_b", "used_c", "used_d"])
def _sign_words_kernel(
    words_ptr, seed, layer, stream, used_a, used_b, used_c, used_d, rows, calls, BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A thread makes a call, or several, and stores its four words at once; `used_*` are the bits of the last call of
    each row that are no padding."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    call = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    a, b, c, d = tl.philox(seed, call, row.to(tl.int32), layer, stream)
    all_used = tl.where(call < calls - 1, -1, 0).to(tl.uint32, bitcast=True)
    a &= used_a.to(tl.uint32, bitcast=True) | all_used
    b &= used_b.to(tl.uint32, bitcast=True) | all_used
    c &= used_c.to(tl.uint32, bitcast=True) | all_used
    d &= used_d.to(tl.uint32, bitcast=True) | all_used
    quad = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK_R, BLOCK_C, 4)).to(tl.int32, bitcast=True)
    at = (row * calls + call)[:, :, None] * 4 + tl.arange(0, 4)[None, None, :]
    tl.store(words_ptr + at, quad, mask=((row < rows) & (call < calls))[:, :, None])


@jit(do_not_specialize=["seed", "layer", "stream"])
def _uniform_kernel(out_ptr, seed, layer, stream, low, width, rows, cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    call = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    drawn = tl.philox(seed, call, row.to(tl.int32), layer, stream)
    for j in tl.static_range(4):
        col = 4 * call + j
        unit = (drawn[j] >> 8).to(tl.float32) * 5.9604644775390625e-08
        tl.store(out_ptr + row * cols + col, low + width * unit, mask=(row < rows) & (col < cols))


@jit(do_not_specialize=["seed", "layer", "stream"])
def _normal_kernel(out_ptr, seed, layer, stream, std, rows, cols, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)[:, None]
    call = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    drawn = tl.philox(seed, call, row.to(tl.int32), layer, stream)
    unit = tl.full((1, 1), 5.9604644775390625e-08, tl.float64)
    turn = tl.full((1, 1), 6.283185307179586, tl.float64)
    wide = tl.full((1, 1), std, tl.float64)
    for j in tl.static_range(0, 4, 2):
        angle = turn * ((drawn[j + 1] >> 8).to(tl.float64) * unit)
        cos, sin = tl.cos(angle), tl.sin(angle)  # calls: what is made after them needs no register across them
        radius = tl.sqrt(-2.0 * tl.log(((drawn[j] >> 8) + 1).to(tl.float64) * unit))
        col = 4 * call + j
        out = out_ptr + row * cols + col
        tl.store(out, (wide * (radius * cos)).to(tl.float32), mask=(row < rows) & (col < cols))
        tl.store(out + 1, (wide * (radius * sin)).to(tl.float32), mask=(row < rows) & (col + 1 < cols))


def _philox_torch(
    position: Tensor, row: Tensor, layer: Tensor, stream: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words of every call, int64 in [0, 2^32), of the broadcast shape of the counter's words (int64)."""
    a, b, c, d = torch.broadcast_tensors(position, row, layer, stream)
    key_a, key_b = seed & _LOW32, seed >> 32 & _LOW32
    for _ in range(10):
        # int64 products wrap, which leaves all 64 bits of the unsigned product in place.
        product_a, product_c = a * _MULTIPLY_A, c * _MULTIPLY_B
        a = (product_c >> 32 & _LOW32) ^ b ^ key_a
        c = (product_a >> 32 & _LOW32) ^ d ^ key_b
        b, d = product_c & _LOW32, product_a & _LOW32
        key_a, key_b = key_a + _RAISE_A & _LOW32, key_b + _RAISE_B & _LOW32
    return a, b, c, d


def _calls_torch(
    seed: int, layer: int, stream: int, rows: range, calls: int
) -> Iterator[tuple[slice, tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """The words of calls 0..calls-1 of every row, a block of rows at a time; blocks count from the first of `rows`."""
    position = torch.arange(calls, device="cpu")
    last = torch.tensor([layer, stream], device="cpu").unbind()
    step = max(1, _CALLS_AT_ONCE // calls)
    for start in range(0, len(rows), step):
        block = slice(start, min(start + step, len(rows)))
        row = torch.arange(rows[0] + block.start, rows[0] + block.stop, device="cpu")
        yield block, _philox_torch(position, row[:, None], last[0], last[1], seed)


def _sign_words_torch(seed: int, layer: int, stream: int, rows: int, cols: int, device: torch.device) -> Tensor:
    calls = words_per_row(cols) // 4
    out = torch.empty(rows, calls, 4, dtype=torch.int32)
    for block, words in _calls_torch(seed, layer, stream, range(rows), calls):
        for j, word in enumerate(words):
            out[block, :, j] = word.to(torch.int32)
    used = torch.clamp(cols - 32 * torch.arange(4 * calls), 0, 32)
    out = out.view(rows, 4 * calls)
    return out.bitwise_and_(((1 << used) - 1).to(torch.int32))


def _uniform_torch(
    seed: int, layer: int, stream: int, low: float, width: float, rows: int, cols: int, device: torch.device
) -> Tensor:
    out = torch.empty(rows, cdiv(cols, 4), 4)
    for block, words in _calls_torch(seed, layer, stream, range(rows), cdiv(cols, 4)):
        for j, word in enumerate(words):
            out[block, :, j] = low + width * ((word >> 8).float() * 2.0**-24)
    return out.view(rows, -1)[:, :cols].contiguous()


def _normal_torch(seed: int, layer: int, stream: int, std: float, rows: int, cols: int, device: torch.device) -> Tensor:
    out = torch.empty(rows, cdiv(cols, 4), 4)
    for block, words in _calls_torch(seed, layer, stream, range(rows), cdiv(cols, 4)):
        for j in (0, 2):
            radius = torch.sqrt(-2 * torch.log(((words[j] >> 8) + 1).double() * 2.0**-24))
            angle = 2 * math.pi * ((words[j + 1] >> 8).double() * 2.0**-24)
            out[block, :, j] = (std * (radius * torch.cos(angle))).float()
            out[block, :, j + 1] = (std * (radius * torch.sin(angle))).float()
    return out.view(rows, -1)[:, :cols].contiguous()


def _grid(rows: int, calls: int, block: int = 128) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid of programs that make `block` calls, and the sides of their blocks."""
    block_c = min(64, 1 << (calls - 1).bit_length())
    block_r = block // block_c
    return (cdiv(rows, block_r), cdiv(calls, block_c)), {"BLOCK_R": block_r, "BLOCK_C": block_c}


def sign_words_triton(seed: int, layer: int, stream: int, rows: int, cols: int, device: torch.device) -> Tensor:
    calls = words_per_row(cols) // 4
    out = torch.empty(rows, 4 * calls, dtype=torch.int32, device=device)
    # Four warps have up to 256 threads. With fewer calls than threads, some calls would be made twice.
    grid, blocks = _grid(rows, calls, 256)
    used = (min(max(cols - 128 * (calls - 1) - 32 * j, 0), 32) for j in range(4))
    bits = ((1 << count) - 1 - (count // 32 << 32) for count in used)  # as int32
    launch(_sign_words_kernel, grid, out, seed, layer, stream, *bits, rows, calls, **blocks, num_warps=4)
    return out


def uniform_triton(
    seed: int, layer: int, stream: int, low: float, width: float, rows: int, cols: int, device: torch.device
) -> Tensor:
    out = torch.empty(rows, cols, device=device)
    grid, blocks = _grid(rows, cdiv(cols, 4))
    # A fused multiply-add would round once where the definition rounds twice.
    launch(_uniform_kernel, grid, out, seed, layer, stream, low, width, rows, cols, **blocks, enable_fp_fusion=False)
    return out


def normal_triton(seed: int, layer: int, stream: int, std: float, rows: int, cols: int, device: torch.device) -> Tensor:
    out = torch.empty(rows, cols, device=device)
    grid, blocks = _grid(rows, cdiv(cols, 4))
    launch(_normal_kernel, grid, out, seed, layer, stream, std, rows, cols, **blocks, enable_fp_fusion=False)
    return out


_sign_words = define_op(
    "sign_words",
    triton_impl=sign_words_triton,
    torch_impl=_sign_words_torch,
    fake=lambda seed, layer, stream, rows, cols, device: torch.empty(
        rows, words_per_row(cols), dtype=torch.int32, device=device
    ),
)
_uniform = define_op(
    "uniform",
    triton_impl=uniform_triton,
    torch_impl=_uniform_torch,
    fake=lambda seed, layer, stream, low, width, rows, cols, device: torch.empty(rows, cols, device=device),
)
_normal = define_op(
    "normal",
    triton_impl=normal_triton,
    torch_impl=_normal_torch,
    fake=lambda seed, layer, stream, std, rows, cols, device: torch.empty(rows, cols, device=device),
)


def as_int64(seed: int) -> int:
    """The 64-bit seed as the signed integer that op schemas and tensors carry.

    Raises:
        TypeError: `seed` is not an integer.
        ValueError: `seed` is not in [0, 2^64).
    """
    if not isinstance(seed, int):
        raise TypeError(f"seed {seed!r}: expected an integer from 0 to 2**64 - 1")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed {seed}: a seed has 64 bits, so give an integer from 0 to 2**64 - 1")
    return seed - (1 << 64) if seed >> 63 else seed


def stream(purpose: int, generation: int = 0) -> int:
    """The counter's fourth word: what the draw is for (0 to 255) and how many times it was drawn before."""
    if not 0 <= purpose < 256 or not 0 <= generation < 1 << 22:
        raise ValueError(f"purpose {purpose}, generation {generation}: expected 0..255 and 0..{(1 << 22) - 1}")
    return purpose + 256 * generation


def check_layer(layer: int) -> int:
    """The layer's index, the counter's third word.

    Raises:
        ValueError: it is not in [0, 2^31).
    """
    if not isinstance(layer, int) or not 0 <= layer < 1 << 31:
        raise ValueError(f"layer {layer}: the index of a layer is an integer from 0 to 2**31 - 1")
    return layer


def sign_words(
    seed: int, layer: int, rows: int, cols: int, *, generation: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Packed signs of a layer: int32 [rows, words_per_row(cols)], a set bit means minus, padding bits are zero."""
    return _sign_words(as_int64(seed), check_layer(layer), stream(SIGNS, generation), rows, cols, torch.device(device))


def uniform(
    seed: int,
    layer: int,
    rows: int,
    cols: int,
    *,
    low: float,
    high: float,
    purpose: int,
    generation: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Uniform draws from low to high: float32 [rows, cols], equal to the bit on every device."""
    low32, high32 = np.float32(low), np.float32(high)
    width = float(high32 - low32)
    return _uniform(
        as_int64(seed),
        check_layer(layer),
        stream(purpose, generation),
        float(low32),
        width,
        rows,
        cols,
        torch.device(device),
    )


def draws(seed: int, layer: int, rows: range, cols: int, *, purpose: int, generations: Sequence[int] = (0,)) -> Tensor:
    """The integers that uniform draws are made of: int32 [generations, len(rows), cols] in [0, 2^24), on CPU.

    Args:
        rows: consecutive rows of the layer.
    """
    seed, calls = as_int64(seed), cdiv(cols, 4)
    row = torch.arange(rows.start, rows.stop, device="cpu")[:, None]
    place = torch.arange(calls, device="cpu"), row, torch.tensor(check_layer(layer), device="cpu")
    out = torch.empty(len(generations), len(rows), calls, 4, dtype=torch.int32, device="cpu")
    step = max(1, _CALLS_AT_ONCE // max(1, calls * len(rows)))
    for start in range(0, len(generations), step):
        streams = torch.tensor([stream(purpose, one) for one in generations[start : start + step]], device="cpu")
        for j, word in enumerate(_philox_torch(*place, streams[:, None, None], seed)):
            out[start : start + step, :, :, j] = word >> 8
    return out.view(len(generations), len(rows), -1)[:, :, :cols]


def normal(
    seed: int,
    layer: int,
    rows: int,
    cols: int,
    *,
    std: float,
    purpose: int,
    generation: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Normal draws of mean 0: float32 [rows, cols], equal to 2 ulp on every device."""
    std32 = float(np.float32(std))
    return _normal(
        as_int64(seed), check_layer(layer), stream(purpose, generation), std32, rows, cols, torch.device(device)
    )
