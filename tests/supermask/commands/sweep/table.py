"""The table of docs/commands.md: a row a fault, and a column for all commands that take the faults alike."""

from collections.abc import Sequence
from pathlib import Path

from tests.places import ROOT
from tests.supermask.commands.sweep.columns import FAULTS
from tests.supermask.commands.sweep.rows import Row, rows

PAGE = ROOT / "docs" / "commands.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def with_table(page: str) -> str:
    """The page, with the table of these faults and commands between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


def table() -> str:
    """In Markdown, and below it which commands a column stands for."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows():
        alike.setdefault(statuses(row), []).append(row)
    heads = [heading(group) for group in alike.values()]
    lines = [["fault", *heads], ["---"] * (1 + len(heads))]
    lines += [[fault.name, *(column[number] for column in alike)] for number, fault in enumerate(FAULTS)]
    told = (f"- {head}: {listed(group)}" for head, group in zip(heads, alike.values(), strict=True))
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *told]) + "\n"


def statuses(row: Row) -> tuple[str, ...]:
    """What a command ends with, fault by fault: the sweep sees to it that it does."""
    return tuple("" if fault.given(row, Path("inputs")) is None else str(fault.status) for fault in FAULTS)


def heading(group: Sequence[Row]) -> str:
    """What the commands of a column have in common."""
    kinds = {row.kind for row in group}
    if kinds == {"recipe"}:
        return f"recipes on {', '.join(dict.fromkeys(row.data for row in group))}"
    if kinds == {"grid"}:
        return "grids"
    return ", ".join(dict.fromkeys(short(row) for row in group))


def listed(group: Sequence[Row]) -> str:
    return ", ".join(f"`{row.name}`" for row in group)


def short(row: Row) -> str:
    return row.name.removeprefix("supermask ").replace("--to ", "")
