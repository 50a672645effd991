"""A ticket is written whole or not at all, and what was there stays."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from supermask.tickets.errors import TicketError
from supermask.tickets.load import inspect
from supermask.tickets.save import save
from tests.supermask.tickets.networks import mlp, searched


@pytest.mark.parametrize("path", ["missing/t", "file/t", "folder"])
def test_paths_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TicketError, match="cannot be written") as caught:
        save(searched(mlp(4, 2), 2, 4), tmp_path / path, architecture=None)
    assert str(tmp_path / path) in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_proc_cannot_be_written() -> None:
    with pytest.raises(TicketError, match="/proc/t: cannot be written"):
        save(searched(mlp(4, 2), 2, 4), "/proc/t", architecture=None)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), TicketError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_failure_in_the_middle_leaves_the_old_file(
    call: str, error: BaseException, raised: type[BaseException], ticket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    before = ticket.read_bytes()
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(raised) as caught:
        save(searched(mlp(4, 2), 2, 4), ticket, architecture=None)
    if raised is TicketError:
        assert str(ticket) in str(caught.value)
        assert "No space left" in str(caught.value)
    assert [path.name for path in ticket.parent.iterdir()] == [ticket.name]
    assert ticket.read_bytes() == before


def test_what_would_not_read_back_is_not_written(ticket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = ticket.read_bytes(), os.fsync

    def damage(descriptor: int) -> None:
        os.pwrite(descriptor, b"\xff", os.fstat(descriptor).st_size - 1)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", damage)
    with pytest.raises(TicketError, match=r"good\.safetensors: damaged"):
        save(searched(mlp(4, 2), 2, 4), ticket, architecture=None)
    assert [path.name for path in ticket.parent.iterdir()] == [ticket.name]
    assert ticket.read_bytes() == before


def test_folder_that_cannot_be_synced(ticket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems cannot, which is no failure; one that can and fails is reported, the file being in place."""
    real = os.fsync

    def sync(code: int) -> None:
        def fsync(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(code, os.strerror(code))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    sync(errno.EINVAL)
    save(searched(mlp(4, 2), 2, 4), ticket, architecture=mlp(4, 2))
    sync(errno.EIO)
    with pytest.raises(TicketError, match=r"\.safetensors: written, but .*could not be synced.*write it again$"):
        save(searched(mlp(4, 3), 2, 4), ticket, architecture=mlp(4, 3))
    assert inspect(ticket).architecture == mlp(4, 3)


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save(searched(mlp(4, 2), 2, 4), tmp_path / "t", architecture=None)
    finally:
        os.umask(before)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o640
