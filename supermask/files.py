"""Files written whole or not at all, whenever the machine stops."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from supermask.checks import SupermaskError

Found = TypeVar("Found")


class UnsyncedError(SupermaskError, OSError):
    """A file is whole and in its place, but a power cut may lose it; `strerror` says so of the file `filename`."""


def write_atomically(path: str | Path, write: Callable[[Path], object], check: Callable[[Path], Found]) -> Found:
    """Have `write` fill a file beside `path`, check it, and put it in the place of `path` in one step, with the mode of
    the file that was there; what `check` returns.

    Raises:
        UnsyncedError: it is written, and its folder could not be synced.
        OSError: it cannot be written, or `path` is there and no regular file. `path` is then as it was, as it is when
            `write` or `check` raise.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    try:
        before = path.stat().st_mode
    except FileNotFoundError:
        before = None
    if before is not None and stat.S_ISDIR(before):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if before is not None and not stat.S_ISREG(before):
        what = "is no regular file, and would be replaced by one: write elsewhere, or to a file object"
        raise FileExistsError(errno.EEXIST, what, str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.unfinished")  # two processes may write one file
    allowed = 0o666 if before is None else stat.S_IMODE(before) | 0o600  # no more for others, not for a moment
    try:
        # Where nothing can be written this fails, before what is written is made.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, allowed))
        mode = temporary.stat().st_mode if before is None else before
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        found = check(temporary)
        temporary.chmod(stat.S_IMODE(mode))  # what was written may have come by renaming a file of another mode
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path)
    return found


def write_whole(path: str | Path, *parts: bytes | memoryview) -> None:
    """Write `path` so that it holds all `parts`, or what it held before.

    Raises:
        UnsyncedError: it is written, and its folder could not be synced.
        OSError: a full disk, a missing folder; nothing is left behind.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)

    write_atomically(path, write, lambda _: None)


def write_all(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write files, by name, into a folder, which is made where there is none; each of them whole. Where one cannot be
    written, those that were not there before are gone again, as is the folder.

    Raises:
        UnsyncedError: all up to this one are written, and stay.
        OSError: one cannot be written.
    """
    folder = Path(folder)
    made = missing(folder)
    new = [folder / name for name in files if not os.path.lexists(folder / name)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except UnsyncedError:
        raise
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.unlink()
        remove_empty(made)
        raise


def check_writable(folder: str | Path) -> None:
    """Raise OSError where no file can be made in `folder`, be it there or still to be made. Nothing is left."""
    folder = Path(folder)
    made = missing(folder)
    probe = folder / f".{secrets.token_hex(8)}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    finally:
        with suppress(OSError):
            probe.unlink()
        remove_empty(made)


def missing(path: Path) -> list[Path]:
    """The folders of `path` that are not there, the innermost first."""
    return [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those that are empty, one after the other."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _sync_folder(path: Path) -> None:
    """Make the new name last through a power cut, on file systems that can."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            what = f"written, but a power cut may lose it, since its folder could not be synced ({error.strerror})"
            raise UnsyncedError(error.errno, what, str(path)) from error
