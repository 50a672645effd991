"""Tables of resources in docs/resources/, one for each version of Triton that wrote one, which tests compare with.

A table is the compiler's as much as the kernels', so it belongs to a version of Triton. A row is a
`benchmarks.aot.resources.Resources` as a dictionary, with the case that started it (benchmarks/aot/cases.py).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.aot.about import ABOUT

__all__ = ["DOCS", "Key", "Row", "Stored", "key", "newest", "of_installed", "ordered", "path_of", "read", "regressions"]

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "resources"
COLUMNS = (
    "case", "kernel", "variant", "target", "config", "registers", "spills", "shared", "occupancy",
    "limited_by", "matrix", "matrix_kind", "matrix_missing", "per_edge", "integer_per_edge", "bytes_per_edge",
)  # fmt: skip
MARGIN, SLACK = 1.03, 0.05
"""Instructions an edge may exceed the committed ones by 3 %, or by a twentieth of an instruction where that is more."""

Row = dict[str, Any]
Key = tuple[str, str, str, str]


def key(row: Mapping[str, Any]) -> Key:
    """Which configuration of which kernel on which target a row is about."""
    return row["kernel"], row["variant"], row["target"], row["config"]


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Each configuration once, kernels in the order of `ABOUT`, and else in the order in which calls start them."""
    once: dict[Key, Row] = {}
    for row in rows:
        once.setdefault(key(row), row)
    place = {kernel: index for index, kernel in enumerate(ABOUT)}
    return sorted(once.values(), key=lambda row: place.get(row["kernel"], len(place)))


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One table."""

    triton: str
    """The version of Triton that compiled."""
    digests: dict[str, str]
    """By case, of the sources it was compiled from (benchmarks/aot/sources.py)."""
    rows: list[Row]
    """In the order of `ordered`."""

    def by_key(self) -> dict[Key, Row]:
        """The rows by `key`."""
        return {key(row): row for row in self.rows}

    def write(self, path: Path) -> None:
        """As JSON, a line a configuration."""
        head = {"triton": self.triton, "digests": self.digests, "columns": COLUMNS}
        lines = [json.dumps([row[name] for name in COLUMNS]) for row in self.rows]
        path.write_text(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(lines) + "\n]}\n")


def read(path: Path) -> Stored:
    """What `Stored.write` wrote."""
    said = json.loads(path.read_text())
    rows = [dict(zip(said["columns"], row, strict=True)) for row in said["rows"]]
    return Stored(triton=said["triton"], digests=said["digests"], rows=rows)


def path_of(triton: str) -> Path:
    """Where the table of a version of Triton lies, or would."""
    return FOLDER / f"triton-{triton}.json"


def newest() -> Stored:
    """The table of the newest Triton that has one."""

    def age(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.stem)]

    return read(max(FOLDER.glob("triton-*.json"), key=age))


def of_installed() -> Stored | None:
    """The table of the Triton installed here, if it has one."""
    path = path_of(version("triton"))
    return read(path) if path.exists() else None


def regressions(rows: Iterable[Row], committed: Mapping[Key, Row]) -> list[str]:
    """A sentence for each configuration that takes more instructions an edge than the committed table says."""
    found = []
    for row in rows:
        before = committed.get(key(row))
        for name in ("per_edge", "integer_per_edge"):
            if before is None or row[name] is None or before[name] is None:
                continue
            most = max(before[name] * MARGIN, before[name] + SLACK)
            if row[name] > most:
                found.append(
                    f"{' '.join(key(row))}: {name} is {row[name]}, committed {before[name]}, at most {most:.3f}"
                )
    return found
