"""Planes of bits as bytes: `raw`, a bit an edge, and `ans`, entropy-coded, to below a mask's entropy where it pays.

A plane has a bit for every edge of a layer, or for every edge that another plane (`within`) selects, in row-major
order. Both encodings are specified in docs/ticket-format.md. `ans` is asymmetric numeral systems with 32-bit words, a
64-bit state and probabilities in 24 bits, by the library constriction, over odds that are the plane's density or those
of supermask/tickets/coding/levels.py. Planes are coded and decoded a block of rows at a time, so that what is unpacked
stays small.
"""

from typing import Any, Literal

import constriction
import numpy as np
import torch
from torch import Tensor

from supermask.checks import SupermaskError
from supermask.kernels.base.bits import bits_of, count_bits, pack, words_per_row
from supermask.tickets.coding.levels import Grid, Levels, LevelsError

__all__ = ["CodeError", "Encoding", "decode", "encode_ans", "encode_raw"]

Encoding = Literal["raw", "ans"]

_WHOLE = 1 << 24
_FLAT, _LEVELS = b"\0", b"\1"
_Coder = constriction.stream.stack.AnsCoder
_Bernoulli = constriction.stream.model.Bernoulli


class CodeError(SupermaskError, ValueError):
    """Bytes that are not the plane they should be; the message says what is wrong with them."""


