"""What each kernel does for an edge: how many a program deals with, what it moves, which configurations differ.

A kernel without an entry in `ABOUT` is compiled like any other, and has no numbers an edge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ABOUT", "About", "Known"]

Known = Mapping[str, Any]
"""Of one configuration: each argument's value where the compiler knew it (None: no such tensor), else its type."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a kernel does, as far as it can be said of a configuration."""

    edges: Callable[[Known], float] | None
    """Edges a program deals with in one iteration of its main loop, or, without a loop, at all. None for a kernel whose
    work does not grow with the edges."""
    bytes: Callable[[Known], float] | None
    """Bytes of device memory that the algorithm moves an edge, or None as above."""
    bytes_are: str
    """The same formula in words."""
    loop: bool = False
    """Whether there is a main loop."""
    matrix: Callable[[Known], bool] = lambda known: False
    """Whether the configuration has to multiply matrices."""
    variant: Callable[[Known], str] = lambda known: ""
    """What tells configurations apart that deserve a row each in the table."""


_SIZES = {"i1": 1, "i8": 1, "u8": 1, "i16": 2, "fp16": 2, "bf16": 2, "i32": 4, "fp32": 4, "i64": 8, "fp64": 8}


def size_of(pointer: str | None) -> int:
    """Bytes of what a pointer of a Triton type, as `*fp32`, points to; 0 for None."""
    return 0 if pointer is None else _SIZES[pointer.removeprefix("*")]


def _bits_of(known: Known, *planes: str) -> float:
    """Bytes an edge of the packed planes there are."""
    return sum(known[plane] is not None for plane in planes) / 8


def _theta(known: Known) -> str:
    return "base" if known["base_ptr"] is not None else "signs" if known["signs_ptr"] is not None else "seed"


def _coats(known: Known) -> str:
    """How many, where there are several; of what is compiled alike for any number of them, that there are."""
    coats = known["COATS"] if "COATS" in known else known["coats"]
    return "" if coats == 1 else f"{coats} coats" if "COATS" in known else "coats"


def _weights_of(known: Known, pointer: str) -> str:
    return f"{_theta(known)}, {8 * size_of(known[pointer])} bits"


_TILE = 128  # columns of a tile of packed bits


def _product_of(known: Known, pointer: str) -> str:
    """dtype and source of the signs, for products of the weights of one coat; else the coats first."""
    coats = "" if known["COATS"] == 1 else f"{known['COATS']} coats, "
    return f"{coats}{known[pointer].removeprefix('*')}, {'seed' if known['signs_ptr'] is None else 'signs'}"


def _product(pointer: str) -> About:
    return About(
        edges=lambda known: known["BLOCK_N"] * _TILE,
        bytes=lambda known: known["COATS"] / 8 + _bits_of(known, "signs_ptr", "flips_ptr"),
        bytes_are="mask 1/8 a coat; signs, flips 1/8 each; x and y on top, and all of it for every BLOCK_M rows of x",
        loop=True,
        matrix=lambda known: known[pointer] != "*fp32",
        variant=lambda known: f"{_product_of(known, pointer)}, {known['BLOCK_M']} rows",
    )


def _conv_variant(known: Known) -> str:
    codes = known["BY_TAPS"] and not known["TRANSPOSED"]
    how = f"{known['KH']}x{known['KW']}{', transposed' if known['TRANSPOSED'] else ', codes' if codes else ''}"
    return f"{_product_of(known, 'x_ptr')}, {how}".replace("seed, ", "" if known["BY_TAPS"] else "seed, ")


