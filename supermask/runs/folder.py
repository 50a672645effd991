"""The folder of one run: its configuration, environment, metrics and results.

Files: `config.json`; `metrics.jsonl` and `ranks.jsonl`, a line an event, which are a function of the configuration
alone; `times.jsonl`, wall-clock times; checkpoints, masks, tickets; at the run's end `summary.json`, and where a
tracker was not told all `untold.json`.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from supermask.checks import SupermaskError
from supermask.files import UnsyncedError, missing, remove_empty, write_whole
from supermask.runs.environment import environment
from supermask.runs.records import CONFIG, METRICS, RANKS, TIMES, Record

_REPRODUCED = (METRICS, RANKS)


class RunFolderError(SupermaskError):
    """A run folder that cannot be written, may lose what was, or holds another run than the one asked for."""


class RunFolder:
    """Where a run writes. One process at a time has it.

    Args:
        path: the folder; it is made, with its parents. One that already holds a run is refused unless `resume`.
        resume: the folder may hold a run, to go on with.
        patience: seconds to wait for another process to let go of the folder: workers of a killed run outlive it a
            little.
        silent: write nothing: for the processes of a data-parallel run other than the first.

    Attributes:
        path: the folder.
        mirror: called with each event of the metrics, or None.

    Raises:
        RunFolderError: it cannot be written, holds another run, or is another process's.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, silent: bool = False, patience: float = 0.0) -> None:
        self.path = path = Path(path)
        self.silent = silent
        self.mirror: Callable[[Mapping[str, Any]], object] | None = None
        self._files: dict[str, IO[str]] = {}
        self._made: list[Path] = []  # folders, the innermost first
        self._fresh = False
        if silent:
            return
        try:
            self._made = missing(path)
            path.mkdir(parents=True, exist_ok=True)
            if not (path / METRICS).exists() and (found := next(path.iterdir(), None)):
                raise RunFolderError(f"run folder {path} holds {found.name} and is no run: name another folder")
            self._fresh = not (path / METRICS).exists()
            # Exclusive creation, so that two runs started at once cannot share a folder.
            (path / METRICS).open("a" if resume else "x").close()
            self._lock(patience)
            for left in path.rglob(".*.unfinished"):  # by a killed run; nobody else writes here
                left.unlink()
        except FileExistsError as error:
            if not path.is_dir():
                raise RunFolderError(f"run folder {path} is a file: name another folder") from error
            raise RunFolderError(
                f"run folder {path} already holds a run: go on with it (--resume), name another folder or remove it"
            ) from error
        except BlockingIOError as error:
            self.close()
            raise RunFolderError(f"run folder {path} is being written by another process: wait for it") from error
        except OSError as error:
            self.abandon()
            raise RunFolderError(f"cannot write run folder {path}: {error.strerror}; name a folder you own") from error
        except KeyboardInterrupt:
            self.abandon()
            raise

    @classmethod
    def next_free(cls, parent: str | Path, name: str) -> "RunFolder":
        """The folder `parent`/`name`-N with the lowest N that no run has."""
        number = 1
        while True:
            path = Path(parent) / f"{name}-{number}"
            try:
                return cls(path)
            except RunFolderError:
                if not path.exists():
                    raise
            number += 1

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the recipe's configuration and the environment, once, before training."""
        if self.silent:
            return
        made_in = environment(config.get("network", {}).get("name", ""))
        text = json.dumps({"recipe": config, "environment": made_in}, indent=2)
        self.write(CONFIG, (text + "\n").encode())

    def write(self, name: str, data: bytes) -> None:
        """Write the file `name` of the folder, whole or not at all."""
        if self.silent:
            return
        try:
            (self.path / name).parent.mkdir(exist_ok=True)
            write_whole(self.path / name, data)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def log(self, record: Record) -> None:
        """Append one event to the metrics, on disk when this returns."""
        event = record.to_event()
        self.append(METRICS, event, sync=True)
        if self.mirror:
            self.mirror(event)

    def log_ranks(self, record: Record) -> None:
        """Append one event to the score ranks, on disk when this returns."""
        self.append(RANKS, record.to_event(), sync=True)

    def log_time(self, record: Record) -> None:
        """Append one event to the wall-clock times."""
        self.append(TIMES, record.to_event(), sync=False)

    def append(self, name: str, event: Mapping[str, Any], *, sync: bool) -> None:
        """Append one event to the file `name`; with `sync` it is on disk when this returns."""
        if self.silent:
            return
        try:
            file = self._open(name)
            file.write(json.dumps(event, allow_nan=False) + "\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(name, error) from error

    def lengths(self) -> dict[str, int]:
        """Bytes of the files that a resumed run writes again, as a checkpoint remembers them."""
        return {name: self._open(name).tell() for name in _REPRODUCED} if not self.silent else {}

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Drop what was appended after a checkpoint that remembers `lengths`.

        Raises:
            RunFolderError: a file is shorter than that.
        """
        for name in _REPRODUCED if not self.silent else ():
            length = lengths.get(name, 0)
            file = self._open(name)
            if (found := file.tell()) < length:
                raise RunFolderError(
                    f"{self.path / name} has {found} bytes where its checkpoint saw {length}: the file was changed, "
                    "so the run cannot be resumed; begin it anew in another folder"
                )
            file.truncate(length)
            file.seek(length)

    def close(self) -> None:
        """Let others have the folder."""
        for file in self._files.values():
            fcntl.flock(file, fcntl.LOCK_UN)  # forked workers may still hold the file open
            with suppress(OSError):  # a full disk refuses the rest of a line again, and was reported then
                file.close()
        self._files.clear()

    def abandon(self) -> None:
        """Let others have the folder; where no run was begun in it, take away what was made of it."""
        if self._fresh and not (self.path / CONFIG).exists():
            for name in _REPRODUCED:
                with suppress(OSError):
                    (self.path / name).unlink()
        self.close()
        remove_empty(self._made)

    def _lock(self, patience: float) -> None:
        lock = self._open(METRICS)
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.seek(0, os.SEEK_END)  # whoever had it may have gone on writing
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
            time.sleep(0.1)

    def _open(self, name: str) -> IO[str]:
        if name not in self._files:
            file = (self.path / name).open("a")
            file.seek(0, os.SEEK_END)
            self._files[name] = file
        return self._files[name]

    def _unwritable(self, name: str, error: OSError) -> RunFolderError:
        if isinstance(error, UnsyncedError):
            return RunFolderError(f"{self.path / name} is {error.strerror}; mend the disk, then go on with --resume")
        return RunFolderError(
            f"cannot write {self.path / name}: {error.strerror}; make room or mend the disk, then go on with --resume"
        )
