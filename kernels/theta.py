"""theta0: the weights that a seed makes, as ops take them.

Either a constant with a sign an edge, +constant or -constant, or a dense float32 matrix, drawn from the seed or given.
The sign comes from packed words where the caller keeps them and from Philox inside the kernel where it does not.
Kernels move weights as bit patterns, so a weight is equal to the bit in every dtype.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels._launch import jit, tl
from kernels.bits import check_words, unpack
from kernels.philox import SIGNS, WEIGHTS, as_int64, check_layer, normal, sign_words, stream, uniform

BITS_DTYPE = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


class Theta(NamedTuple):
    """Where the weights of one layer come from.

    Attributes:
        seed: 64 bits, unsigned.
        layer: the layer's index, third word of the counter.
        generation: how many times the weights were re-drawn.
        constant: float32 [1]; the magnitude of every weight (not read where they are real-valued).
        signs: packed sign words int32 [rows, words], or None to draw them from the seed.
        base: float32 [rows, cols]; weights that the caller holds, in place of any made from the seed.
        real: ("normal", standard deviation) or ("uniform", bound): weights drawn from the seed as real numbers, again
            at each use.
    """

    seed: int
    layer: int
    generation: int
    constant: Tensor
    signs: Tensor | None = None
    base: Tensor | None = None
    real: tuple[str, float] | None = None

    def check(self, rows: int, cols: int) -> None:
        """Raise ValueError unless `signs` and `base` are those of a layer rows x cols."""
        if self.signs is not None:
            check_words("theta.signs", self.signs, cols, rows)
        base = self.base
        if base is None:
            return
        if base.dtype is not torch.float32 or base.shape != (rows, cols) or not base.is_contiguous():
            raise ValueError(
                f"theta.base is {base.dtype} of shape {tuple(base.shape)} and strides {base.stride()}: expected "
                f"contiguous torch.float32 of shape {(rows, cols)}"
            )

    def schema(self) -> tuple[Tensor, Tensor | None, Tensor | None, int, int, int]:
        """In the order of the op schemas: constant, signs, base, seed, layer, stream."""
        counter = as_int64(self.seed), check_layer(self.layer), stream(SIGNS, self.generation)
        return self.constant, self.signs, self.base, *counter


def draw_real(
    real: tuple[str, float] | None, seed: int, layer: int, stream: int, rows: int, cols: int, device: torch.device
) -> Tensor | None:
    """`Theta.real` as a dense matrix float32 [rows, cols]; None where the weights are not real-valued."""
    if real is None:
        return None
    kind, scale = real
    place, generation = (seed % (1 << 64), layer, rows, cols), stream // 256
    if kind == "normal":
        return normal(*place, std=scale, purpose=WEIGHTS, generation=generation, device=device)
    return uniform(*place, low=-scale, high=scale, purpose=WEIGHTS, generation=generation, device=device)


@jit
def sign_tile(signs_ptr, seed, layer, stream, row, tile, words, inside):
    """Sign bits (0 or 1) int32 [R, 4, 32] of column tile `tile` (128 edges) of rows `row` int64 [R, 1, 1]."""
    j = tl.arange(0, 4)[None, :, None]
    if signs_ptr is not None:
        word = tl.load(signs_ptr + row * words + tile * 4 + j, mask=inside, other=0)
    else:
        a, b, c, d = tl.philox(seed, tile, row.to(tl.int32), layer, stream)
        word = tl.where(j == 0, a, tl.where(j == 1, b, tl.where(j == 2, c, d))).to(tl.int32, bitcast=True)
    return (word >> tl.arange(0, 32)[None, None, :]) & 1


@jit
def theta_tile(
    constant_ptr, signs_ptr, base_ptr, seed, layer, stream, row, tile, edge, words, inside, inside_row,
    SIGN_BIT: tl.constexpr,
):  # fmt: skip
    """Bit patterns of theta0 [R, 4, 32], in the integer type of `constant_ptr` or `base_ptr`."""
    if base_ptr is not None:
        theta = tl.load(base_ptr + edge, mask=inside, other=0)
    else:
        constant = tl.load(constant_ptr)
        sign = sign_tile(signs_ptr, seed, layer, stream, row, tile, words, inside_row)
        theta = constant ^ (sign << SIGN_BIT).to(constant.dtype)
    return theta


def kept_signs(signs: Tensor | None, seed: int, layer: int, stream: int, rows: int, cols: int) -> Tensor:
    """Packed sign words, those given or drawn; `seed` and `stream` as in the op schemas."""
    if signs is not None:
        return signs
    return sign_words(seed % (1 << 64), layer, rows, cols, generation=stream // 256)


def signs_of(signs: Tensor | None, seed: int, layer: int, stream: int, rows: int, cols: int) -> Tensor:
    """Boolean [rows, cols] on CPU, true where the weight is negative; `seed` and `stream` as in the op schemas."""
    return unpack(kept_signs(signs, seed, layer, stream, rows, cols), cols)


def weights_torch(
    chosen: Tensor,
    constant: Tensor,
    signs: Tensor | None,
    base: Tensor | None,
    seed: int,
    layer: int,
    stream: int,
    dtype: torch.dtype,
) -> Tensor:
    """theta0 where `chosen` (boolean [rows, cols]) and zero elsewhere, in `dtype`."""
    if base is not None:
        return torch.where(chosen, base, 0).to(dtype)
    negative = signs_of(signs, seed, layer, stream, *chosen.shape)
    # -1, 0 or 1: one byte an edge is the cheapest thing to combine, and the product with the constant is exact.
    signed = chosen.view(torch.int8) - 2 * (chosen & negative).view(torch.int8)
    return signed.to(dtype) * constant.to(dtype)
