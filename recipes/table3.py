"""Table 3 of the soft iEP paper: its rows, the method of each, their cycles, and what they reach."""

from collections.abc import Sequence
from dataclasses import fields

from rich.console import Console

from supermask import Cycle, Method, shrinking
from supermask.recipes._grid import (
    TABLE_3,
    at_rates,
    command,
    markdown,
    run,
    spread,
)
from supermask.recipes._picking import PickingGrid
from supermask.recipes._plan import show_plan
from supermask.reports import line
from supermask.runs import table

SHOWN = shrinking(0.2, 3)


def in_python(method: Method) -> str:
    """What makes `method`, its rates apart."""
    values = {one.name: (getattr(method, one.name), one.default) for one in fields(method)}
    given = ", ".join(f"{name}={value!r}" for name, (value, default) in values.items() if value != default)
    return f"{type(method).__name__}({given})"


def longest(method: Method) -> list[Cycle]:
    """Its cycles at the rates that are shown: of the run that takes the epochs of all, or else of a run a rate."""
    runs = [run.phases() for run in at_rates(method, SHOWN)]
    takes_all = sum(cycle.length for cycle in runs[-1]) == len(SHOWN)
    return list(runs[-1]) if takes_all else [cycle for cycles in runs for cycle in cycles]


def in_words(cycles: Sequence[Cycle]) -> str:
    """Cycles as remaining, scores, lr and space, one after the other."""
    return "; ".join(
        f"{cycle.remaining:.3f} {cycle.start} {cycle.lr} {cycle.space}" + (f" x{cycle.length}" * (cycle.length > 1))
        for cycle in cycles
    )


def main(grid: PickingGrid) -> None:
    """Run every row, print its cycles for p = 0.2 and its accuracy at the last three rates, write table3.md."""
    setting = grid.setting()
    compared = grid.experiments(list(TABLE_3.values()))
    if grid.dry_run:
        return show_plan(grid, compared)
    console = Console()
    found = grid.picked(list(TABLE_3.values()), run(grid, compared, console))
    rates = setting.rates[-3:]
    columns = ["algorithm", "method", "cycles for p = 0.2", *(f"{100 * rate:.3g} %" for rate in rates)]
    rows = []
    for label, row in TABLE_3.items():
        if row.method is None:
            raise ValueError(f"{label}: Table 3 compares searches")
        points = {round(point.remaining, 3): point.mean("accuracy") for point in line(*found[label]).points}
        means = [points.get(round(rate, 3)) for rate in rates]
        cells = ["" if mean is None else spread(100 * mean[0], 100 * mean[1]) for mean in means]
        rows.append([found[label][0], f"`{in_python(row.method)}`", in_words(longest(row.method)), *cells])
    console.print(table(f"{grid.data}: test accuracy in %, {grid.seeds} seeds", columns, rows, left=columns[:1]))
    console.print(f"wrote {grid.write('table3.md', markdown(columns, rows))}", highlight=False)


if __name__ == "__main__":
    command(main, PickingGrid)
