"""Soft iEP, hard iEP, EP and EP at equal compute on scikit-learn's digits: a table and a figure over several seeds."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from recipes import digits_ep, digits_ep_long, digits_hard_iep, digits_soft_iep
from recipes._digits import CYCLES, FINAL, TRAINING
from supermask.cycles import down_to
from supermask.folder import RunFolder, RunFolderError
from supermask.grid import Job, run_grid
from supermask.recipe import Recipe, RunOptions
from supermask.stages import CycleResult
from supermask.train import Training

METHODS = ("soft iEP", "hard iEP", "EP", "EP long", "EP long, lr 0.03")
Measured = dict[tuple[str, float], list[CycleResult]]


@dataclass(frozen=True, kw_only=True)
class Compare:
    """The comparison's size.

    Attributes:
        seeds: how many seeds, from 0.
        epochs: of one cycle.
        workers: runs at once; by default one a core.
        folder: where the runs, the table and the figure go; by default the next free runs/digits_compare-N.
    """

    seeds: int = 5
    epochs: int = TRAINING.epochs
    workers: int | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name, value in (("seeds", self.seeds), ("epochs", self.epochs), ("workers", self.workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least one")


def jobs(folder: Path, seeds: int, training: Training) -> list[tuple[str, Job]]:
    """Every run of the comparison, with its method: EP is one run a rate, iEP one run through all rates."""
    best = replace(training, lr=0.03)
    runs: list[tuple[str, str, Callable[..., Recipe], dict[str, Any]]] = [
        ("soft iEP", "soft", digits_soft_iep.recipe, {}),
        ("hard iEP", "hard", digits_hard_iep.recipe, {}),
        *(("EP", f"ep{rate:.4f}", digits_ep.recipe, {"remaining": rate}) for rate in down_to(FINAL, CYCLES)),
        ("EP long", "ep_long", digits_ep_long.recipe, {}),
        ("EP long, lr 0.03", "ep_long_best", digits_ep_long.recipe, {"training": best}),
    ]
    planned = []
    for seed, (method, label, recipe, changes) in product(range(seeds), runs):
        run = RunOptions(seed=seed, folder=folder / f"{label}-seed{seed}", device="cpu", quiet=True)
        planned.append((method, Job(recipe=recipe, arguments={"run": run, "training": training} | changes)))
    return planned


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the error of one value is NaN."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def table(measured: Measured, seeds: int) -> Table:
    """Test accuracy by rate and method, with standard errors, and final dying ratios."""
    out = Table(title=f"digits, test accuracy in %, mean +- standard error of {seeds} seeds; d: final dying ratio")
    for column in ("remaining", *METHODS, "d soft", "d hard", "d EP"):
        out.add_column(column, justify="right")
    for rate in sorted({rate for _, rate in measured}, reverse=True):
        cells = [f"{rate:.1%}"]
        for method in METHODS:
            runs = measured.get((method, rate), [])
            mean, error = mean_and_error([100 * (run.accuracy or 0.0) for run in runs]) if runs else (math.nan,) * 2
            spread = "" if math.isnan(error) else f" +- {error:.1f}"
            cells.append(f"{mean:.1f}{spread}" if runs else "")
        for method in METHODS[:3]:
            cells.append(f"{statistics.fmean(run.dying for run in measured[method, rate]):.3f}")
        out.add_row(*cells)
    return out


def draw(measured: Measured, path: Path) -> None:
    """Accuracy and dying ratio against remaining (log axis), with standard errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    looks = {
        "soft iEP": ("#d55e00", "o"),
        "hard iEP": ("#0072b2", "s"),
        "EP": ("#009e73", "^"),
        "EP long": ("#cc79a7", "D"),
        "EP long, lr 0.03": ("#000000", "v"),
    }
    for method, (colour, marker) in looks.items():
        rates = sorted(rate for m, rate in measured if m == method)
        for axes, value in ((left, lambda run: 100 * (run.accuracy or 0.0)), (right, lambda run: run.dying)):
            points = [mean_and_error([value(run) for run in measured[method, rate]]) for rate in rates]
            axes.errorbar(
                [100 * rate for rate in rates],
                [mean for mean, _ in points],
                yerr=[0.0 if math.isnan(error) else error for _, error in points],
                color=colour,
                marker=marker,
                capsize=3,
                label=method,
            )
    for axes, label in ((left, "test accuracy (%)"), (right, "final dying ratio")):
        axes.set_xscale("log", base=2)
        axes.invert_xaxis()
        ticks = [100 * rate for rate in down_to(FINAL, CYCLES)]
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.set_xlabel("remaining (% of edges)")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, dpi=150)


def main(compare: Compare) -> None:
    """Run the grid, print the table, write results.json and figure.png."""
    folder = RunFolder(compare.folder) if compare.folder else RunFolder.next_free(Path("runs"), "digits_compare")
    planned = jobs(folder.path, compare.seeds, replace(TRAINING, epochs=compare.epochs))
    console = Console(width=150)
    finished = run_grid([job for _, job in planned], compare.workers)
    results = dict(track(finished, "runs", total=len(planned), console=console))
    measured: Measured = defaultdict(list)
    for index, (method, _) in enumerate(planned):
        for cycle in results[index].cycles:
            measured[method, round(cycle.remaining, 4)].append(cycle)
        folder.log("run", folder=results[index].folder.name, method=method)
    console.print(table(measured, compare.seeds))
    rows = [
        {"method": method, "remaining": rate, "accuracy": [run.accuracy for run in runs],
         "recalibrated": [run.recalibrated for run in runs], "dying": [run.dying for run in runs],
         "dead_units": [sum(run.dead_units.values()) for run in runs]}
        for (method, rate), runs in sorted(measured.items())
    ]  # fmt: skip
    (folder.path / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(measured, folder.path / "figure.png")
    console.print(f"wrote {folder.path}/results.json and figure.png", highlight=False)


if __name__ == "__main__":
    import sys

    import tyro

    try:
        main(tyro.cli(Compare))
    except (ValueError, RunFolderError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
