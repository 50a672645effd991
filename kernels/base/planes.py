"""What products make their weights of: packed masks, one a coat, theta0, and the signs flipped since."""

from typing import NamedTuple

import torch
from torch import Tensor

from supermask.kernels.base.theta import Theta


class Planes(NamedTuple):
    """A weight is +-constant times the number of coats whose mask bit is set.

    Attributes:
        mask: packed int32 [coats, rows, words].
        theta: a constant with signs.
        flips: packed int32 [rows, words], XORed into the signs, or None.
    """

    mask: Tensor
    theta: Theta
    flips: Tensor | None

    @classmethod
    def of(
        cls, mask: Tensor, constant: Tensor, signs: Tensor | None, flips: Tensor | None, seed: int, layer: int,
        stream: int,
    ) -> "Planes":  # fmt: skip
        """From an op's flat arguments."""
        return cls(mask, Theta.of(constant, signs, None, seed, layer, stream), flips)

    def signs(self, cols: int, device: torch.device | str = "cpu") -> Tensor:
        """Packed sign words, given or drawn, with the flips in them."""
        signs = self.theta.words(self.mask.shape[1], cols, device)
        return signs if self.flips is None else signs ^ self.flips
