"""Figure 3 of the soft iEP paper: accuracy against remaining for every row of its Table 3, and dense training."""

from dataclasses import replace

from rich.console import Console

from supermask.recipes._grid import (
    DENSE,
    TABLE_3,
    accuracies,
    command,
    markdown,
    run,
)
from supermask.recipes._picking import PickingGrid
from supermask.recipes._plan import show_plan
from supermask.reports import accuracy_against_remaining, accuracy_curves, curves_table, line
from supermask.runs import table

# The first are in the colours that stand out.
FIRST = (*(TABLE_3[label] for label in ("soft iEP", "hard iEP", "EP", "EP long")), DENSE)
COMPARED = (*FIRST, *(row for row in TABLE_3.values() if row not in FIRST))
# EP's own best learning rate at this length, where one was looked for.
BEST = {"digits": (replace(TABLE_3["EP long"], lr=0.03),)}


def main(grid: PickingGrid) -> None:
    """Run the grid, print the table, write figure3.png, figure3.csv and figure3.md."""
    shown = COMPARED if grid.lrs else (*COMPARED, *BEST.get(grid.data, ()))
    compared = grid.experiments(shown)
    if grid.dry_run:
        return show_plan(grid, compared)
    console = Console()
    lines = [line(label, runs) for label, runs in grid.picked(shown, run(grid, compared, console)).values()]
    columns, rows = accuracies(lines)
    title = f"{grid.data}: test accuracy in %, mean ± standard error of {grid.seeds} seeds (dense: all weights trained)"
    console.print(table(title, columns, rows, left=columns[:1]))
    grid.write("figure3.md", markdown(columns, rows))
    numbers = curves_table(accuracy_curves(lines), "test accuracy (%)")
    wrote = grid.draw("figure3", accuracy_against_remaining(lines), numbers)
    console.print(f"wrote {', '.join(map(str, wrote))} and figure3.md", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    command(main, PickingGrid)
