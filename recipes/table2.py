"""Table 2 of the soft iEP paper: distributions of weights and scores against accuracy and dying ratio, at k = 0.7."""

from dataclasses import replace

from rich.console import Console

from supermask import Conversion, Digits, ep
from supermask.edges.draws import ScoreInit, WeightInit
from supermask.recipes._grid import (
    Experiment,
    Grid,
    command,
    markdown,
    run,
    show_plan,
    spread,
)
from supermask.recipes._settings import Mlp, Network, SmallConv4
from supermask.reports.lines import line
from supermask.runs.console import table

REMAINING = 0.3
DISTRIBUTIONS: tuple[tuple[WeightInit, ScoreInit], ...] = (
    ("scaled_signed_constant", "kaiming_uniform"),
    ("scaled_signed_constant", "kaiming_normal"),
    ("signed_constant", "kaiming_uniform"),
    ("kaiming_normal", "kaiming_uniform"),
)


def networks(grid: Grid) -> dict[str, Network | Mlp | SmallConv4]:
    """The two networks that are compared."""
    if grid.cycles is not None:
        raise ValueError(f"cycles={grid.cycles}: table2 runs one rate, {REMAINING}")
    if grid.data == "imagenet":
        raise ValueError("data=imagenet: the networks of table2 are for small images")
    if grid.data == "digits":
        return {"conv4": SmallConv4(), "mlp": Mlp()}
    return {"conv8": Network(name="conv8"), "resnet18": Network(name="resnet18")}


def main(grid: Grid) -> None:
    """Run EP with each pair of distributions on both networks, print accuracy and dying ratio, write table2.md."""
    setting = grid.setting()
    experiments = []
    for name, network in networks(grid).items():
        changed = replace(setting, network=network)
        if name == "conv4":
            training = setting.training if grid.lr else replace(setting.training, lr=0.1)
            changed = replace(changed, data=Digits(layout="image"), training=training)
        for weights, scores in DISTRIBUTIONS:
            conversion = Conversion(weights=weights, scores=scores)
            label = f"{weights}/{scores}/{name}"
            made = Experiment(label=label, name="ep", setting=changed, cycles=ep(REMAINING), conversion=conversion)
            experiments.append(made)
    if grid.dry_run:
        return show_plan(grid, experiments)
    console = Console()
    found = run(grid, experiments, console)
    columns = ["weights", "scores"]
    for name in networks(grid):
        columns += [f"{name} accuracy, %", f"{name} dying ratio, %"]
    rows = []
    for weights, scores in DISTRIBUTIONS:
        row: list[str] = [weights, scores]
        for name in networks(grid):
            (point,) = line(name, found[f"{weights}/{scores}/{name}"]).points
            for value in (point.mean("accuracy"), point.mean("dying")):
                row.append("" if value is None else spread(100 * value[0], 100 * value[1]))
        rows.append(row)
    title = f"{grid.data}: EP at {REMAINING:.0%} remaining, {grid.seeds} seeds"
    console.print(table(title, columns, rows, left=columns[:1]))
    console.print(f"wrote {grid.write('table2.md', markdown(columns, rows))}", highlight=False)


if __name__ == "__main__":
    command(main)
