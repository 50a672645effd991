"""Table 2 of the soft iEP paper: distributions of weights and scores against accuracy and dying ratio, at k = 0.7."""

from dataclasses import replace

from rich.console import Console

from supermask import EP, Conversion, Digits, Network
from supermask.recipes._grid import (
    Experiment,
    Grid,
    command,
    markdown,
    run,
    spread,
)
from supermask.recipes._plan import show_plan
from supermask.recipes._settings import Mlp, SmallConv4
from supermask.reports import line
from supermask.runs import table

REMAINING = 0.3
DISTRIBUTIONS = (
    Conversion(weights="scaled_signed_constant", scores="kaiming_uniform"),
    Conversion(weights="scaled_signed_constant", scores="kaiming_normal"),
    Conversion(weights="signed_constant", scores="kaiming_uniform"),
    Conversion(weights="kaiming_normal", scores="kaiming_uniform"),
)


def networks(grid: Grid) -> dict[str, Network | Mlp | SmallConv4]:
    """The two networks that are compared."""
    if grid.cycles is not None:
        raise ValueError(f"cycles={grid.cycles}: table2 runs one rate, {REMAINING}")
    if grid.network.name is not None:
        raise ValueError(f"network.name={grid.network.name}: table2 compares two networks of its own; leave it out")
    if grid.data == "imagenet":
        raise ValueError("data=imagenet: the networks of table2 are for small images")
    if grid.data == "digits":
        return {"conv4": SmallConv4(), "mlp": Mlp()}
    return {"conv8": Network(name="conv8"), "resnet18": Network(name="resnet18")}


def label(drawn: Conversion, network: str) -> str:
    """Of the runs with these distributions on that network."""
    return f"{drawn.weights}/{drawn.scores}/{network}"


def main(grid: Grid) -> None:
    """Run EP with each pair of distributions on both networks, print accuracy and dying ratio, write table2.md."""
    setting = grid.setting()
    experiments = []
    for name, network in networks(grid).items():
        changed = replace(setting, network=network)
        if name == "conv4":
            training = setting.training if grid.lr else replace(setting.training, lr=0.1)
            changed = replace(changed, data=Digits(layout="image"), training=training)
        experiments += [
            Experiment(
                label=label(drawn, name), name="ep", setting=changed, method=EP(remaining=REMAINING), conversion=drawn
            )
            for drawn in DISTRIBUTIONS
        ]
    if grid.dry_run:
        return show_plan(grid, experiments)
    console = Console()
    found = run(grid, experiments, console)
    columns = ["weights", "scores"]
    for name in networks(grid):
        columns += [f"{name} accuracy, %", f"{name} dying ratio, %"]
    rows = []
    for drawn in DISTRIBUTIONS:
        row = [str(drawn.weights), str(drawn.scores)]
        for name in networks(grid):
            (point,) = line(name, found[label(drawn, name)]).points
            for value in (point.mean("accuracy"), point.mean("dying")):
                row.append("" if value is None else spread(100 * value[0], 100 * value[1]))
        rows.append(row)
    title = f"{grid.data}: EP at {REMAINING:.0%} remaining, {grid.seeds} seeds"
    console.print(table(title, columns, rows, left=columns[:1]))
    console.print(f"wrote {grid.write('table2.md', markdown(columns, rows))}", highlight=False)


if __name__ == "__main__":
    command(main, Grid)
