"""theta0: the weights that a seed makes, as ops take them.

Either a constant with a sign an edge, +constant or -constant, or a dense float32 matrix, drawn from the seed or given.
The sign comes from packed words where the caller keeps them and from Philox inside the kernel where it does not.
Kernels move weights as bit patterns, so a weight is equal to the bit in every dtype.
"""

from typing import Any, NamedTuple

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
        times: what such a draw is multiplied by.
    """

    seed: int
    layer: int
    generation: int
    constant: Tensor
    signs: Tensor | None = None
    base: Tensor | None = None
    real: tuple[str, float] | None = None
    times: float = 1.0

    def check(self, rows: int, cols: int, name: str = "theta") -> None:
        """Raise ValueError unless `signs` and `base` are those of a layer rows x cols; it calls the record `name`."""
        if self.signs is not None:
            check_words(f"{name}.signs", self.signs, cols, rows)
        base = self.base
        if base is None:
            return
        if base.dtype is not torch.float32 or base.shape != (rows, cols) or not base.is_contiguous():
            raise ValueError(
                f"{name}.base is {base.dtype} of shape {tuple(base.shape)} and strides {base.stride()}: expected "
                f"contiguous torch.float32 of shape {(rows, cols)}"
            )

    @classmethod
    def of(
        cls, constant: Tensor, signs: Tensor | None, base: Tensor | None, seed: int, layer: int, stream: int,
        real: tuple[str, float] | None = None, times: float = 1.0,
    ) -> "Theta":  # fmt: skip
        """The record of what `schema` gave: what an op's implementations take."""
        return cls(seed % (1 << 64), layer, stream // 256, constant, signs, base, real, times)

    def scaled(self, factor: float) -> "Theta":
        """With every weight times `factor`, a product in float32 that rounds once; what is dense is copied."""
        if self.real is not None:
            return self._replace(times=self.times * factor)
        if self.base is not None:
            return self._replace(base=self.base * factor)
        return self._replace(constant=self.constant * factor)

    def counter(self) -> tuple[int, int, int]:
        """seed (signed), layer and stream of the signs, as kernels and schemas take them."""
        return as_int64(self.seed), check_layer(self.layer), stream(SIGNS, self.generation)

    def schema(self) -> tuple[Tensor, Tensor | None, Tensor | None, int, int, int]:
        """In the order of the op schemas: constant, signs, base, seed, layer, stream."""
        return self.constant, self.signs, self.base, *self.counter()

    def flat(self) -> tuple[Any, ...]:
        """What `of` takes, in its order: that of `schema`, and what is left of it once weights are drawn."""
        return *self.schema(), self.real, self.times

    def made(self, rows: int, cols: int, device: torch.device) -> "Theta":
        """With the real-valued weights of a layer drawn, as `base`."""
        if self.real is None:
            return self
        kind, scale = self.real
        place: dict[str, Any] = {"purpose": WEIGHTS, "generation": self.generation, "device": device}
        layer = self.seed, self.layer, rows, cols
        normally = kind == "normal"
        drawn = normal(*layer, std=scale, **place) if normally else uniform(*layer, low=-scale, high=scale, **place)
        return self._replace(real=None, times=1.0, base=drawn if self.times == 1 else drawn.mul_(self.times))

    def words(self, rows: int, cols: int, device: torch.device | str = "cpu") -> Tensor:
        """Packed sign words, those given or drawn."""
        if self.signs is not None:
            return self.signs
        return sign_words(self.seed, self.layer, rows, cols, generation=self.generation, device=device)

    def needed_words(self, rows: int, cols: int) -> Tensor | None:
        """`words` on CPU; None where `base` holds the weights."""
        return None if self.base is not None else self.words(rows, cols)

    def launched_words(self, rows: int, cols: int, device: torch.device) -> Tensor | None:
        """The sign words that a kernel on a GPU is to read: those given, or drawn, in a launch of their own; None where
        `base` holds the weights.

        There a thread makes the Philox call of 128 edges. A kernel whose threads have a few edges each would make it
        once a thread; the words take a bit an edge, and are read while the cache still has them.
        """
        if self.base is not None or self.signs is not None:
            return self.signs
        return sign_words_triton(*self.counter(), rows, cols, device)

    def where(self, chosen: Tensor, dtype: torch.dtype) -> Tensor:
        """On CPU the weights where `chosen` (boolean [rows, cols]) and zero elsewhere, in `dtype`."""
        if self.base is not None:
            return torch.where(chosen, self.base, 0).to(dtype)
        rows, cols = chosen.shape
        negative = unpack(self.words(rows, cols), cols)
        # -1, 0 or 1: one byte an edge is the cheapest thing to combine, and the product with the constant is exact.
        signed = _bytes(chosen) - 2 * _bytes(chosen & negative)
        return signed.to(dtype) * self.constant.to(dtype)


def _bytes(mask: Tensor) -> Tensor:
    """A boolean as int8, without a copy; Inductor of torch 2.11 knows no view of it, and copies nothing either way."""
    return mask.to(torch.int8) if torch.compiler.is_compiling() else mask.view(torch.int8)


@jit
def signed_tile(constant_ptr, signs):
    """The constant with the signs of words [R, 4]: bit patterns [R, 4, 8, 4] in the integer type of `constant_ptr`."""
    constant = tl.load(constant_ptr)
    minus = sign_of(signs)
    if constant.dtype.primitive_bitwidth == 16:
        minus = minus >> 16
    return constant ^ minus.to(constant.dtype)


@jit
def times_tile(theta, count, DTYPE: tl.constexpr):
    """float32 `theta` times the int32 `count`, rounded once to DTYPE; +0.0 where the count is zero: bit patterns."""
    product = theta * count.to(tl.float32)
    if tl.float32 == DTYPE:
        bits = product.to(tl.int32, bitcast=True)
    elif tl.float16 == DTYPE:
        bits = product.to(tl.float16).to(tl.int16, bitcast=True)
    else:  # to the nearest, ties to even, in integers: the interpreter cuts bfloat16 off
        wide = product.to(tl.int32, bitcast=True)
        nearest = (wide + (((wide >> 16) & 1) + 0x7FFF)) >> 16
        bits = tl.where((wide & 0x7FFFFFFF) > 0x7F800000, 0x7FC0, nearest).to(tl.int16)
    return tl.where(count != 0, bits, 0)
