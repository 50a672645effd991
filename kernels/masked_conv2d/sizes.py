"""Sizes of masked_conv2d: BLOCK_R rows of W at most (a power of two, of fewer rows fewer), BLOCK_M positions of y.

`scattered` where each element of x is loaded alone, `wide` where places take 64 bits, `exact` in float32 (three
products a weight, and four bytes an element of x), `natural` in the weights' own order, not by taps.
"""

from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes

__all__ = ["SIZES"]


def _row(block_r: int, block_m: int, warps: int, stages: int, **when: int | bool) -> Row:
    return Row({"BLOCK_R": block_r, "BLOCK_M": block_m, "num_warps": warps, "num_stages": stages}, when)


_OF_32_LANES = (
    _row(128, 16, 4, 2, scattered=True, wide=True),
    _row(128, 32, 4, 2, scattered=True),
    _row(128, 32, 4, 2, exact=True),
    _row(128, 64, 4, 3, natural=True),  # with two stages, some compilers want more registers than there are
    _row(128, 64, 4, 2),
)

SIZES = Sizes(
    "masked_conv2d",
    {
        "sm": _OF_32_LANES,
        "gfx1": _OF_32_LANES,
        "gfx9": (
            _row(128, 16, 4, 1, scattered=True),  # 64 lanes a warp, and two scalar registers for every bounds check
            _row(128, 32, 2, 2, exact=True),
            _row(128, 64, 2, 2),
        ),
        INTERPRETED: (_row(32, 64, 4, 1),),
    },
)
