"""packed_weight on CPU through the C extension (kernels/csrc/weights.c)."""

from torch import Tensor

from supermask.kernels.base import native
from supermask.kernels.base.bits import words_per_row


def fill_native(out: Tensor, mask: Tensor, constant: Tensor, signs: Tensor | None, base: Tensor | None = None) -> None:
    """Fill `out` [rows, ...], float32 or 16 bits, with weights; `signs` are packed words wherever `base` is None."""
    constant = constant.to(out.dtype)
    base = None if base is None else base.to(out.dtype)
    cols = out.numel() // out.shape[0]
    sizes = out.shape[0], cols, words_per_row(cols), out.dtype.itemsize
    native.call("sm_packed_weight", "pppppllli", mask, constant, signs, base, out, *sizes)
