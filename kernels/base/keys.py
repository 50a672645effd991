"""The order of scores: integer keys that rank as the scores do, in Triton, PyTorch and NumPy.

A key is an int32: for absolute scores the bit pattern of |s|, for raw ones the pattern made monotone; NaN ranks below
everything, and an edge that hard pruning removed below that. The C extension has the same constants
(kernels/csrc/native.h), which a test compares.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from supermask.kernels.base.launch import jit, tl

# Of NaN and of an edge that hard pruning removed: below every number's (kernels/select/op.py).
NAN_KEY = -(2**31) + 1
REMOVED_KEY = -(2**31)
INF_BITS = 0x7F800000  # patterns above it are NaN; ~INF_BITS is the raw key of -inf


class Threshold(NamedTuple):
    """Which edges a layer selects: those with a key above tau, and of those equal to it the first ones.

    Of all layers of a selection, [layers], or [layers, coats] where each has several coats, from the widest; of one
    layer [1], or [coats].

    Attributes:
        tau: the key, int32.
        last_tied: flat index of the last selected edge with that key, int64, in the shape of tau.
    """

    tau: Tensor
    last_tied: Tensor


def keys_of(scores: Any, absolute: bool, out: Any) -> Any:
    """`supermask.kernels.base.keys.score_keys` of a float32 array into `out`, in the fewest passes."""
    bits = scores.view(np.int32)
    if absolute:
        keys = np.bitwise_and(bits, 0x7FFFFFFF, out=out)
        if keys.max() > INF_BITS:
            keys[keys > INF_BITS] = NAN_KEY
        return keys
    keys = np.right_shift(bits, 31, out=out)
    keys &= 0x7FFFFFFF
    keys ^= bits
    keys += keys == -1  # the key of -0.0 alone
    if keys.max() > INF_BITS or keys.min() < ~INF_BITS:
        keys[(keys > INF_BITS) | (keys < ~INF_BITS)] = NAN_KEY
    return keys


def score_keys(scores: Tensor, absolute: bool) -> Tensor:
    """The int32 keys, in the shape of the float32 `scores`, that order as scores rank (see the module's docstring)."""
    bits = scores.detach().view(torch.int32)
    magnitude = bits & 0x7FFFFFFF
    key = magnitude if absolute else torch.where(magnitude == 0, 0, bits ^ ((bits >> 31) & 0x7FFFFFFF))
    return torch.where(magnitude > INF_BITS, NAN_KEY, key)


@jit
def score_key(s, ABSOLUTE: tl.constexpr):
    """The int32 keys of float32 scores (`score_keys` inside a kernel)."""
    bits = s.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    key = magnitude if ABSOLUTE else tl.where(magnitude == 0, 0, bits ^ ((bits >> 31) & 0x7FFFFFFF))
    return tl.where(magnitude > 0x7F800000, -2147483647, key)  # NAN_KEY: kernels cannot read plain globals
