"""Files made to harm their reader: refused in time, in little memory, by one kind of error that says what is wrong.

What is wrong with a digest, a spelling, one field or one tensor is in tests/supermask/tickets/test_file.py.
"""

import io
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from supermask import TicketError, inspect, load, save, verify
from tests.fuzz.mutations import Pairs, Parts, Spelt, Stored, join, set_planes, split
from tests.places import ROOT

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
DIGITS = Spelt("9" * 4300)  # as many as Python reads
MORE_DIGITS = Spelt("9" * 4301)
MIB = 1 << 20


def parts_of(seed: str = "raw") -> Parts:
    """An mlp of sizes 9, 5, 3: layer fc1 of shape [5, 9], fc2 of [3, 5], statistics of norm1."""
    parts = split((CORPUS / f"seed_{seed}").read_bytes())
    assert parts is not None
    return parts


def one_layer(shape: list[int], coats: list[tuple[int, bytes]], **fields: Any) -> bytes:
    """A ticket with no architecture and one layer `fc1`, each coat of ans by its kept and bytes."""
    parts = parts_of()
    layer = parts.header["layers"][0]
    parts.header.put("architecture", None)
    parts.header.put("layers", [layer])
    parts.tensors = []
    layer.put("shape", shape)
    layer.put("coats", [Pairs([("encoding", "ans"), ("kept", kept)]) for kept, _ in coats])
    for number, (_, data) in enumerate(coats):
        parts.put(f"fc1.mask.{number}" if number else "fc1.mask", data)
    for name, value in fields.items():
        layer.put(name, value)
    return join(parts)


def refused(data: bytes, *said: str, memory: int = 4 * MIB, model: nn.Module | None = None) -> None:
    """`verify` and `load` raise TicketError with the file and all of `said`, within `memory` bytes beside the file."""
    for read in (verify, partial(load, model=model)):
        tracemalloc.start()
        try:
            with pytest.raises(TicketError) as caught:
                read(io.BytesIO(data))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        message = str(caught.value)
        assert len(message) < 2000
        assert message.isprintable()
        for part in ("<BytesIO>: ", *said):
            assert part in message, part
        assert peak < memory + 64 * len(data)


class Sparse(io.RawIOBase):
    """A file of any size: a few bytes at its start, then zeros, none of them in memory."""

    def __init__(self, start: bytes, size: int) -> None:
        self.start, self.size, self.at = start, size, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        count = max(0, min(size if size >= 0 else self.size, self.size - self.at))
        found = self.start[self.at : self.at + count]
        self.at += count
        return found + bytes(count - len(found))


@pytest.mark.parametrize("length", [(1 << 24) + 1, 3 << 30])
def test_header_that_is_there_and_too_long(length: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TicketError, match=f"its header takes {length:,} bytes, and the largest that is read"):
            load(Sparse(length.to_bytes(8, "little"), 4 << 30))  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


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
        layers[-1].put("coats", [Pairs([("encoding", "ans"), ("kept", 1)])])
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


@pytest.mark.parametrize("name", ["fc1.mask", "norm1.running_mean"])
def test_tensor_named_twice(name: str) -> None:
    """The second would hide the first from every other reader."""

    def distort(container: Pairs) -> None:
        container.append((name, container[name]))

    refused(join(parts_of(), distort), f"the name '{name}' comes twice in one object")


PLACES: dict[str, Callable[[Parts, Pairs], Pairs]] = {
    "container": lambda parts, container: container,
    "metadata": lambda parts, container: container["__metadata__"],
    "tensor": lambda parts, container: container["fc1.mask"],
    "header": lambda parts, container: parts.header,
    "prng": lambda parts, container: parts.header["prng"],
    "architecture": lambda parts, container: parts.header["architecture"],
    "arguments": lambda parts, container: parts.header["architecture"]["arguments"],
    "layer": lambda parts, container: parts.header["layers"][0],
    "coat": lambda parts, container: parts.header["layers"][0]["coats"][0],
}


