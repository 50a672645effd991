"""A safetensors file as a ticket needs it read: nothing is trusted, and nothing allocated before it is checked.

    8 bytes   length of the header, little-endian
    header    JSON: {"__metadata__": {name: text}, "<tensor>": {"dtype", "shape", "data_offsets": [start, stop]}, ...}
    data      the tensors; offsets count from here

The tensors cover the data exactly, without gaps or overlaps. Files are written by the library safetensors; it reads
from memory or from a path of its own opening, and lets one tensor of two with one name go unseen.
"""

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from supermask.tickets.errors import TicketError, named, short

__all__ = ["DTYPES", "DTYPE_NAMES", "FOLDER_FILE", "Container", "Entry", "opened", "parsed", "target_name"]

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FOLDER_FILE = "model.safetensors"  # in a folder as model hubs have them

_MOST_HEADER = 1 << 22  # bytes; the largest network of torchvision needs a tenth of it
_MOST_NAME = 1000  # characters, of a tensor
_MOST_DEPTH = 64  # of lists and objects in each other
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a tensor lies: bytes start to stop of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        return self.stop - self.start


@contextmanager
def opened(source: str | Path | BinaryIO) -> Iterator[tuple[BinaryIO, str]]:
    """A ticket's file, open at its start, and its name in errors.

    Args:
        source: a path, of a file or of a folder that has one called model.safetensors, or an open binary file that can
            seek, with the ticket from its present position to its end.

    Raises:
        TicketError: there is no such file.
    """
    if not isinstance(source, str | Path):
        for method in ("read", "seek", "tell", "seekable"):
            if not hasattr(source, method):
                kind = type(source).__name__
                raise TypeError(f"a ticket from {kind}: expected a path, or a binary file open for reading")
        if isinstance(source, io.TextIOBase):
            raise TypeError(f"{named(source)} is open as text: open the file in binary mode")
        if getattr(source, "closed", False):
            raise TicketError(f"{named(source)}: is closed: open it again")
        if not source.seekable():
            raise TicketError(f"{named(source)}: cannot seek: read it whole first, into io.BytesIO(file.read())")
        yield source, named(source)
        return
    path = Path(source)
    try:
        if path.is_dir():
            path = path / FOLDER_FILE
        if not path.exists():
            raise TicketError(f"{path}: no such file")
        if not path.is_file():
            raise TicketError(f"{path}: is no regular file: open it, and give the file object")
        file = open(path, "rb")  # noqa: SIM115 - what goes wrong inside the block is not the opening's fault
    except OSError as error:
        raise TicketError(f"{path}: cannot be opened: {error}") from error
    with file:
        yield file, str(path)


def target_name(target: str | Path | BinaryIO) -> str:
    """The name in errors of what a ticket is to be written to.

    Raises:
        TypeError, TicketError: it is neither a path nor a binary file open for writing.
    """
    if isinstance(target, str | Path):
        if not Path(target).name:
            raise TicketError(f"{str(target)!r}: expected the path of a file")
        return str(target)
    if not hasattr(target, "write") or isinstance(target, io.TextIOBase):
        raise TypeError(f"a ticket to {type(target).__name__}: expected a path, or a binary file open for writing")
    if getattr(target, "closed", False):
        raise TicketError(f"{named(target)}: is closed: open it again")
    return named(target)


