"""Packed layers of several coats, their weights in plain PyTorch, and errors compared."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supermask.kernels.base.philox import sign_words
from supermask.kernels.base.theta import Theta
from tests.kernels.paths import pack_plain, random_mask, random_words, unpack_plain


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A layer rows x cols of packed coats."""

    mask: Tensor
    theta: Theta
    flips: Tensor | None
    cols: int

    def weights(self) -> Tensor:
        """[rows, cols] in float64: sign * constant * coats, the constant not rounded again."""
        rows, theta = self.mask.shape[-2], self.theta
        words = theta.signs
        if words is None:
            words = sign_words(theta.seed, theta.layer, rows, self.cols, generation=theta.generation)
        if self.flips is not None:
            words = words ^ self.flips
        coats = self.mask if self.mask.ndim == 3 else self.mask[None]
        count = torch.stack([unpack_plain(coat, self.cols).double() for coat in coats]).sum(0)
        return torch.where(unpack_plain(words, self.cols), -count, count) * theta.constant.double()


def packed_of(
    rows: int,
    cols: int,
    *,
    coats: int | None = None,
    density: float = 0.5,
    given: bool = False,
    flips: bool = False,
    seed: int = 2**63 + 1,
    generation: int = 1,
    constant: float = 0.1,
    data: int = 5,
) -> Packed:
    """Masks of `coats` (None: a mask of two axes) at `density`; signs from the seed or `given`, with their padding."""
    masks = [pack_plain(random_mask(rows, cols, density, data + coat)) for coat in range(coats or 1)]
    theta = Theta(
        seed=seed,
        layer=4,
        generation=generation,
        constant=torch.tensor([constant]),
        signs=random_words(rows, cols, data + 10) if given else None,
    )
    return Packed(
        mask=masks[0] if coats is None else torch.stack(masks),
        theta=theta,
        flips=random_words(rows, cols, data + 11) if flips else None,
        cols=cols,
    )


def small_integers(shape: tuple[int, ...], dtype: torch.dtype, data: int) -> Tensor:
    """From -2 to 2: sums of products with small integers are exact in float32, and short ones in 16 bits."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(data)).to(dtype)


def errs_at_most_twice(found: Tensor, plain: Tensor, exact: Tensor, scale: Tensor) -> None:
    """The largest error of `found` is at most twice that of `plain`, PyTorch's own result in the same dtype.

    Where that one happens to be exact, as sums of few terms can be, an unlucky rounding of the other order of summing
    still has to be allowed: one unit in the last place of `scale`, the sum of the terms' magnitudes.
    """
    assert (found.dtype, found.shape) == (plain.dtype, plain.shape)
    unit = torch.finfo(found.dtype).eps * scale.abs().max() if scale.numel() else torch.zeros(())
    error, allowed = ((each.double() - exact).abs().max() if exact.numel() else 0.0 for each in (found, plain))
    assert error <= 2 * allowed + unit, f"errs by {float(error):.3g}, PyTorch by {float(allowed):.3g}"
