"""The folder of one run: its configuration, environment, metrics and results.

Files: `config.json`; `metrics.jsonl` and `ranks.jsonl`, a line an event, which are a function of the configuration
alone; `times.jsonl`, wall-clock times; checkpoints, masks, tickets.
"""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import torch

from supermask.files import write_whole
from supermask.methods.cycles import cycle_fields

REPRODUCED = ("metrics.jsonl", "ranks.jsonl")
_TIMES = "times.jsonl"


class RunFolderError(Exception):
    """A run folder that cannot be written, or holds another run than the one asked for."""


class Mirror(Protocol):
    """Takes each event of the metrics too."""

    def __call__(self, event: str, values: Mapping[str, Any]) -> None:
        """One event."""
        ...

    def close(self) -> None:
        """There are no more."""
        ...


class RunFolder:
    """Where a run writes. One process at a time has it.

    Args:
        path: the folder; it is made, with its parents. One that already holds a run is refused unless `resume`.
        resume: the folder may hold a run, to go on with.
        patience: seconds to wait for another process to let go of the folder: workers of a killed run outlive it a
            little.
        silent: write nothing: for the processes of a data-parallel run other than the first.

    Attributes:
        mirror: called with each event of the metrics, or None.

    Raises:
        RunFolderError: it cannot be written, holds another run, or is another process's.
    """

    def __init__(self, path: Path, *, resume: bool = False, silent: bool = False, patience: float = 0.0) -> None:
        self.path = path
        self.silent = silent
        self.mirror: Mirror | None = None
        self._files: dict[str, IO[str]] = {}
        if silent:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / REPRODUCED[0]).exists() and (found := next(path.iterdir(), None)):
                raise RunFolderError(f"run folder {path} holds {found.name} and is no run: name another folder")
            # Exclusive creation, so that two runs started at once cannot share a folder.
            (path / REPRODUCED[0]).open("a" if resume else "x").close()
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
            raise RunFolderError(f"cannot write run folder {path}: {error.strerror}; name a folder you own") from error

    @classmethod
    def next_free(cls, parent: Path, name: str) -> "RunFolder":
        """The folder `parent`/`name`-N with the lowest N that no run has."""
        number = 1
        while True:
            path = parent / f"{name}-{number}"
            try:
                return cls(path)
            except RunFolderError:
                if not path.exists():
                    raise
            number += 1

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the recipe's configuration and the environment, once, before training."""
        text = json.dumps({"recipe": config, "environment": environment()}, indent=2)
        self.write("config.json", (text + "\n").encode())

    def write(self, name: str, data: bytes) -> None:
        """Write the file `name` of the folder, whole or not at all."""
        if self.silent:
            return
        try:
            (self.path / name).parent.mkdir(exist_ok=True)
            write_whole(self.path / name, data)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def log(self, event: str, **values: Any) -> None:
        """Append one event to the metrics, on disk when this returns."""
        self._append(REPRODUCED[0], event, values, sync=True)
        if self.mirror:
            self.mirror(event, values)

    def log_ranks(self, event: str, **values: Any) -> None:
        """Append one event to the score ranks, on disk when this returns."""
        self._append(REPRODUCED[1], event, values, sync=True)

    def log_time(self, event: str, **values: Any) -> None:
        """Append one event to the wall-clock times."""
        self._append(_TIMES, event, values, sync=False)

    def lengths(self) -> dict[str, int]:
        """Bytes of the files that a resumed run writes again, as a checkpoint remembers them."""
        return {name: self._open(name).tell() for name in REPRODUCED} if not self.silent else {}

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Drop what was appended after a checkpoint that remembers `lengths`.

        Raises:
            RunFolderError: a file is shorter than that.
        """
        for name in REPRODUCED if not self.silent else ():
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
        if self.mirror:
            self.mirror.close()
        for file in self._files.values():
            fcntl.flock(file, fcntl.LOCK_UN)  # forked workers may still hold the file open
            with suppress(OSError):  # a full disk refuses the rest of a line again, and was reported then
                file.close()
        self._files.clear()

    def _lock(self, patience: float) -> None:
        lock = self._open(REPRODUCED[0])
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

    def _append(self, name: str, event: str, values: Mapping[str, Any], *, sync: bool) -> None:
        if self.silent:
            return
        try:
            file = self._open(name)
            file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _unwritable(self, name: str, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"cannot write {self.path / name}: {error.strerror}; make room or mend the disk, then go on with --resume"
        )


def environment() -> dict[str, Any]:
    """What the bits of a result depend on besides the configuration."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def changed_environment(path: Path) -> list[str]:
    """Where this environment is not the one a run was begun in: "threads was 2, is 1"."""
    began = json.loads((path / "config.json").read_text())["environment"]
    return differences(began, environment(), ())


def read_config(path: Path) -> dict[str, Any] | None:
    """The recipe's configuration in a run folder; None where the run ended before it was written."""
    file = path / "config.json"
    if not file.exists():
        return None
    recipe: dict[str, Any] = json.loads(file.read_text())["recipe"]
    for stage in recipe.get("stages", ()):
        if "cycle" in stage:
            stage["cycle"] = cycle_fields(stage["cycle"])
    return recipe


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The events of a run folder, in order."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def newest(parent: Path, name: str, config: Mapping[str, Any], besides: Sequence[str]) -> Path | None:
    """The run folder `parent`/`name`-N of the highest N with this configuration, `besides` these settings, if any."""
    numbers = (path.name.removeprefix(f"{name}-") for path in parent.glob(f"{name}-*"))
    for number in sorted((int(number) for number in numbers if number.isdecimal()), reverse=True):
        path = parent / f"{name}-{number}"
        began = read_config(path)
        if began is not None and not differences(began, config, besides):
            return path
    return None


def differences(began: Mapping[str, Any], config: Mapping[str, Any], besides: Sequence[str]) -> list[str]:
    """Where two configurations differ, `besides` these settings: "training.lr was 0.3, is 0.1"."""
    before, now = dict(_flat(began)), dict(_flat(config))
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before | now)
        if before.get(name) != now.get(name) and name not in besides
    ]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each plain value in nested mappings and lists, by its dotted name."""
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if entries is None or not value:
        yield name, value
        return
    for key, inner in entries:
        yield from _flat(inner, f"{name}.{key}" if name else str(key))