ABOUT: dict[str, About] = {
    "sign_words": About(
        edges=lambda known: known["BLOCK_R"] * known["BLOCK_C"] * _TILE,
        bytes=lambda known: 1 / 8,
        bytes_are="signs 1/8",
    ),
    "uniform": About(
        edges=lambda known: known["BLOCK_R"] * known["BLOCK_C"] * 4, bytes=lambda known: 4, bytes_are="weight 4"
    ),
    "normal": About(
        edges=lambda known: known["BLOCK_R"] * known["BLOCK_C"] * 4, bytes=lambda known: 4, bytes_are="weight 4"
    ),
    "pack": About(
        edges=lambda known: known["BLOCK_R"] * _TILE, bytes=lambda known: 9 / 8, bytes_are="boolean 1, bits 1/8"
    ),
    "unpack": About(
        edges=lambda known: known["BLOCK_R"] * _TILE, bytes=lambda known: 9 / 8, bytes_are="bits 1/8, boolean 1"
    ),
    "popcount": About(
        edges=lambda known: known["BLOCK"] * 32, bytes=lambda known: 1 / 8, bytes_are="bits 1/8", loop=True
    ),
    "select_count": About(
        edges=lambda known: known["BLOCK"],
        bytes=lambda known: 4,
        bytes_are="score 4 (and 1/8 where there are survivors); three launches, in two of them a program a coat, of "
        "which the first reads from memory",
        loop=True,
        variant=_coats,
    ),
    "select_ties": About(
        edges=lambda known: known["BLOCK"],
        bytes=lambda known: 4,
        bytes_are="score 4, in layers whose ties are cut",
        loop=True,
        variant=_coats,
    ),
    "select_threshold": About(
        edges=lambda known: known["BLOCK"],
        bytes=lambda known: 4,
        bytes_are="score 4, of one tile of a layer",
        loop=True,
        variant=_coats,
    ),
    "masked_mm": _product("x_ptr"),
    "masked_mm_backward": _product("grad_ptr"),
    "masked_mm_sum": About(edges=None, bytes=None, bytes_are="4 a partial sum"),
    "masked_conv2d": About(
        edges=lambda known: known["BLOCK_R"] * 16 * known["TILE"],
        bytes=lambda known: known["COATS"] / (4 if known["BY_TAPS"] else 8) + _bits_of(known, "signs_ptr", "flips_ptr"),
        bytes_are="codes 2/8 a coat, or mask 1/8 a coat, signs and flips 1/8 each; x and y come on top, and all of it "
        "for every BLOCK_M positions",
        loop=True,
        matrix=lambda known: True,
        variant=_conv_variant,
    ),
    "tap_codes": About(
        edges=lambda known: known["BLOCK"] * 32,
        bytes=lambda known: 4 / 8,
        bytes_are="mask, signs 1/8 each, codes 2/8",
        variant=lambda known: "transposed" if known["TRANSPOSED"] else "",
    ),
    "score_signs": About(edges=lambda known: known["CALLS"] * _TILE, bytes=lambda known: 1 / 8, bytes_are="signs 1/8"),
    "score_step": About(
        edges=lambda known: known["BLOCK"],
        bytes=lambda known: 12 + 1 / 8 + 8 * known["MOMENTUM"],
        bytes_are="score 8, gradient 4, signs 1/8, momentum 8 (4 more where theta0 is dense, survivors 1/8)",
        loop=True,
        variant=lambda known: "momentum" if known["MOMENTUM"] else "plain",
    ),
    "table": About(edges=None, bytes=None, bytes_are="8 a number, in a captured graph"),
    "spread": About(edges=None, bytes=None, bytes_are="8 a tile; a program a layer"),
    "score_source": About(edges=None, bytes=None, bytes_are="a program a layer"),
    "score_bracket": About(edges=None, bytes=None, bytes_are="a program a layer"),
    "subnet": About(
        edges=lambda known: known["BLOCK_R"] * _TILE,
        bytes=lambda known: (
            4
            + size_of(known["weight_ptr"])
            + size_of(known["base_ptr"])
            + known["COATS"] / 8
            + _bits_of(known, "survivors_ptr", "signs_ptr", "ever_ptr", "ever_ptr")
        ),
        bytes_are="score 4, weight 4 or 2, base as much (4 for several coats); mask 1/8 a coat; survivors, signs 1/8 "
        "each, ever 2/8",
        variant=lambda known: ", ".join(filter(None, (_coats(known), _weights_of(known, "weight_ptr")))),
    ),
    "subnet_backward": About(
        edges=lambda known: known["BLOCK_R"] * _TILE,
        bytes=lambda known: (
            4
            + 4 * known["ABSOLUTE"]
            + size_of(known["grad_weight_ptr"])
            + size_of(known["base_ptr"])
            + _bits_of(known, "survivors_ptr", "signs_ptr")
        ),
        bytes_are="gradients 4 and 4 or 2, score 4 (abs), base 4; survivors, signs 1/8 each",
        variant=lambda known: _weights_of(known, "grad_weight_ptr"),
    ),
    "packed_weight": About(
        edges=lambda known: known["BLOCK_R"] * _TILE,
        bytes=lambda known: (
            size_of(known["weight_ptr"]) + size_of(known["base_ptr"]) + _bits_of(known, "mask_ptr", "signs_ptr")
        ),
        bytes_are="weight 4 or 2, base as much; mask, signs 1/8 each",
        variant=lambda known: _weights_of(known, "weight_ptr"),
    ),
}