def flat_ones(kept: int, count: int) -> int:
    """How many of 2^24 the odds of a set bit are where all edges have the same."""
    return min(max((kept * _WHOLE + count // 2) // count, 1), _WHOLE - 1)


def encode_raw(words: Tensor, grid: Grid, within: Tensor | None) -> bytes:
    """A bit an edge: numpy.packbits(bits, bitorder="little")."""
    bits = [_chosen(words, grid, rows, within) for rows in grid.blocks()]
    return np.packbits(np.concatenate(bits), bitorder="little").tobytes()


def encode_ans(
    words: Tensor, grid: Grid, within: Tensor | None, *, kept: int, count: int, levels: Levels | None
) -> bytes:
    """The plane entropy-coded, at the odds of `levels` or (None) its own density; empty where all its bits are equal.

    Args:
        words: packed int32 [rows, words].
        within: plane of the edges that have a bit; None: all.
        kept: set bits.
        count: bits.
    """
    if kept in (0, count):
        return b""
    coder = _Coder()
    odds = None if levels is None else _probability(levels.ones())
    flat = _Bernoulli(float(_probability(flat_ones(kept, count))), perfect=False)
    family = _Bernoulli(perfect=False)
    for rows in reversed(grid.blocks()):
        bits = _chosen(words, grid, rows, within).astype(np.int32)
        if odds is None or levels is None:
            coder.encode_reverse(bits, flat)
        else:
            coder.encode_reverse(bits, family, odds[_of_chosen(levels.of(grid, rows), within, grid, rows)])
    coded = coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    return (_FLAT if levels is None else _LEVELS + levels.to_bytes()) + coded


def decode(data: bytes, encoding: Encoding, grid: Grid, within: Tensor | None, *, kept: int, count: int) -> Tensor:
    """Packed bits int32 [rows, words] of a plane.

    Raises:
        CodeError: `data` is not a plane of `count` bits of which `kept` are set.
    """
    if encoding == "raw":
        out = _decode_raw(data, grid, within, count)
    elif kept in (0, count):
        if data:
            raise CodeError(f"{len(data)} bytes, and {kept} set bits of {count} take none")
        out = (
            _filled(grid, within)
            if kept
            else torch.zeros(grid.rows, words_per_row(grid.cols), dtype=torch.int32, device="cpu")
        )
    else:
        out = _decode_ans(data, grid, within, kept, count)
    if (found := count_bits(out)) != kept:
        raise CodeError(f"kept {kept}, but its mask selects {found}")
    return out


def _decode_raw(data: bytes, grid: Grid, within: Tensor | None, count: int) -> Tensor:
    if len(data) != (size := -(-count // 8)):
        raise CodeError(f"{len(data)} bytes, and {count} bits take {size}")
    if count % 8 and data[-1] >> count % 8:
        raise CodeError(f"the last byte is {data[-1]}, and holds only {count % 8} of the {count} bits")
    stored, start = np.frombuffer(data, np.uint8), 0

    def bits(rows: range, size: int) -> Any:
        nonlocal start
        first, stop = start // 8, -(-(start + size) // 8)
        found = np.unpackbits(stored[first:stop], bitorder="little")[start % 8 :][:size]
        start += size
        return found

    return _gathered(bits, grid, within)


def _decode_ans(data: bytes, grid: Grid, within: Tensor | None, kept: int, count: int) -> Tensor:
    kind, coded, levels = data[:1], data[1:], None
    if kind == _LEVELS:
        try:
            levels, coded = Levels.from_bytes(coded, grid)
        except LevelsError as error:
            raise CodeError(str(error)) from error
    elif kind != _FLAT:
        raise CodeError(f"kind {list(kind)} of odds: expected 0 (one density) or 1 (levels)")
    if coded.endswith(b"\0"):
        raise CodeError("the coded bits end in a zero byte, which is left out")
    coder = _Coder(np.frombuffer(coded + bytes(-len(coded) % 4), "<u4").astype(np.uint32))
    odds = None if levels is None else _probability(levels.ones())
    flat = _Bernoulli(float(_probability(flat_ones(kept, count))), perfect=False)
    family = _Bernoulli(perfect=False)

    def bits(rows: range, size: int) -> Any:
        if odds is None or levels is None:
            return coder.decode(flat, size)
        return coder.decode(family, odds[_of_chosen(levels.of(grid, rows), within, grid, rows)])

    out = _gathered(bits, grid, within)
    if not coder.is_empty():
        raise CodeError(f"more is coded than {count} bits")
    return out


def _probability(ones: Any) -> Any:
    """The number for which constriction takes odds of `ones` of 2^24: it rounds down, in the middle of a step."""
    return 1 - (_WHOLE - ones - 0.5) / (_WHOLE - 2)


def _gathered(bits: Any, grid: Grid, within: Tensor | None) -> Tensor:
    """Packed words of a plane whose bits `bits(rows, how many)` gives, block after block."""
    out = torch.empty(grid.rows, words_per_row(grid.cols), dtype=torch.int32, device="cpu")
    for rows in grid.blocks():
        if within is None:
            block = bits(rows, len(rows) * grid.cols)
        else:
            where = bits_of(within[rows.start : rows.stop], grid.cols).reshape(-1).view(np.bool_)
            block = np.zeros(where.size, np.uint8)
            block[where] = bits(rows, int(np.count_nonzero(where)))
        chosen = torch.from_numpy(block.reshape(len(rows), grid.cols).astype(np.bool_))
        out[rows.start : rows.stop] = pack(chosen)
    return out


def _filled(grid: Grid, within: Tensor | None) -> Tensor:
    if within is not None:
        return within.clone()
    return _gathered(lambda rows, size: np.ones(size, np.uint8), grid, None)


def _chosen(words: Tensor, grid: Grid, rows: range, within: Tensor | None) -> Any:
    """The bits of a plane in some rows, uint8 of 0 and 1."""
    bits = bits_of(words[rows.start : rows.stop], grid.cols).reshape(-1)
    return bits if within is None else _of_chosen(bits, within, grid, rows)


def _of_chosen(values: Any, within: Tensor | None, grid: Grid, rows: range) -> Any:
    """A value an edge of some rows, where `within` selects it."""
    if within is None:
        return values.reshape(-1)
    return values.reshape(-1)[bits_of(within[rows.start : rows.stop], grid.cols).reshape(-1).view(np.bool_)]
