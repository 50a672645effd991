"""Sizes of masked_mm and its backward: BLOCK_M rows of x at most (of fewer rows a power of two), BLOCK_N rows of W.

As large as registers allow, on the lowest and the newest Triton. Multiply-adds in place of tensor cores (`exact`), a
second coat (`several`) and loads of single elements (`single`) take more of them. `rows` are those of x.
"""

from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes

__all__ = ["SIZES"]


def _row(block_m: int, block_n: int, warps: int, stages: int, **when: int | bool) -> Row:
    return Row({"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps, "num_stages": stages}, when)


_OF_32_LANES = (
    _row(16, 32, 4, 2, single=True, exact=True),
    _row(16, 64, 4, 2, single=True),
    _row(16, 32, 4, 2, exact=True, several=True),
    _row(16, 64, 4, 2, exact=True, transposed=True),
    _row(32, 64, 4, 2, exact=True),
    _row(32, 128, 4, 3, several=True),
    _row(64, 128, 4, 3),
)

SIZES = Sizes(
    "masked_mm",
    {
        "sm": _OF_32_LANES,
        "gfx1": _OF_32_LANES,
        # Compiled for 64 lanes, single elements each keep a bounds check of their own: none is loaded in advance.
        "gfx9": (
            _row(16, 32, 4, 1, single=True, exact=True),
            _row(16, 64, 4, 1, single=True),
            _row(16, 32, 2, 2, exact=True, several=True),
            _row(16, 64, 2, 2, exact=True, transposed=True),
            _row(32, 64, 2, 2, exact=True),
            _row(32, 128, 2, 2, several=True),
            _row(64, 128, 2, 2),
        ),
        INTERPRETED: (_row(64, 128, 4, 1),),
    },
)