@pytest.mark.parametrize("place", PLACES)
def test_name_twice_in_any_object(place: str) -> None:
    parts = parts_of()
    names: list[str] = []

    def distort(container: Pairs) -> None:
        found = PLACES[place](parts, container)
        names.append(found[0][0])
        found.append(found[0])

    refused(join(parts, distort), f"the name {names[0]!r} comes twice in one object")


def offsets(name: str, start: int, stop: int) -> Callable[[Pairs], None]:
    return lambda container: container[name].put("data_offsets", [start, stop])


# The data: norm1.num_batches_tracked 0 to 8, running_mean to 28, running_var to 48, fc1.mask to 54, fc2.mask to 56.
CONTAINERS: dict[str, tuple[Callable[[Pairs], None], list[str]]] = {
    "overlap": (offsets("fc2.mask", 53, 55), ["'fc2.mask' starts at byte 53", "'fc1.mask' ends at 54"]),
    "the same place": (offsets("fc2.mask", 48, 50), ["starts at byte 48", "ends at 50", "without gaps or overlaps"]),
    "gap": (offsets("norm1.num_batches_tracked", 1, 9), ["starts at byte 1", "the start of the data ends at 0"]),
    "beyond the file": (offsets("fc2.mask", 55, 57), ["'fc2.mask' starts at byte 55", "ends at 54"]),
    "far beyond the file": (offsets("fc2.mask", 1 << 62, (1 << 62) + 2), [f"starts at byte {1 << 62}"]),
    "backwards": (offsets("fc2.mask", 56, 54), ["'fc2.mask': U8 of shape [2] does not take -2 bytes"]),
    "too many bytes": (offsets("fc2.mask", 54, 57), ["U8 of shape [2] does not take 3 bytes"]),
    "negative": (offsets("fc2.mask", -2, 0), ["'fc2.mask'", "[-2, 0]"]),
    "dtype of another size": (
        lambda container: container["norm1.running_mean"].put("dtype", "F64"),
        ["'norm1.running_mean': F64 of shape [5] does not take 20 bytes"],
    ),
    "shape of another size": (
        lambda container: container["norm1.running_mean"].put("shape", [5, 2]),
        ["F32 of shape [5, 2] does not take 20 bytes"],
    ),
    "shape with a zero and a huge side": (
        lambda container: container["norm1.running_mean"].put("shape", [0, 1 << 45]),
        [f"shape [0, {1 << 45}] does not take 20 bytes"],
    ),
    "shape whose product wraps around": (
        lambda container: container["norm1.running_mean"].put("shape", [1 << 32, 1 << 32, 5]),
        ["does not take 20 bytes"],
    ),
    "shape of very many sides": (
        lambda container: container["norm1.running_mean"].put("shape", [1] * 100_000),
        ["'norm1.running_mean': shape [1, 1, 1"],
    ),
    "shape of true": (lambda container: container["fc2.mask"].put("shape", [True, 2]), ["[True, 2]", "integers"]),
    "one offset": (lambda container: container["fc2.mask"].put("data_offsets", [54]), ["data_offsets [54]"]),
    "no dtype": (lambda container: container["fc2.mask"].put("dtype", None), ["'fc2.mask' is None", "BOOL, U8"]),
    "unhashable dtype": (lambda container: container["fc2.mask"].put("dtype", ["U8"]), ["'fc2.mask' is ['U8']"]),
    "further field": (lambda container: container["fc2.mask"].put("x", 0), ["'x': 0", "dtype, shape and data_offsets"]),
    "tensor that is a number": (lambda container: container.append(("x", 3)), ["tensor 'x' is 3"]),
    "metadata of numbers": (
        lambda container: container["__metadata__"].insert(0, ("x", 3)),
        ["'x': 3", "texts by name"],
    ),
    "metadata that is a list": (lambda container: container.put("__metadata__", []), ["metadata []", "texts by name"]),
    "name of many characters": (
        lambda container: container.append(("x" * 1001, Pairs())),
        ["tensor 'xxx", "of at most 1,000 characters"],
    ),
    "lone surrogate": (lambda container: container.append(("\ud800", Pairs())), [r"'\ud800'", "printable"]),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_containers_that_contradict_themselves(case: str) -> None:
    distort, said = CONTAINERS[case]
    refused(join(parts_of(), distort), *said)


def test_container_that_is_no_object() -> None:
    for text in (b"[]", b"3", b"null", b'"a"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"NaN"):
        refused(len(text).to_bytes(8, "little") + text, "not a readable safetensors file", "header")


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
    assert layer["coats"][0]["encoding"] == "ans"
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


def change(place: str, name: str, value: Any) -> Callable[[Parts], None]:
    return lambda parts: PLACES[place](parts, Pairs()).put(name, value)


def coats(*kept: int, weights: str = "signed_constant") -> Callable[[Parts], None]:
    """Layer fc1 with coats without bytes, of which all bits are equal."""

    def changed(parts: Parts) -> None:
        layer = parts.header["layers"][0]
        layer.put("coats", [Pairs([("encoding", "ans"), ("kept", one)]) for one in kept])
        layer.put("weights", weights)
        for number in range(len(kept)):
            parts.put(f"fc1.mask.{number}" if number else "fc1.mask", b"")

    return changed


def flips(kept: Any, weights: str = "signed_constant", data: bytes | None = b"") -> Callable[[Parts], None]:
    def changed(parts: Parts) -> None:
        coats(45, weights=weights)(parts)
        parts.header["layers"][0].put("flips", Pairs([("encoding", "ans"), ("kept", kept)]))
        if data is not None:
            parts.put("fc1.flips", data)

    return changed


def named(*names: Any) -> Callable[[Parts], None]:
    """Batch norms said to be folded, tensors of `norm1` and `other` there."""

    def changed(parts: Parts) -> None:
        parts.header.put("folded", list(names))
        for norm in ("norm1", "other"):
            for part in ("weight", "bias"):
                parts.tensors.append(Stored(f"{norm}.{part}", "F32", [5], bytes(20)))

    return changed


HEADERS: dict[str, tuple[Callable[[Parts], None], list[str]]] = {
    "65 coats": (coats(*[45] * 65), ["'fc1'", "65 coats: expected 1 to 64"]),
    "100,000 coats": (change("layer", "coats", [0] * 100_000), ["'fc1'", "100000 coats: expected 1 to 64"]),
    "no coats": (change("layer", "coats", []), ["'fc1'", "0 coats: expected 1 to 64"]),
    "coats that grow": (coats(0, 45), ["'fc1'", "coat 1 has kept 45, of 0 bits"]),
    "kept more than bits": (coats(46), ["'fc1'", "its mask has kept 46, of 45 bits"]),
    "kept negative": (coats(-1), ["'fc1'", "its mask has kept -1, of 45 bits"]),
    "coat of another kind": (change("layer", "coats", [[]]), ["layer 0 ('fc1')", "found list", "'kept'"]),
    "coat without a tensor": (
        change("layer", "coats", [Pairs([("encoding", "raw"), ("kept", 22)])] * 2),
        ["'fc1'", "no tensor 'fc1.mask.1' holds coat 1"],
    ),
    "flips of unsigned weights": (flips(0, "unsigned_constant"), ["'fc1'", "flips", "'unsigned_constant'"]),
    "flips of real weights": (flips(0, "kaiming_normal"), ["'fc1'", "flips", "'kaiming_normal'"]),
    "more flips than edges": (flips(46), ["'fc1'", "its flips has kept 46, of 45 bits"]),
    "flips without a tensor": (flips(0, data=None), ["'fc1'", "no tensor 'fc1.flips' holds its flips"]),
    "flips that are true": (change("layer", "flips", True), ["flips True: expected dict or NoneType"]),
    "folded that are missing": (named("bn"), ["batch norm 'bn' is folded", "no tensor of its weight"]),
    "folded unsorted": (named("other", "norm1"), ["folded ['other', 'norm1']", "each once, in order"]),
    "folded twice": (named("norm1", "norm1"), ["folded ['norm1', 'norm1']", "each once, in order"]),
    "folded numbers": (named(1, 2), ["folded [1, 2]", "names of batch norms"]),
    "folded lists": (named(["norm1"]), ["folded [['norm1']]", "names of batch norms"]),
    "narrowed 1": (change("header", "narrowed", 1), ["narrowed 1: expected bool"]),
    "narrowed null": (change("header", "narrowed", None), ["narrowed None: expected bool"]),
    "rounds as float": (change("prng", "rounds", 10.0), ["prng: rounds 10.0: expected int"]),
    "rounds true": (change("prng", "rounds", True), ["prng: rounds True: expected int"]),
    "architecture that moves the cursor": (
        change("architecture", "name", "mlp\x1b[2J"),
        [r"architecture 'mlp\x1b[2J(", "printable"],
    ),
    "argument that moves the cursor": (
        change("arguments", "\x1b]0;title\x07", 1),
        [r"\x1b]0;title\x07=1", "printable"],
    ),
    "argument with a lone surrogate": (change("arguments", "\ud800", 1), [r"\ud800=1", "printable"]),
    "layer that starts with a dot": (change("layer", "name", ".fc1"), ["no tensor '.fc1.mask' holds its mask"]),
    "16 sides and one more": (change("layer", "shape", [1] * 17), ["'fc1'", "shape [1, 1", "positive integers"]),
    "side of 2**60": (change("layer", "shape", [1 << 60]), ["'fc1'", f"shape [{1 << 60}]", "positive integers"]),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_do_not_hold(case: str) -> None:
    changed, said = HEADERS[case]
    parts = parts_of()
    changed(parts)
    refused(join(parts), *said)


def numbers() -> Iterator[tuple[str, Callable[[Parts, Pairs, Any], None]]]:
    """Every place of a ticket that has a number, and how it is written to."""
    for place, name in [
        ("header", "version"), ("header", "seed"), ("prng", "rounds"), ("layer", "index"), ("layer", "constant"),
        ("layer", "generation"), ("coat", "kept"),
    ]:  # fmt: skip
        yield name, lambda parts, container, value, p=place, n=name: PLACES[p](parts, container).put(n, value)
    for place, name in [("layer", "shape"), ("arguments", "sizes"), ("tensor", "shape"), ("tensor", "data_offsets")]:
        for at in range(1 if (place, name) == ("tensor", "shape") else 2):

            def put(parts: Parts, container: Pairs, value: Any, p: str = place, n: str = name, a: int = at) -> None:
                found = list(PLACES[p](parts, container)[n])
                found[a] = value
                PLACES[p](parts, container).put(n, found)

            yield f"{name} {at} of {place}", put


@pytest.mark.parametrize("digits", [DIGITS, MORE_DIGITS, Spelt(f"-{DIGITS}"), Spelt(f"{DIGITS}.0"), Spelt("1e99999")])
@pytest.mark.parametrize(("place", "put"), [pytest.param(*case, id=case[0]) for case in numbers()])
def test_numbers_of_thousands_of_digits(place: str, put: Any, digits: Spelt) -> None:
    """Python refuses to read or to write some of them by ValueError, and to make floats of others by OverflowError."""
    parts = parts_of()

    def distort(container: Pairs) -> None:
        put(parts, container, digits)

    refused(join(parts, distort))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("place", PLACES)
def test_nesting_that_python_could_just_follow(place: str, opening: str) -> None:
    """JSON is read to another depth than it is written, printed or compared to: none of these is met on the way."""
    closing = "]" if opening == "[" else "}"
    limit = sys.getrecursionlimit()
    for depth in [66, 200, limit // 2, *range(limit - 120, limit, 7), limit + 10, 50_000]:
        parts = parts_of()
        parts.texts = Pairs([("note", "")])

        def distort(container: Pairs, parts: Parts = parts, depth: int = depth) -> None:
            found = PLACES[place](parts, container)
            found[0] = (found[0][0], Spelt(opening * depth + "0" + closing * depth))

        with pytest.raises(TicketError, match="nested more than 64 deep"):
            inspect(io.BytesIO(join(parts, distort)))


def test_arguments_as_deep_as_they_may_be() -> None:
    """Whatever the depth of the stack, what reads them reads them."""
    parts = parts_of()
    parts.header["architecture"].put("arguments", Pairs([("a", Spelt("[" * 61 + "]" * 61))]))
    data = join(parts)
    assert "[[[" in str(inspect(io.BytesIO(data)))
    refused(data, "mlp", "cannot be built")
    parts.header["architecture"].put("arguments", Pairs([("a", Spelt("[" * 62 + "]" * 62))]))
    refused(join(parts), "nested more than 64 deep")


def test_printed_names_take_no_more_than_they_are_long() -> None:
    """A table is as wide as its longest name: one of megabytes would make every line as long."""
    parts = parts_of()
    parts.header["layers"][0].put("name", "x" * 995)
    parts.tensors[3].name = "x" * 995 + ".mask"
    assert parts.tensors[3].name in {tensor.name for tensor in parts.tensors}
    assert "x" * 995 in str(inspect(io.BytesIO(join(parts))))
    parts.header["layers"][0].put("name", "x" * 996)
    parts.tensors[3].name = "x" * 996 + ".mask"
    refused(join(parts), "tensor 'xxx", "of at most 1,000 characters")


def test_many_long_names_that_are_not_the_networks() -> None:
    parts = parts_of()
    for number in range(50):
        parts.tensors.append(Stored(f"{number}" + "x" * 900, "U8", [0], b""))
    with pytest.raises(TicketError) as caught:
        load(io.BytesIO(join(parts)))
    assert "the ticket is of another network than mlp(" in str(caught.value)
    assert len(str(caught.value)) <= 4000


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_constant_is_a_float32_whatever_the_default(dtype: torch.dtype) -> None:
    parts = parts_of()
    good = join(parts)
    parts.header["layers"][0].put("constant", 0.1)
    torch.set_default_dtype(dtype)
    try:
        verify(io.BytesIO(good))
        refused(join(parts), "'fc1'", "constant 0.1: expected a finite float32")
    finally:
        torch.set_default_dtype(torch.float32)


class Slow(io.BytesIO):
    """Gives fewer bytes than it is asked for, as files that are not buffered may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 3 else 3)


class Ending(io.BytesIO):
    """Ends before its end, as a file does that is cut while it is read."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size) if self.tell() < 500 else b""


class Failing(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() < 500:
            return super().read(size)
        raise OSError(5, "Input/output error")


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_files_that_behave_badly(tmp_path: Path) -> None:
    data = (CORPUS / "seed_raw").read_bytes()
    assert str(verify(Slow(data))).replace("Slow", "BytesIO") == str(verify(io.BytesIO(data)))
    for file, said in [
        (Ending(data), "<Ending>: not a readable safetensors file, truncated or damaged: 0 bytes where"),
        (Failing(data), "<Failing>: cannot be read: [Errno 5] Input/output error"),
        (Unseekable(data), "<Unseekable>: cannot seek"),
        (Slow(data[:-1]), "<Slow>: not a readable safetensors file"),
    ]:
        with pytest.raises(TicketError) as caught:
            load(file)
        assert said in str(caught.value)
    (tmp_path / "t").write_bytes(data)
    with open(tmp_path / "t", encoding="utf-8") as text, open(tmp_path / "t", encoding="latin-1") as latin:
        for file in (text, latin, io.StringIO("text")):  # type: ignore[assignment]
            with pytest.raises(TypeError, match="binary mode"):
                load(file)
    with open(tmp_path / "t", "rb", buffering=0) as raw:
        verify(raw)  # type: ignore[arg-type]


class Full(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


class Short(io.BytesIO):
    """Takes fewer bytes than it is given, as files that are not buffered may."""

    def write(self, data: Any) -> int:
        return super().write(data[:100])


def test_files_that_do_not_take_a_ticket_whole() -> None:
    network = load(CORPUS / "seed_raw")
    with pytest.raises(TicketError, match=r"<Full>: cannot be written: .*No space left"):
        save(network, Full(), architecture=None)
    with pytest.raises(TicketError, match=r"<Short>: 100 bytes of [\d,]+ were written"):
        save(network, Short(), architecture=None)
