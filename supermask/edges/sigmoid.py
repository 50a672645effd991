"""The sigmoid as an integer out of 2^24, the same on every device.

    s < -16: 0;  s >= 16: 2^24;  between: x = floor(2^20 s), i = floor(x / 2^12), f = x - 2^12 i,
    T(s) = t[i] + floor((t[i + 1] - t[i]) f / 2^12),  t[i] = round(2^24 / (1 + exp(-i / 256)))

Products with powers of two and floors are exact in float32, and the rest is in integers. It is within 8 of 2^24
sigmoid(s) and never falls as s rises. The table is made in decimal arithmetic, which rounds alike everywhere.
"""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache

import torch
from torch import Tensor

__all__ = ["WHOLE", "of_2_24", "table"]

WHOLE = 1 << 24
_REACH = 16
_STEPS = 256  # of the table, to one
_PLACES = 12  # bits between two of them


@cache
def table() -> tuple[int, ...]:
    """t[i] for i from -4096 to 4096."""
    with localcontext(prec=40):
        exact = [WHOLE / (1 + (Decimal(-i) / _STEPS).exp()) for i in range(_REACH * _STEPS + 1)]
        upper = [int(value.to_integral_value(ROUND_HALF_EVEN)) for value in exact]
    return (*(WHOLE - value for value in reversed(upper[1:])), *upper)


def of_2_24(scores: Tensor, levels: Tensor) -> Tensor:
    """T of float32 scores: int64 in [0, 2^24], of their shape; 0 of NaN.

    Args:
        levels: the table, on the device of the scores.
    """
    inside = torch.nan_to_num(scores, nan=-_REACH).clamp(-_REACH, _REACH - 2.0**-20)
    x = (inside * (1 << 20)).floor().long()
    i, f = (x >> _PLACES) + _REACH * _STEPS, x & ((1 << _PLACES) - 1)
    between = levels[i] + ((levels[i + 1] - levels[i]).long() * f >> _PLACES)
    return torch.where(scores >= _REACH, WHOLE, torch.where(scores >= -_REACH, between, 0))
