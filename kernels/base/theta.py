"""theta0: the weights that a seed makes, as ops take them.

Either a constant with a sign an edge, +constant or -constant, or a dense float32 matrix, drawn from the seed or given.
The sign comes from packed words where the caller keeps them and from Philox inside the kernel where it does not.
Kernels move weights as bit patterns, so a weight is equal to the bit in every dtype.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from supermask.kernels.base.bits import check_words, unpack
from supermask.kernels.base.edge_tile import sign_of
from supermask.kernels.base.launch import jit, tl
from supermask.kernels.base.philox import (
    SIGNS,
    WEIGHTS,
    as_int64,
    check_layer,
    normal,
    sign_words,
    sign_words_triton,
    stream,
    uniform,
)

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


def drawn_signs(
    signs: Tensor | None, base: Tensor | None, seed: int, layer: int, stream: int, rows: int, cols: int,
    device: torch.device,
) -> Tensor | None:  # fmt: skip
    """The sign words that a kernel on a GPU is to read: those given, or drawn, in a launch of their own; None where
    `base` holds the weights.

    There a thread makes the Philox call of 128 edges. A kernel whose threads have a few edges each would make it once a
    thread; the words take a bit an edge, and are read while the cache still has them.
    """
    if base is not None or signs is not None:
        return signs
    return sign_words_triton(seed, layer, stream, rows, cols, device)


@jit
def signed_tile(constant_ptr, signs):
    """The constant with the signs of words [R, 4]: bit patterns [R, 4, 8, 4] in the integer type of `constant_ptr`."""
    constant = tl.load(constant_ptr)
    minus = sign_of(signs)
    if constant.dtype.primitive_bitwidth == 16:
        minus = minus >> 16
    return constant ^ minus.to(constant.dtype)


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
