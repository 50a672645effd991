"""Sizes of the passes over scores: TILE edges a program, BLOCK of them at a time; TILES whose ties are counted at once.

Tables of layers (kernels/select/gpu.py) are made for a TILE, so that score_step has this one, too.
"""

from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes

__all__ = ["SIZES"]

_GPU = (Row({"TILE": 32768, "BLOCK": 2048, "TILES": 1024, "num_warps": 8}),)

SIZES = Sizes(
    "select",
    {"sm": _GPU, "gfx": _GPU, INTERPRETED: (Row({"TILE": 256, "BLOCK": 128, "TILES": 2, "num_warps": 8}),)},
)
