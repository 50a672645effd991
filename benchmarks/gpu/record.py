"""The JSON file: a run a part, its cases as they end, the file whole at every moment.

    {"format": ..., "skipped": [...], "runs": [{"part", "began", "command", "environment", "settings", "ceilings",
                                                "cases": [{"case", "state", ...}], "counts", "seconds"}]}

`state` of a case: "measured", and where time did not suffice for all of it, what was "left out"; "failed", with its
error; "not run", and why; or "begun", where the process ended in it ("ended" of the run says how, if somebody saw it).
Numbers that are not finite are strings.
"""

import json
import math
from pathlib import Path
from typing import Any

from supermask.files import write_whole

__all__ = ["FORMAT", "RecordError", "Run", "last_counts", "note_end", "note_skipped"]

FORMAT = "supermask on a GPU, 1"


class RecordError(ValueError):
    """A file that holds something else."""


def _read(path: Path) -> dict[str, Any]:
    """What is there, or an empty record.

    Raises:
        RecordError: another kind of file.
    """
    if not path.exists() or not path.stat().st_size:
        return {"format": FORMAT, "skipped": [], "runs": []}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path} is no JSON ({error}): name another file, or move this one away") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        said = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise RecordError(f"{path} has the format {said!r}, not {FORMAT!r}: name another file, or move this one away")
    return found


def _write(path: Path, record: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(_finite(record), indent=1, allow_nan=False) + "\n").encode())


def _finite(value: Any) -> Any:
    """With numbers that JSON has not, and paths, as strings."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, Path) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def last_counts(path: Path, part: str) -> dict[str, int]:
    """What became of the cases of the run that began last, if it is of `part` and came to its end."""
    runs = _read(path)["runs"]
    found: dict[str, int] = runs[-1].get("counts", {}) if runs and runs[-1]["part"] == part else {}
    return found


def note_skipped(path: Path, why: str) -> None:
    """Say in a file that is not there yet that nothing ran; one that is there stays as it is.

    Raises:
        RecordError: another kind of file is there.
    """
    record = _read(path)
    if not path.exists():
        _write(path, record | {"skipped": [why]})


def note_end(path: Path, part: str, how: str) -> None:
    """Say of the run that began last how its process ended, where it could not say so itself.

    Raises:
        RecordError: another kind of file is there.
    """
    record = _read(path)
    if record["runs"] and record["runs"][-1]["part"] == part:
        record["runs"][-1]["ended"] = how
    else:
        record["runs"].append({"part": part, "ended": how, "cases": []})
    _write(path, record)


class Run:
    """One run of one part, kept in memory and, where there is a path, appended to the file there.

    Args:
        about: what it is a run of; its own keys of the JSON.

    Raises:
        RecordError: the path holds something else.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path = path
        self.said: dict[str, Any] = about | {"cases": []}
        self._before = None if path is None else _read(path)
        self.write()

    @property
    def cases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.said["cases"]
        return found

    def begin(self, name: str) -> None:
        """A case begins."""
        self.cases.append({"case": name, "state": "begun"})
        self.write()

    def end(self, state: str, **said: Any) -> None:
        """The case that began last ends."""
        self.cases[-1] |= {"state": state} | said
        self.write()

    def note(self, **said: Any) -> None:
        """More of the run itself."""
        self.said |= said
        self.write()

    def write(self) -> None:
        if self.path is not None and self._before is not None:
            _write(self.path, self._before | {"runs": [*self._before["runs"], self.said]})
