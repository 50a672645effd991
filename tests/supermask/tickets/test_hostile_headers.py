"""Headers that do not hold: fields, names, numbers of thousands of digits, nesting without end."""

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from supermask import TicketError, inspect, load, verify
from supermask.edges.stored import coat_names
from tests.fuzz.mutations import Pairs, Parts, Spelt, Stored, join
from tests.supermask.tickets.hostile import PLACES, parts_of, refused

DIGITS = Spelt("9" * 4300)  # as many as Python reads
MORE_DIGITS = Spelt("9" * 4301)


def change(place: str, name: str, value: Any) -> Callable[[Parts], None]:
    return lambda parts: PLACES[place](parts, Pairs()).put(name, value)


def empty(kept: Any) -> Pairs:
    """A plane of which all bits are equal."""
    return Pairs([("encoding", "ans"), ("kept", kept)])


def coats(*kept: int, weights: str = "signed_constant") -> Callable[[Parts], None]:
    """Layer fc1 with coats without bytes, of which all bits are equal."""

    def changed(parts: Parts) -> None:
        layer, names = parts.header["layers"][0], coat_names(len(kept))
        layer.put("planes", Pairs((name, empty(one)) for name, one in zip(names, kept, strict=True)))
        layer.put("weights", weights)
        for name in names:
            parts.put(f"fc1.{name}", b"")

    return changed


def flips(kept: Any, weights: str = "signed_constant", data: bytes | None = b"") -> Callable[[Parts], None]:
    def changed(parts: Parts) -> None:
        coats(45, weights=weights)(parts)
        parts.header["layers"][0]["planes"].put("flips", empty(kept))
        if data is not None:
            parts.put("fc1.flips", data)

    return changed


def planes(**kept: int) -> Callable[[Parts], None]:
    """Layer fc1 with planes without bytes, called so but for _ in place of dots."""

    def changed(parts: Parts) -> None:
        found = Pairs((name.replace("_", "."), empty(one)) for name, one in kept.items())
        parts.header["layers"][0].put("planes", found)
        for name, _ in found:
            parts.put(f"fc1.{name}", b"")

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
    "65 coats": (coats(*[45] * 65), ["'fc1'", "plane 'mask.64'", "'mask.1' to 'mask.63'", "upgrade supermask"]),
    "100,000 coats": (
        change("layer", "planes", Pairs((name, 0) for name in coat_names(100_000))),
        ["'fc1'", "plane 'mask.", "upgrade supermask"],
    ),
    "no planes": (planes(), ["'fc1'", "no plane 'mask', which every layer has"]),
    "flips alone": (
        planes(flips=0),
        ["'fc1'", "plane 'flips' has bits for the edges of plane 'mask', and there"],
    ),
    "a coat left out": (
        planes(mask=45, mask_2=45),
        ["'fc1'", "plane 'mask.2' has bits for the edges of plane 'mask.1', and there is none"],
    ),
    "a coat 0": (planes(mask=45, mask_0=45), ["'fc1'", "plane 'mask.0', and this release reads", "upgrade supermask"]),
    "a coat 01": (planes(mask=45, mask_01=45), ["'fc1'", "plane 'mask.01', and this release reads"]),
    "a plane of another version": (
        planes(mask=45, frozen=0),
        ["'fc1'", "plane 'frozen', and this release reads 'mask', 'mask.1' to 'mask.63', 'flips': upgrade supermask"],
    ),
    "a plane with a long name": (change("planes", "x" * 100_000, 1), ["'fc1'", "plane 'xxx", "upgrade supermask"]),
    "a value of another version": (
        change("values", "alpha", Pairs([("coding", "float32"), ("value", 1.0)])),
        ["'fc1'", "value 'alpha', and this release reads 'constant': upgrade supermask"],
    ),
    "no values": (change("layer", "values", Pairs()), ["'fc1'", "no value 'constant', which every layer has"]),
    "values that are a list": (change("layer", "values", []), ["layer 0", "values []: expected dict"]),
    "a value that is a number": (change("values", "constant", 0.5), ["'fc1'", "value 'constant'", "found float"]),
    "a value of another coding": (
        change("constant", "coding", "float16"),
        ["'fc1'", "value 'constant' has coding 'float16', and this release reads 'float32': upgrade supermask"],
    ),
    "a coding that is a number": (change("constant", "coding", 32), ["'fc1'", "coding 32: expected str"]),
    "a value with a field more": (change("constant", "unit", "m"), ["'fc1'", "value 'constant'", "'unit'"]),
    "a constant that is true": (
        change("constant", "value", True),
        ["constant True: expected a finite float32"],
    ),
    "a constant that is text": (
        change("constant", "value", "0.5"),
        ["constant '0.5': expected a finite float32"],
    ),
    "a constant below 0": (change("constant", "value", -0.5), ["constant -0.5: expected a finite float32 from 0"]),
    "fields of version 2": (change("layer", "coats", []), ["layer 0", "'coats'", "expected the fields", "'planes'"]),
    "coats that grow": (coats(0, 45), ["'fc1'", "coat 1 has kept 45, of 0 bits"]),
    "kept more than bits": (coats(46), ["'fc1'", "its mask has kept 46, of 45 bits"]),
    "kept negative": (coats(-1), ["'fc1'", "its mask has kept -1, of 45 bits"]),
    "coat of another kind": (change("planes", "mask", []), ["layer 0 ('fc1')", "found list", "'kept'"]),
    "coat without a tensor": (
        change("planes", "mask.1", Pairs([("encoding", "raw"), ("kept", 22)])),
        ["'fc1'", "no tensor 'fc1.mask.1' holds coat 1"],
    ),
    "flips of unsigned weights": (flips(0, "unsigned_constant"), ["'fc1'", "flips", "'unsigned_constant'"]),
    "flips of real weights": (flips(0, "kaiming_normal"), ["'fc1'", "flips", "'kaiming_normal'"]),
    "more flips than edges": (flips(46), ["'fc1'", "its flips has kept 46, of 45 bits"]),
    "flips without a tensor": (flips(0, data=None), ["'fc1'", "no tensor 'fc1.flips' holds its flips"]),
    "flips that are true": (change("planes", "flips", True), ["its flips", "found bool"]),
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
        ("header", "version"), ("header", "seed"), ("prng", "rounds"), ("layer", "index"), ("constant", "value"),
        ("layer", "generation"), ("mask", "kept"),
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
    parts.header["layers"][0]["values"]["constant"].put("value", 0.1)
    torch.set_default_dtype(dtype)
    try:
        verify(io.BytesIO(good))
        refused(join(parts), "'fc1'", "constant 0.1: expected a finite float32")
    finally:
        torch.set_default_dtype(torch.float32)
