"""Files that behave badly while they are read or written."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from supermask import TicketError, load, save, verify
from tests.supermask.tickets.hostile import CORPUS, MIB


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