class Container:
    """The parts of a safetensors file, found and checked; tensors are read when they are asked for.

    Attributes:
        metadata: text by name.
        entries: by tensor, in the order of their data.
        bytes: of the whole file.

    Raises:
        TicketError: not a safetensors file; one that contradicts itself or names a tensor twice; tensors beyond the
            file, overlapping, or with gaps between them; a header of more than 4 MiB.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file, self._where = file, where
        try:
            self._base = file.tell()
            self.bytes = file.seek(0, 2) - self._base
            file.seek(self._base)
        except OSError as error:
            raise TicketError(f"{where}: cannot be read: {error}") from error
        if not self.bytes:
            raise self._damaged("it is empty from where it stands: seek(0) first?")
        prefix = self._read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > self.bytes - 8:
            said = f"its header takes {length:,} bytes" if len(prefix) == 8 else "8 bytes come before the header"
            raise self._damaged(f"{said}, and the file has {self.bytes:,}")
        if length > _MOST_HEADER:
            raise self._damaged(f"its header takes {length:,} bytes, and the largest that is read {_MOST_HEADER:,}")
        self._data = self._base + 8 + length
        header = self._header(self._bytes(self._base + 8, length))
        metadata = header.pop("__metadata__", {})
        if type(metadata) is not dict or not all(type(text) is str for text in metadata.values()):
            raise self._damaged(f"metadata {short(metadata)}: expected texts by name")
        self.metadata: dict[str, str] = metadata
        found = {name: self._entry(name, value) for name, value in header.items()}
        self.entries = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)))
        self._check_cover(self.bytes - 8 - length)

    def read(self, name: str) -> bytes:
        """The bytes of one tensor."""
        entry = self.entries[name]
        return self._bytes(self._data + entry.start, entry.bytes)

    def tensor(self, name: str) -> Tensor:
        """One tensor."""
        entry = self.entries[name]
        if not entry.bytes:
            return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        return torch.frombuffer(bytearray(self.read(name)), dtype=DTYPES[entry.dtype]).view(entry.shape)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of one tensor, a MiB at a time."""
        entry = self.entries[name]
        for start in range(entry.start, entry.stop, _CHUNK):
            yield self._bytes(self._data + start, min(_CHUNK, entry.stop - start))

    def _bytes(self, start: int, count: int) -> bytes:
        try:
            self._file.seek(start)
        except OSError as error:
            raise TicketError(f"{self._where}: cannot be read: {error}") from error
        found = self._read(count)
        if len(found) != count:
            raise self._damaged(f"{len(found):,} bytes where {count:,} were to be read")
        return found

    def _read(self, count: int) -> bytes:
        """So many bytes, or as many as there are: one call of read() gives fewer where a file is not buffered."""
        parts: list[bytes] = []
        while count:
            try:
                part = self._file.read(count)
            except OSError as error:
                raise TicketError(f"{self._where}: cannot be read: {error}") from error
            if not isinstance(part, bytes):
                raise TypeError(f"{self._where}: read() gives {type(part).__name__}: open the file in binary mode")
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _header(self, text: bytes) -> dict[str, Any]:
        try:
            header = parsed(text.decode())
        except ValueError as error:
            raise self._damaged(f"its header is not JSON: {short(str(error))}") from error
        if type(header) is not dict:
            raise self._damaged("its header is no JSON object")
        return header

    def _entry(self, name: str, value: Any) -> Entry:
        if not name.isprintable() or len(name) > _MOST_NAME:
            raise self._damaged(f"tensor {short(name)} has no printable name of at most {_MOST_NAME:,} characters")
        if type(value) is not dict or set(value) != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"tensor {name!r} is {short(value)}: expected dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if type(dtype) is not str or dtype not in DTYPES:
            raise TicketError(f"{self._where}: tensor {name!r} is {short(dtype)}: a ticket holds {', '.join(DTYPES)}")
        for what, numbers in (("shape", shape), ("data_offsets", offsets)):
            if type(numbers) is not list or any(type(number) is not int or number < 0 for number in numbers):
                raise self._damaged(f"tensor {name!r}: {what} {short(numbers)}: expected integers from 0")
        if len(offsets) != 2 or len(shape) > 64:
            raise self._damaged(f"tensor {name!r}: shape {short(shape)}, data_offsets {short(offsets)}")
        # Before they are multiplied: numbers can have thousands of digits, and an empty tensor sides of any length.
        small = all(number < 1 << 40 for number in shape) and math.prod(max(number, 1) for number in shape) < 1 << 60
        size = math.prod(shape) * DTYPES[dtype].itemsize if small else -1
        start, stop = offsets
        if stop - start != size:
            raise self._damaged(
                f"tensor {name!r}: {dtype} of shape {short(shape)} does not take {short(stop - start)} bytes"
            )
        return Entry(dtype=dtype, shape=tuple(shape), start=start, stop=stop)

    def _check_cover(self, size: int) -> None:
        at, before = 0, "the start of the data"
        for name, entry in self.entries.items():
            if entry.start != at:
                raise self._damaged(
                    f"tensor {name!r} starts at byte {short(entry.start)}, and {before} ends at {at}: tensors follow "
                    "each other without gaps or overlaps"
                )
            at, before = entry.stop, f"tensor {name!r}"
        if at != size:
            raise self._damaged(f"its tensors end at byte {short(at)} of the data, and the file has {size:,}")

    def _damaged(self, said: str) -> TicketError:
        return TicketError(f"{self._where}: not a readable safetensors file, truncated or damaged: {said}")


def parsed(text: str) -> Any:
    """JSON, no object of which has a name twice.

    Raises:
        ValueError: it is not, or lists and objects are nested so deeply that Python, too, would stop somewhere: where
            depends on what calls it, and on what is done with them.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep") from None
    level = [value]
    for _ in range(_MOST_DEPTH + 1):
        if not level:
            return value
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which no name comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {short(twice)} comes twice in one object")
    return found
