"""Figure 5 of the soft iEP paper: (a) dying ratios of EP, hard iEP and soft iEP, (b) score ranks of 200 edges."""

from rich.console import Console

from supermask.recipes._grid import (
    ROWS,
    Grid,
    command,
    experiments,
    markdown,
    run,
    spread,
)
from supermask.recipes._plan import show_plan
from supermask.reports import curves_table, dying_against_remaining, dying_curves, line, rank_table, rank_traces
from supermask.runs import table

COMPARED = (ROWS["EP"], ROWS["hard iEP"], ROWS["soft iEP"])


def main(grid: Grid) -> None:
    """Run the grid, print the dying ratios, write figure5a and the score ranks of the first seed."""
    compared = experiments(grid.setting(), COMPARED)
    if grid.dry_run:
        return show_plan(grid, compared)
    console = Console()
    runs = run(grid, compared, console)
    lines = [line(label, found) for label, found in runs.items()]
    columns = [
        "remaining",
        "EP",
        "hard iEP, worst case",
        "hard iEP, apparent",
        "soft iEP",
        "EP accuracy, %",
        "hard iEP accuracy, %",
        "soft iEP accuracy, %",
    ]
    rows = []
    for points in zip(*(drawn.points for drawn in lines), strict=True):
        one, hard, soft = points
        dying = [one.mean("dying"), hard.mean("dying"), hard.mean("apparent"), soft.mean("dying")]
        accuracy = [point.mean("accuracy") for point in points]
        rows.append([
            f"{100 * one.remaining:.3g} %",
            *("" if value is None else spread(value[0], value[1], 3) for value in dying),
            *("" if value is None else spread(100 * value[0], 100 * value[1]) for value in accuracy),
        ])  # fmt: skip
    title = f"{grid.data}: final dying ratio of each cycle, and test accuracy in %, {grid.seeds} seeds"
    console.print(table(title, columns, rows, left=columns[:1]))
    wrote = [grid.write("figure5a.md", markdown(columns, rows))]
    numbers = curves_table(dying_curves(lines), "dying ratio")
    wrote += grid.draw("figure5a", dying_against_remaining(lines), numbers)
    for row in COMPARED[1:]:
        first = runs[row.label][0]
        wrote += grid.draw(f"figure5b_{row.name}", rank_traces(first), rank_table(first))
    console.print(f"wrote {', '.join(map(str, wrote))}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    command(main, Grid)
