"""Figure 3 of the soft iEP paper: accuracy against remaining for every row of its Table 3, and dense training."""

from dataclasses import replace

from rich.console import Console

from supermask.recipes._grid import (
    DENSE,
    EP,
    EP_LONG,
    ROWS,
    Grid,
    command,
    experiments,
    markdown,
    run,
    show_plan,
    spread,
)
from supermask.reports.figures import to_png
from supermask.reports.lines import Line, line
from supermask.reports.plots import accuracy_against_remaining
from supermask.runs.console import table

FIRST = (ROWS["soft iEP"], ROWS["hard iEP"], EP, EP_LONG, DENSE)  # in the colours that stand out
COMPARED = (*FIRST, *(row for row in ROWS.values() if row not in FIRST))
BEST = {"digits": (replace(EP_LONG, lr=0.03),)}  # EP's own best learning rate at this length, where one was looked for


def accuracies(lines: list[Line]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: test accuracy in %, mean and standard error over seeds, before batch-norm recalibration."""
    rates = sorted({round(point.remaining, 4) for drawn in lines if not drawn.dense for point in drawn.points})[::-1]
    rows = []
    for drawn in lines:
        found = {round(point.remaining, 4): point.mean("accuracy") for point in drawn.points}
        cells = [found.get(1.0)] + [None] * (len(rates) - 1) if drawn.dense else [found.get(rate) for rate in rates]
        rows.append([drawn.label, *("" if cell is None else spread(100 * cell[0], 100 * cell[1]) for cell in cells)])
    return ["method", *(f"{100 * rate:.3g} %" for rate in rates)], rows


def main(grid: Grid) -> None:
    """Run the grid, print the table, write figure3.png and figure3.md."""
    compared = experiments(grid.setting(), (*COMPARED, *BEST.get(grid.data, ())))
    if grid.dry_run:
        return show_plan(grid, compared)
    console = Console()
    lines = [line(label, runs) for label, runs in run(grid, compared, console).items()]
    columns, rows = accuracies(lines)
    title = f"{grid.data}: test accuracy in %, mean ± standard error of {grid.seeds} seeds (dense: all weights trained)"
    console.print(table(title, columns, rows, left=columns[:1]))
    grid.write("figure3.md", markdown(columns, rows))
    path = grid.write("figure3.png", to_png(accuracy_against_remaining(lines)))
    console.print(f"wrote {path} and figure3.md", highlight=False)


if __name__ == "__main__":
    command(main)
