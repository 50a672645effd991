"""Planes of bits that are not what they are said to be, or far more than a short file has."""

import io
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from torch import nn

from supermask import TicketError, inspect, verify
from tests.fuzz.mutations import Pairs, Stored, join, set_planes
from tests.supermask.tickets.hostile import MIB, one_layer, parts_of, refused

BOMBS = {
    "2**40 edges, one of them set": (one_layer([1 << 20, 1 << 20], [(1, b"\0\1")]), "1,099,511,627,776 bits"),
    "2**40 edges, none of them set": (one_layer([1 << 20, 1 << 20], [(0, b"")]), "1,099,511,627,776 bits"),
    "2**40 edges, all of them set": (one_layer([1 << 20, 1 << 20], [(1 << 40, b"")]), "1,099,511,627,776 bits"),
    "64 coats of 2**24 edges": (one_layer([1 << 12, 1 << 12], [(1 << 24, b"")] * 64), "1,073,741,824 bits"),
    "one edge a row": (one_layer([1 << 29, 1], [(0, b"")]), "68,719,476,736 bits, rows padded to 128"),
    "one edge a row, one dimension": (one_layer([1 << 24], [(0, b"")]), "2,147,483,648 bits, rows padded to 128"),
    "one row": (one_layer([1, 1 << 29], [(1, b"\1\1")]), "[1, 536870912]"),
    "one row of little planes": (one_layer([1, 1 << 25, 3], [(0, b"")]), "[1, 33554432, 3]"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_planes_of_more_bits_than_a_short_file_has(case: str) -> None:
    """Refused before anything of their size is allocated."""
    data, said = BOMBS[case]
    refused(data, "fc1", said, memory=MIB)
    with pytest.raises(TicketError):
        inspect(io.BytesIO(data))


def test_many_layers_of_many_edges() -> None:
    parts = parts_of()
    (layer, _), tensors = parts.header["layers"], []
    layers = []
    for number in range(40):
        layers.append(Pairs(layer))
        layers[-1].put("name", f"fc{number}")
        layers[-1].put("index", number)
        layers[-1].put("shape", [1 << 12, 1 << 13])
        layers[-1].put("planes", Pairs([("mask", Pairs([("encoding", "ans"), ("kept", 1)]))]))
        tensors.append(Stored(f"fc{number}.mask", "U8", [2], b"\0\1"))
    parts.header.put("layers", layers)
    parts.header.put("architecture", None)
    parts.tensors = tensors
    refused(join(parts), f"{40 << 25:,} bits", "'fc0'", memory=MIB)


def test_the_largest_planes_that_a_short_file_can_have_are_read() -> None:
    """And take little more memory than their bits."""
    data = one_layer([1 << 13, 1 << 14], [(0, b"")])
    tracemalloc.start()
    try:
        assert verify(io.BytesIO(data)).edges == 1 << 27
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def levels(*, draws: bytes = b"\0", axes: bytes = b"\0\0\0", odds: bytes = b"\0\x80", coded: bytes = b"a") -> bytes:
    return b"\1" + draws + axes + odds + coded


def coded_plane() -> tuple[bytes, int]:
    """A plane of a layer of shape [5, 9] in ans, and how many of its bits are set."""
    parts = parts_of()
    layer, bits = parts.header["layers"][0], np.zeros((5, 9), np.bool_)
    bits[0, :3] = True
    set_planes(parts, layer, [bits], encodings=["ans"])
    tensor = parts.tensor("fc1.mask")
    assert tensor is not None
    assert layer["planes"]["mask"]["encoding"] == "ans"
    return tensor.data, 3


CODED, SET = coded_plane()
PLANES: dict[str, tuple[int, bytes, list[str]]] = {
    "kept is one too few": (SET - 1, CODED, ["than 45 bits"]),
    "kept is one too many": (SET + 1, CODED, ["than 45 bits"]),
    "truncated": (SET, CODED[:-1], ["than 45 bits"]),
    "extended": (SET, CODED + b"\1", ["than 45 bits"]),
    "a word more": (SET, CODED + b"\0\0\0\1", ["its mask is U8 of shape [9]", "U8 of shape [6] at most"]),
    "zero at the end": (SET, CODED + b"\0", ["end in a zero byte"]),
    "empty": (SET, b"", ["kind [] of odds"]),
    "unknown kind": (SET, b"\2" + CODED[1:], ["kind [2] of odds: expected 0 (one density) or 1 (levels)"]),
    "nothing coded": (SET, b"\0", ["kept 3, but its mask selects"]),
    "thresholds that fall": (SET, b"\1\1\0\0\0\0", ["0 bytes left where"]),
    "none kept, and bytes": (0, b"\0", ["1 bytes, and 0 set bits of 45 take none"]),
    "all kept, and bytes": (45, b"\0\1", ["2 bytes, and 45 set bits of 45 take none"]),
}
"""Of a layer of shape [5, 9], whose planes take at most 6 bytes."""

WIDE: dict[str, tuple[bytes, list[str]]] = {
    "draws of kind 3": (levels(draws=b"\3"), ["kind 3 of initial scores"]),
    "generation": (levels(draws=b"\1\0\0\x40\0\0"), ["generation 4194304 of initial scores: expected 0 to 4194303"]),
    "threshold 0": (levels(draws=b"\1\0\0\0\0\1\0\0"), ["thresholds [0]: expected ascending bins from 1 to 4095"]),
    "threshold 4096": (levels(draws=b"\2\0\0\0\0\1\0\x10"), ["thresholds [4096]"]),
    "thresholds that fall": (levels(draws=b"\1\0\0\0\0\2\7\0\6\0"), ["thresholds [7, 6]"]),
    "255 bad thresholds": (levels(draws=b"\1\0\0\0\0\xff" + b"\xff\xff" * 255), ["thresholds [65535, 65535"]),
    "bits of an axis": (levels(axes=b"\0\5"), ["5 bits for the level of a channel: expected 0 to 4"]),
    "unused bits": (levels(axes=b"\1" + b"\xff" * 13 + b"\0\0"), ["bits after the last level of a row are set"]),
    "odds cut short": (levels(odds=b"\0", coded=b""), ["1 bytes left where odds of 1 levels take 2"]),
}
"""Of a layer of shape [100, 200]."""


def dense(rows: int, cols: int) -> nn.Module:
    return nn.Sequential(OrderedDict(fc1=nn.Linear(cols, rows, bias=False)))


@pytest.mark.parametrize("case", PLANES)
def test_coded_planes_that_are_not_what_they_are_said_to_be(case: str) -> None:
    kept, data, said = PLANES[case]
    refused(one_layer([5, 9], [(kept, data)]), "'fc1'", *said, model=dense(5, 9))


@pytest.mark.parametrize("case", WIDE)
def test_levels_that_are_none(case: str) -> None:
    data, said = WIDE[case]
    where = "layer 'fc1': tensor 'fc1.mask': "
    refused(one_layer([100, 200], [(7, data)]), where, *said, model=dense(100, 200))
