"""Figure 4a of the soft iEP paper: edge-popup and soft iEP, each alone and with a supermask of three coats."""

from dataclasses import replace

from rich.console import Console

from supermask import Multicoated
from supermask.recipes._grid import (
    ROWS,
    Compared,
    Grid,
    accuracies,
    command,
    experiments,
    markdown,
    run,
)
from supermask.recipes._plan import show_plan
from supermask.reports import Line, accuracy_against_remaining, accuracy_curves, curves_table, line
from supermask.runs import table

# The paper takes the linear option: coats are measured in a first cycle of one coat.
COATED = (
    Compared(title="3-coated EP", name="multicoated", method=Multicoated(coats=3, spacing="linear", cycles=1)),
    Compared(
        title="3-coated soft iEP",
        name="multicoated_soft_iep",
        method=Multicoated(coats=3, spacing="linear", cycles=15, final=None),
    ),
)
COMPARED = (ROWS["EP"], ROWS["soft iEP"], *COATED)


def coated(drawn: Line) -> Line:
    """Without the cycle of one coat."""
    return replace(drawn, points=tuple(point for point in drawn.points if point.cycle > 1))


def main(grid: Grid) -> None:
    """Run the grid, print the table, write figure4a.png, figure4a.csv and figure4a.md."""
    compared = experiments(grid.setting(), COMPARED)
    if grid.dry_run:
        return show_plan(grid, compared)
    console = Console()
    found = run(grid, compared, console)
    lines = [line(row.label, found[row.label]) for row in COMPARED]
    lines = [coated(drawn) if row in COATED else drawn for row, drawn in zip(COMPARED, lines, strict=True)]
    columns, rows = accuracies(lines)
    title = f"{grid.data}: test accuracy in %, mean ± standard error of {grid.seeds} seeds"
    console.print(table(title, columns, rows, left=columns[:1]))
    grid.write("figure4a.md", markdown(columns, rows))
    numbers = curves_table(accuracy_curves(lines), "test accuracy (%)")
    wrote = grid.draw("figure4a", accuracy_against_remaining(lines), numbers)
    console.print(f"wrote {', '.join(map(str, wrote))} and figure4a.md", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    command(main, Grid)
