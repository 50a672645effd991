"""Files made to harm their reader: refused in time, in little memory, by one kind of error that says what is wrong.

What is wrong with a digest, a spelling, one field or one tensor is in test_file.py and test_lies.py.
"""

import io
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import nn

from supermask import TicketError, load, verify
from supermask.edges.stored import coat_names
from tests.fuzz.mutations import Pairs, Parts, join, split
from tests.places import ROOT

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
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
    names = coat_names(len(coats))
    said = [Pairs([("encoding", "ans"), ("kept", kept)]) for kept, _ in coats]
    layer.put("planes", Pairs(zip(names, said, strict=True)))
    for name, (_, data) in zip(names, coats, strict=True):
        parts.put(f"fc1.{name}", data)
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


PLACES: dict[str, Callable[[Parts, Pairs], Pairs]] = {
    "container": lambda parts, container: container,
    "metadata": lambda parts, container: container["__metadata__"],
    "tensor": lambda parts, container: container["fc1.mask"],
    "header": lambda parts, container: parts.header,
    "prng": lambda parts, container: parts.header["prng"],
    "architecture": lambda parts, container: parts.header["architecture"],
    "arguments": lambda parts, container: parts.header["architecture"]["arguments"],
    "layer": lambda parts, container: parts.header["layers"][0],
    "planes": lambda parts, container: parts.header["layers"][0]["planes"],
    "mask": lambda parts, container: parts.header["layers"][0]["planes"]["mask"],
    "values": lambda parts, container: parts.header["layers"][0]["values"],
    "constant": lambda parts, container: parts.header["layers"][0]["values"]["constant"],
}
