"""The table of resources: which rows it shows, how it is printed, and the copy in docs/ that tests compare with.

A row is a `benchmarks.aot.resources.Resources` as a dictionary. Of the configurations of one variant of a kernel, the
one that the launcher calls start first stands for all.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.aot.about import ABOUT

__all__ = [
    "DOCS", "as_markdown", "as_table", "key", "ordered", "read_json", "regressions", "representatives",
    "write_json",
]  # fmt: skip

DOCS = Path(__file__).parents[2] / "docs"
STORED = (
    "registers", "spills", "shared", "occupancy", "limited_by", "matrix", "matrix_kind", "per_edge",
    "integer_per_edge", "bytes_per_edge",
)  # fmt: skip
MARGIN, SLACK = 1.03, 0.05
"""Instructions an edge may exceed the committed ones by 3 %, or by a twentieth of an instruction where that is more."""

Row = dict[str, Any]


def key(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Which configuration of which kernel on which target a row is about."""
    return row["kernel"], row["variant"], row["target"], row["config"]


def representatives(rows: Iterable[Row]) -> list[Row]:
    """The first row of each kernel, variant and target; a kernel's targets side by side."""
    first: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        first.setdefault((row["kernel"], row["variant"], row["target"]), row)
    order: dict[tuple[str, str], list[Row]] = {}
    for row in first.values():
        order.setdefault((row["kernel"], row["variant"]), []).append(row)
    return [row for group in order.values() for row in group]


def _cells(row: Mapping[str, Any]) -> list[str]:
    def number(name: str, digits: int) -> str:
        return "" if row[name] is None else f"{row[name]:.{digits}f}"

    matrix = f"{row['matrix']} {row['matrix_kind']}" if row["matrix"] else ""
    return [
        row["kernel"],
        row["variant"],
        row["target"],
        str(row["registers"]),
        str(row["spills"]),
        str(row["shared"]),
        f"{row['occupancy']:.0%} {row['limited_by']}",
        "MISSING" if row.get("matrix_missing") else matrix,
        number("per_edge", 2),
        number("integer_per_edge", 2),
        number("bytes_per_edge", 3),
    ]


COLUMNS = {
    "kernel": "",
    "variant": "what tells configurations apart that have a row each",
    "target": "",
    "registers": "a thread",
    "spills": "bytes a thread keeps in memory for want of registers",
    "shared": "bytes of shared memory a program",
    "occupancy": "upper bound on resident warps over what a multiprocessor can hold, and what sets it",
    "matrix": "matrix instructions in the code, and their kind",
    "instructions": "an edge: those of the main loop (of the whole kernel, where it has none) that a warp issues, "
    "times the threads, over the edges of an iteration",
    "integer": "of these, integer arithmetic and logic of the vector units",
    "bytes": "of device memory an edge, from the algorithm",
}

TEXT = ("kernel", "variant", "target", "matrix")


def as_table(rows: Iterable[Row], *, config: bool) -> Table:
    """For the terminal; `config` adds what the compiler knew of each."""
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in TEXT else "right")
    if config:
        table.add_column("config", overflow="fold")
    last = None
    for row in rows:
        if last is not None and last != (row["kernel"], row["variant"]):
            table.add_section()
        last = row["kernel"], row["variant"]
        wrong = row["spills"] or row.get("matrix_missing")
        table.add_row(*_cells(row), *([row["config"]] if config else []), style="red" if wrong else None)
    return table


def as_markdown(rows: Iterable[Row], versions: Mapping[str, str]) -> str:
    """docs/resources.md."""
    all_rows = ordered(rows)
    shown = representatives(all_rows)
    lines = [
        "# What each kernel costs, read from its machine code",
        "",
        "Written by `python -m benchmarks.aot --write` with Triton "
        f"{versions['triton']} and torch {versions['torch']}; no GPU was used and nothing here is a time. "
        "One configuration of each variant is shown; "
        f"[resources.json](resources.json) has all {len(all_rows)}, and a test compiles them again and compares. Moves "
        "between registers are instructions, and not integer ones.",
        "",
        *(f"- **{name}**: {meaning}" for name, meaning in COLUMNS.items() if meaning),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'|'.join('---' if name in TEXT else '---:' for name in COLUMNS)}|",
        *(f"| {' | '.join(_cells(row))} |" for row in shown),
        "",
        "Bytes an edge:",
        "",
        *(
            f"- {kernel}: {ABOUT[kernel].bytes_are}"
            for kernel in dict.fromkeys(row["kernel"] for row in shown)
            if kernel in ABOUT
        ),
        "",
    ]
    return "\n".join(lines)


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Each configuration once, kernels in the order of `ABOUT`, and else in the order in which calls start them."""
    once: dict[tuple[str, ...], Row] = {}
    for row in rows:
        once.setdefault(key(row), row)
    place = {kernel: index for index, kernel in enumerate(ABOUT)}
    return sorted(once.values(), key=lambda row: place.get(row["kernel"], len(place)))


def write_json(path: Path, rows: Iterable[Row], versions: Mapping[str, str]) -> None:
    """docs/resources.json: a line a configuration."""
    lines = [json.dumps([*key(row), *(row[name] for name in STORED)]) for row in ordered(rows)]
    head = {**versions, "columns": ["kernel", "variant", "target", "config", *STORED]}
    path.write_text(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(lines) + "\n]}\n")


def read_json(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], Row]]:
    """What `write_json` wrote: its versions, and the rows by `key`."""
    said = json.loads(path.read_text())
    rows = [dict(zip(said["columns"], row, strict=True)) for row in said.pop("rows")]
    return said, {key(row): row for row in rows}


def regressions(rows: Iterable[Row], committed: Mapping[tuple[str, ...], Row]) -> list[str]:
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
