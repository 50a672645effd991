"""Table 3 of the soft iEP paper: its rows, the function that makes each, their cycles, and what they reach."""

from collections.abc import Sequence

from rich.console import Console

from supermask import METHODS, Cycle, ep, shrinking
from supermask.recipes._grid import (
    EP,
    ROWS,
    Grid,
    command,
    experiments,
    markdown,
    run,
    show_plan,
    spread,
)
from supermask.reports.lines import line
from supermask.runs.console import table

SHOWN = shrinking(0.2, 3)
FUNCTIONS = {EP.label: "ep(rate)", **{label: f"{function.__name__}(rates)" for label, function in METHODS.items()}}


def in_words(cycles: Sequence[Cycle]) -> str:
    """Cycles as remaining, scores, lr and space, one after the other."""
    return "; ".join(
        f"{cycle.remaining:.3f} {cycle.start} {cycle.lr} {cycle.space}" + (f" x{cycle.length}" * (cycle.length > 1))
        for cycle in cycles
    )


def main(grid: Grid) -> None:
    """Run every row, print its cycles for p = 0.2 and its accuracy at the last three rates, write table3.md."""
    setting = grid.setting()
    compared = experiments(setting, list(ROWS.values()))
    if grid.dry_run:
        return show_plan(grid, compared)
    console = Console()
    found = run(grid, compared, console)
    rates = setting.rates[-3:]
    columns = ["algorithm", "function", "cycles for p = 0.2", *(f"{100 * rate:.3g} %" for rate in rates)]
    rows = []
    for label, function in FUNCTIONS.items():
        cycles = [c for rate in SHOWN for c in ep(rate)] if label == EP.label else METHODS[label](SHOWN)
        points = {round(point.remaining, 3): point.mean("accuracy") for point in line(label, found[label]).points}
        means = [points.get(round(rate, 3)) for rate in rates]
        cells = ["" if mean is None else spread(100 * mean[0], 100 * mean[1]) for mean in means]
        rows.append([label, f"`{function}`", in_words(cycles), *cells])
    console.print(table(f"{grid.data}: test accuracy in %, {grid.seeds} seeds", columns, rows, left=columns[:1]))
    console.print(f"wrote {grid.write('table3.md', markdown(columns, rows))}", highlight=False)


if __name__ == "__main__":
    command(main)
