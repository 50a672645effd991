"""The table of resources as it is shown: which rows, in which columns, in the terminal and in docs/resources.

Of the configurations of one variant of a kernel, the one that the launcher calls start first stands for all.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from benchmarks.aot.about import ABOUT
from benchmarks.aot.stored import Row, Stored

__all__ = ["as_markdown", "as_table", "representatives"]


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
        "MISSING" if row["matrix_missing"] else matrix,
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
        wrong = row["spills"] or row["matrix_missing"]
        table.add_row(*_cells(row), *([row["config"]] if config else []), style="red" if wrong else None)
    return table


def as_markdown(stored: Stored) -> str:
    """docs/resources/triton-VERSION.md."""
    shown = representatives(stored.rows)
    table = f"triton-{stored.triton}.json"
    lines = [
        "# What each kernel costs, read from its machine code",
        "",
        f"Written by `python -m benchmarks.aot --write` with Triton {stored.triton}; no GPU was used and nothing here "
        "is a time. One configuration of each variant is shown; "
        f"[{table}]({table}) has all {len(stored.rows)}, and a test compiles them again where their sources "
        "changed, and compares. Moves between registers are instructions, and not integer ones.",
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
