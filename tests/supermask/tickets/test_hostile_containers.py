"""safetensors files that contradict themselves or say a thing twice."""

from collections.abc import Callable

import pytest

from tests.fuzz.mutations import Pairs, join
from tests.supermask.tickets.hostile import PLACES, parts_of, refused


@pytest.mark.parametrize("name", ["fc1.mask", "norm1.running_mean"])
def test_tensor_named_twice(name: str) -> None:
    """The second would hide the first from every other reader."""

    def distort(container: Pairs) -> None:
        container.append((name, container[name]))

    refused(join(parts_of(), distort), f"the name '{name}' comes twice in one object")


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
