"""Sizes of score_step: BLOCK edges at a time, in STRIPS; CALLS of Philox a program that draws signs.

An edge has some twenty registers on its way: four edges a thread leave room for them on every device.
"""

from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes

__all__ = ["SIZES"]

SIZES = Sizes(
    "score_step",
    {
        "sm": (Row({"BLOCK": 512, "STRIPS": 4, "CALLS": 512, "num_warps": 4}),),
        "gfx1": (Row({"BLOCK": 512, "STRIPS": 4, "CALLS": 512, "num_warps": 4}),),
        "gfx9": (Row({"BLOCK": 512, "STRIPS": 4, "CALLS": 512, "num_warps": 2}),),
        INTERPRETED: (Row({"BLOCK": 128, "STRIPS": 4, "CALLS": 32, "num_warps": 4}),),
    },
)
