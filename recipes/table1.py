"""Table 1 of the soft iEP paper: the final dying ratio of EP against the prune rate k = 1 - remaining."""

from dataclasses import replace

from rich.console import Console

from supermask import EP, Digits, Training, shrinking
from supermask.recipes._grid import (
    Experiment,
    Grid,
    command,
    markdown,
    run,
    show_plan,
    spread,
)
from supermask.recipes._settings import SmallConv4
from supermask.reports import line
from supermask.runs import table

RATES = shrinking(0.2, 8)
PAPER = (0.028, 0.166, 0.293, 0.395, 0.479, 0.540, 0.606, 0.656)  # CIFAR-10, ResNet-18


def main(grid: Grid) -> None:
    """Run EP at eight rates, print k, d and k - d beside the paper's, write table1.md."""
    setting = grid.setting(Training(epochs=30, lr=0.1) if grid.data == "digits" else None)
    if grid.data == "digits":
        setting = replace(setting, data=Digits(layout="image"), network=SmallConv4())
    rates = RATES[: grid.cycles]
    experiments = [
        Experiment(label=f"{rate:.4f}", name="ep", setting=setting, method=EP(remaining=rate)) for rate in rates
    ]
    if grid.dry_run:
        return show_plan(grid, experiments)
    console = Console()
    columns = ["k = 1 - remaining", "d", "k - d", "paper's d (CIFAR-10)", "paper's k - d", "test accuracy, %"]
    rows: list[list[str]] = []
    for paper, runs in zip(PAPER[: len(rates)], run(grid, experiments, console).values(), strict=True):
        (point,) = line("EP", runs).points
        dying, explored, accuracy = point.mean("dying"), point.mean("explored"), point.mean("accuracy")
        if dying is None or explored is None or accuracy is None:
            raise ValueError(f"{runs[0].path}: a run without a cycle and its evaluation; remove it and begin again")
        k = dying[0] + explored[0]
        rows.append([
            f"{k:.3f}",
            spread(*dying, 3),
            spread(*explored, 3),
            f"{paper:.3f}",
            f"{1 - RATES[len(rows)] - paper:.3f}",
            spread(100 * accuracy[0], 100 * accuracy[1]),
        ])  # fmt: skip
    console.print(table(f"{grid.data}: dying ratio of EP, {grid.seeds} seeds", columns, rows, left=columns[:1]))
    console.print(f"wrote {grid.write('table1.md', markdown(columns, rows))}", highlight=False)


if __name__ == "__main__":
    command(main)
