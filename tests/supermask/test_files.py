"""Files that appear whole, or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from supermask import files
from supermask.files import UnsyncedError, check_writable, write_all, write_atomically, write_whole


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a machine that loses power keeps: the name appears only when the bytes are on the disk."""
    done: list[str] = []
    monkeypatch.setattr(files.os, "fsync", lambda _: done.append("sync"))
    monkeypatch.setattr(files.os, "replace", lambda _, to: done.append(f"rename to {to.name}"))
    write_whole(tmp_path / "file", b"da", memoryview(b"ta"))
    assert done == ["sync", "rename to file", "sync"]


def test_what_was_there_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_whole(path, b"second")
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda temporary: temporary.write_bytes(b"third"), lambda _: 1 // 0)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o755, 0o444])
def test_the_mode_of_what_is_replaced_stays(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(mode)
    seen: list[int] = []

    def write(temporary: Path) -> None:
        seen.append(stat.S_IMODE(temporary.stat().st_mode))
        elsewhere = temporary.with_name("elsewhere")  # as libraries that write and rename do
        elsewhere.write_bytes(b"after")
        elsewhere.replace(temporary)

    assert write_atomically(path, write, Path.read_bytes) == b"after"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert not seen[0] & ~(mode | 0o600), "unfinished, it is open to nobody else"


def test_a_link_leads_to_what_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_whole(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"is no regular file.*pipe"):
        write_whole(pipe, b"data")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.usefixtures("unsynced_folders")
def test_a_file_that_a_power_cut_may_lose_is_there_and_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UnsyncedError) as caught:
        write_whole(path, b"data")
    assert path.read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [path]
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    said = "written, but a power cut may lose it, since its folder could not be synced (Input/output error)"
    assert caught.value.strerror == said


def test_of_several_files_all_are_written_or_none_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b"
    write_all(folder, {"one": b"1"})
    real = files.write_whole

    def second_fails(path: Path, *parts: bytes) -> None:
        if path.name == "three":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, *parts)

    monkeypatch.setattr(files, "write_whole", second_fails)
    for where, left in ((folder, ["one"]), (tmp_path / "c" / "d", None)):
        with pytest.raises(OSError, match="No space"):
            write_all(where, {"one": b"1 again", "two": b"2", "three": b"3"})
        assert (sorted(path.name for path in where.iterdir()) if where.exists() else None) == left
    assert not (tmp_path / "c").exists()


def test_whether_a_folder_can_be_written_is_found_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    for bad in (tmp_path / "file", tmp_path / "file" / "below", "/proc/below"):
        with pytest.raises(OSError, match=r"."):
            check_writable(bad)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
