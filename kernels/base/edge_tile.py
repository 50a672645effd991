"""Edges and their packed bits side by side, in kernels that do one thing to every edge.

A program deals with a tile, 128 columns of BLOCK_R rows: four words a row (kernels/base/bits.py) and, word by word, the
edges [R, 4, 8, 4]. A thread holds the four of the last axis, neighbours that one load brings, so that it shifts a word
once for all of them and the compiler knows the rest. Places are 32-bit offsets from the program's first edge and word,
of which there is one a program: in 64 bits an edge, addresses would cost more than everything else.
"""

from supermask.kernels.base.launch import jit, tl
from supermask.kernels.base.sizes import INTERPRETED, Row, Sizes

__all__ = ["SIZES", "is_set", "sign_of", "tile_of_edges", "tile_of_words", "words_of"]


def _row(block_r: int, warps: int, **when: int) -> Row:
    return Row({"BLOCK_R": block_r, "num_warps": warps}, when)


SIZES = Sizes(
    "edge_tile",
    {
        # Places within a program fit 32 bits.
        **dict.fromkeys(("sm", "gfx"), (_row(16, 4, cols=(1 << 27) - 1), _row(1, 4))),
        INTERPRETED: (_row(64, 4, cols=(1 << 27) - 1), _row(1, 4)),
    },
)
"""Of kernels that work on tiles of 128 columns: BLOCK_R rows of them."""


@jit
def tile_of_words(rows, words, BLOCK_R: tl.constexpr):
    """The packed words of a program, which deals with 128 columns (axis 1 of the grid) of BLOCK_R rows (axis 0).

    Returns:
        first: index of the first row, int64; `row` [R, 1] counts from it, int32.
        start: index of the first word, int64; `word` [R, 4] counts from it, int32.
        there: boolean [R, 1], where the row exists.
    """
    first = tl.program_id(0).to(tl.int64) * BLOCK_R
    row = tl.arange(0, BLOCK_R)[:, None]
    there = row < tl.minimum(rows - first, BLOCK_R).to(tl.int32)
    return first, row, first * words + tl.program_id(1) * 4, row * words + tl.arange(0, 4)[None, :], there


@jit
def tile_of_edges(first, row, there, cols):
    """Its edges [R, 4, 8, 4]. A thread holds four neighbours: the compiler knows by what shifts their bits differ.

    Returns:
        start: flat index of the first, int64; `edge` counts from it, int32.
        inside: where there is an edge.
    """
    tile = tl.program_id(1) * 128
    within = tl.arange(0, 8)[None, None, :, None] * 4 + tl.arange(0, 4)[None, None, None, :]
    within += tl.arange(0, 4)[None, :, None, None] * 32
    edge = row[:, :, None, None] * cols + within
    return first * cols + tile, edge, there[:, :, None, None] & (within < cols - tile)


@jit
def _bits(word):
    """Words [R, 4] to [R, 4, 8, 1]: shifted, so that a thread's four bits come to be the highest."""
    return word[:, :, None, None] << (28 - 4 * tl.arange(0, 8)[None, None, :, None])


@jit
def is_set(word):
    """Words int32 [R, 4] to booleans [R, 4, 8, 4]."""
    return (_bits(word) & (268435456 << tl.arange(0, 4)[None, None, None, :])) != 0


@jit
def sign_of(word):
    """Words int32 [R, 4] to int32 [R, 4, 8, 4]: zero but for the sign, which is the bit."""
    return (_bits(word) << (3 - tl.arange(0, 4)[None, None, None, :])) & -2147483648


@jit
def words_of(chosen):
    """Booleans [R, 4, 8, 4] to words int32 [R, 4]."""
    few = tl.sum(chosen.to(tl.int32) << tl.arange(0, 4)[None, None, None, :], 3)
    return tl.sum(few << (4 * tl.arange(0, 8)[None, None, :]), 2)
