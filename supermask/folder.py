"""A run's folder: its configuration, its metrics as JSON lines, its tickets."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class RunFolderError(OSError):
    """A run folder that cannot be written, or that holds another run."""


class RunFolder:
    """Where a run writes.

    Files: `config.json` (the recipe and the environment), `metrics.jsonl` (a line an event), and what stages export.

    Args:
        path: the folder; it is made, with its parents. One that already holds a run is refused.

    Raises:
        RunFolderError: it cannot be written or holds another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = path / "metrics.jsonl"
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Exclusive creation, so that two runs started at once cannot share a folder.
            self._metrics.open("x").close()
        except FileExistsError as error:
            if not path.is_dir():
                raise RunFolderError(f"run folder {path} is a file: name another folder") from error
            raise RunFolderError(f"run folder {path} already holds a run: name another folder or remove it") from error
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
        environment = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
        }
        text = json.dumps({"recipe": config, "environment": environment}, indent=2, default=str)
        (self.path / "config.json").write_text(text + "\n")

    def log(self, event: str, **values: Any) -> None:
        """Append one event to the metrics, on disk when this returns."""
        with self._metrics.open("a") as file:
            file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The events of a run folder, in order."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
