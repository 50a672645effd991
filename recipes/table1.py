"""Table 1 of the soft iEP paper: the final dying ratio of EP against the prune rate k = 1 - remaining."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console

from supermask import EP, Digits, Training, shrinking
from supermask.recipes._grid import (
    Experiment,
    Grid,
    command,
    markdown,
    run,
    spread,
)
from supermask.recipes._plan import show_plan
from supermask.recipes._settings import SmallConv4
from supermask.reports import line
from supermask.runs import RunRecord, table

RATES = shrinking(0.2, 8)
PAPER = (0.028, 0.166, 0.293, 0.395, 0.479, 0.540, 0.606, 0.656)  # CIFAR-10, ResNet-18
NOT_YET = "not yet"


@dataclass(frozen=True, kw_only=True)
class Table1(Grid):
    """Which runs, how many, and where they go.

    Attributes:
        remaining: fractions of the edges kept, in place of the paper's eight; one that is the paper's to three digits
            stands for it, so that 0.512 and 0.21 are those of k = .488 and .79.
    """

    remaining: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remaining and self.cycles is not None:
            raise ValueError(
                f"cycles={self.cycles} and remaining={self.remaining}: either says which rates to run; leave one out"
            )
        names = [label(rate) for rate in self.rates]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"remaining={self.remaining}: {twice[0]} is there twice; name each rate once")

    @property
    def rates(self) -> tuple[float, ...]:
        """Of the rows."""
        return tuple(published(rate) or rate for rate in self.remaining) or RATES[: self.cycles]

    @property
    def known_rates(self) -> tuple[float, ...]:
        return RATES


def label(rate: float) -> str:
    """Of the runs at that rate."""
    return f"{rate:.4f}"


def published(remaining: float) -> float | None:
    """The paper's rate that is `remaining` to three digits, if there is one."""
    return next((rate for rate in RATES if round(rate, 3) == round(remaining, 3)), None)


def main(grid: Table1) -> None:
    """Run EP at each rate, print k, d and k - d beside the paper's; write table1.md and table1.json as runs end."""
    setting = grid.setting(Training(epochs=30, lr=0.1) if grid.data == "digits" else None)
    if grid.data == "digits" and not grid.network.name:
        setting = replace(setting, data=Digits(layout="image"), network=SmallConv4())
    experiments = [
        Experiment(label=label(rate), name="ep", setting=setting, method=EP(remaining=rate)) for rate in grid.rates
    ]
    if grid.dry_run:
        return show_plan(grid, experiments)
    console = Console()

    def write(runs: Mapping[str, Sequence[RunRecord]]) -> None:
        grid.write("table1.json", json.dumps(record(grid, runs), indent=1) + "\n")
        grid.write("table1.md", markdown(*rows(grid, runs)))

    columns, made = rows(grid, run(grid, experiments, console, write))
    console.print(table(f"{grid.data}: dying ratio of EP, {grid.seeds} seeds", columns, made, left=columns[:1]))
    console.print(f"wrote {grid.write('table1.md', markdown(columns, made))}", highlight=False)


def rows(grid: Table1, runs: Mapping[str, Sequence[RunRecord]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, of the runs that are finished; while some are not, a column says how many seeds are."""
    columns = ["k = 1 - remaining", "d", "k - d", "paper's d (CIFAR-10)", "paper's k - d", "test accuracy, %"]
    partly = any(len(finished) < grid.seeds for finished in runs.values())
    made = []
    for rate, finished in zip(grid.rates, runs.values(), strict=True):
        k, dying, explored, accuracy = f"{1 - rate:.3f}", NOT_YET, NOT_YET, NOT_YET
        if finished:
            found = measured(finished)
            k = f"{found['dying'][0] + found['explored'][0]:.3f}"
            dying, explored = spread(*found["dying"], 3), spread(*found["explored"], 3)
            mean, error = found["accuracy"]
            accuracy = spread(100 * mean, 100 * error)
        paper = dict(zip(RATES, PAPER, strict=True)).get(rate)
        beside = ["", ""] if paper is None else [f"{paper:.3f}", f"{1 - rate - paper:.3f}"]
        made.append([k, dying, explored, *beside, accuracy, *[f"{len(finished)} of {grid.seeds}"] * partly])
    return columns + ["seeds"] * partly, made


def measured(runs: Sequence[RunRecord]) -> dict[str, tuple[float, float]]:
    """Mean and standard error of dying ratio, k - d and test accuracy, over runs of one rate."""
    (point,) = line("EP", runs).points
    found = {"dying": point.mean("dying"), "explored": point.mean("explored"), "accuracy": point.mean("accuracy")}
    whole = {name: value for name, value in found.items() if value is not None}
    if len(whole) < len(found):
        raise ValueError(f"{runs[0].path}: a run without a cycle and its evaluation; remove it and begin again")
    return whole


def record(grid: Table1, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, Any]:
    """The table as JSON: each row's rate, the paper's dying ratio there, and what every finished run measured."""
    found = []
    for rate, finished in zip(grid.rates, runs.values(), strict=True):
        measures = "kept", "edges", "dying", "explored", "dead_units", "loss", "train_accuracy", "accuracy"
        seeds = [
            {"seed": run.seed, "folder": str(run.path), "epochs": len(run.epochs), "seconds": run.seconds}
            | {name: asdict(run.cycles[-1])[name] for name in (*measures, "recalibrated")}
            for run in finished
        ]
        paper = dict(zip(RATES, PAPER, strict=True)).get(rate)
        found.append({"remaining": rate, "paper": paper, "runs": seeds, "missing": grid.seeds - len(seeds)})
    return {"data": grid.data, "seeds": grid.seeds, "rows": found}


if __name__ == "__main__":
    command(main, Table1)
