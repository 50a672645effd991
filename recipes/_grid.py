"""What table1, table2, table3, figure3 and figure5 share: experiments on one data set, run over seeds, read back."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from supermask.data.base import Data, DataMissing
from supermask.data.digits import Digits
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10, CIFAR100, SVHN
from supermask.files import write_whole
from supermask.methods import METHODS
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import ep
from supermask.recipes._settings import (
    DIGITS,
    DIGITS_RATES,
    IMAGENET,
    IMAGENET_RATES,
    RESNET18,
    SMALL_IMAGES,
    SMALL_IMAGES_RATES,
    WIDE_RESNET50,
    Mlp,
    Network,
    SmallConv4,
)
from supermask.runs.folder import RunFolderError
from supermask.runs.grid import GridError, Job, run_grid
from supermask.runs.interrupts import Interrupted
from supermask.runs.options import Conversion, RecipeError, RunOptions
from supermask.runs.read import Run, read_run
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Evaluate, Export, Train, search
from supermask.training.non_finite import NonFiniteError
from supermask.training.training import Training

DataName = Literal["digits", "cifar10", "cifar100", "svhn", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a grid runs with on one data set.

    Attributes:
        data, network, training: of every run.
        rates: remaining, cycle by cycle.
    """

    data: Data
    network: Network | Mlp | SmallConv4
    training: Training
    rates: tuple[float, ...]


SETTINGS: Mapping[DataName, Setting] = {
    "digits": Setting(data=Digits(), network=Mlp(), training=DIGITS, rates=DIGITS_RATES),
    "cifar10": Setting(data=CIFAR10(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES),
    "cifar100": Setting(data=CIFAR100(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES),
    "svhn": Setting(data=SVHN(), network=RESNET18, training=SMALL_IMAGES, rates=SMALL_IMAGES_RATES),
    "imagenet": Setting(data=ImageFolder(), network=WIDE_RESNET50, training=IMAGENET, rates=IMAGENET_RATES),
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which runs, how many, and where they go.

    Attributes:
        data: the data set; each has its own network and schedule.
        seeds: how many seeds, from 0.
        root: folder of the data set, if not its usual one.
        epochs: of one cycle; by default the setting's, as for the three below.
        lr: learning rate at its highest.
        weight_decay: of the scores.
        cycles: how many of the setting's cycles.
        folder: where the runs are, one folder each; by default runs/DATA. Runs that are there are not run again.
        out: where the table or figure goes; by default the same folder.
        workers: runs at once; by default one a core, and one on a GPU.
        device: where each run happens; by default the GPU if there is one.
        dry_run: print the plan of every experiment, and run nothing.
    """

    data: DataName = "digits"
    seeds: int = 5
    root: Path | None = None
    epochs: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    cycles: int | None = None
    folder: Path | None = None
    out: Path | None = None
    workers: int | None = None
    device: str = "auto"
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, value in (("seeds", self.seeds), ("workers", self.workers), ("cycles", self.cycles)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least one")
        known = len(SETTINGS[self.data].rates)
        if self.cycles is not None and self.cycles > known:
            raise ValueError(f"cycles={self.cycles}: {self.data} has {known}")

    def setting(self, training: Training | None = None) -> Setting:
        """The data set's setting (with another schedule, if given), changed as the options say."""
        setting = SETTINGS[self.data]
        named = {"epochs": self.epochs, "lr": self.lr, "weight_decay": self.weight_decay}
        changes = {name: value for name, value in named.items() if value is not None}
        data = setting.data
        if self.root is not None:
            if not hasattr(data, "root"):
                raise ValueError(f"root={self.root}: {self.data} comes with scikit-learn and needs no folder")
            data = replace(data, root=self.root)  # type: ignore[type-var]
        return replace(
            setting,
            data=data,
            training=replace(training or setting.training, **changes),  # type: ignore[arg-type]
            rates=setting.rates[: self.cycles],
        )

    def resolved_device(self) -> str:
        """The device that "auto" stands for here, so that runs of two devices are not taken for each other."""
        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device

    def runs(self) -> Path:
        """Parent of the run folders."""
        return self.folder or Path("runs") / self.data

    def write(self, name: str, data: str | bytes) -> Path:
        """Write one file of results."""
        folder = self.out or self.runs()
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, data.encode() if isinstance(data, str) else data)
        return folder / name


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A configuration that is run once a seed.

    Attributes:
        label: the row or line it belongs to.
        name: of the recipe.
        setting: data, network and schedule.
        cycles: of the search; none trains densely.
        conversion: how the network is made searchable.
    """

    label: str
    name: str
    setting: Setting
    cycles: tuple[Cycle, ...] = ()
    conversion: Conversion = field(default_factory=Conversion)

    def job(self, grid: Grid, seed: int) -> Job:
        """Its run with one seed."""
        arguments = {
            "name": f"{grid.data}_{self.name}",
            "data": self.setting.data,
            "network": self.setting.network,
            "training": self.setting.training,
            "cycles": self.cycles,
            "conversion": self.conversion,
        }
        run = RunOptions(seed=seed, device=grid.resolved_device())
        return Job(recipe=recipe, arguments=arguments, run=run, parent=grid.runs())


def recipe(
    name: str,
    data: Data,
    network: Network | Mlp | SmallConv4,
    training: Training,
    cycles: tuple[Cycle, ...],
    conversion: Conversion,
    run: RunOptions,
) -> Recipe:
    """A search through `cycles`, or dense training where there are none."""
    dense = Train(), Evaluate(recalibrate=False)
    return Recipe(
        name=name,
        data=data,
        network=network,
        training=training,
        conversion=conversion,
        stages=(*search(cycles), Export()) if cycles else dense,
        run=run,
    )


def methods(setting: Setting, labels: Sequence[str]) -> list[Experiment]:
    """Rows of Table 3 by label: EP and EP long are a run a rate, the others one run through all rates.

    EP long at the rate of cycle i takes the epochs of i cycles; a label may end in ", lr X" for another learning rate.
    """
    made = []
    for label in labels:
        method, _, lr = label.partition(", lr ")
        changed = replace(setting, training=replace(setting.training, lr=float(lr))) if lr else setting
        runs: list[tuple[Cycle, ...]]
        if method == "dense":
            runs = [()]
        elif method == "EP":
            runs = [ep(rate) for rate in setting.rates]
        elif method == "EP long":
            runs = [METHODS[method](setting.rates[:cycle]) for cycle in range(1, len(setting.rates) + 1)]
        elif method in METHODS:
            runs = [METHODS[method](setting.rates)]
        else:
            raise ValueError(f"method {method!r}: expected dense, EP or one of {', '.join(METHODS)}")
        # EP long for the epochs of one cycle is EP: one run for both.
        name = "ep" if method == "EP long" else method.lower().replace(" ", "_")
        made += [Experiment(label=label, name=name, setting=changed, cycles=cycles) for cycles in runs]
    return made


def run(grid: Grid, experiments: Sequence[Experiment], console: Console) -> dict[str, list[Run]]:
    """Run what is not done yet; the finished runs by label, in the order of the experiments."""
    jobs = [(experiment.label, experiment.job(grid, seed)) for experiment in experiments for seed in range(grid.seeds)]
    folders = {job.folder for _, job in jobs}
    missing = len({job.folder for _, job in jobs if not job.done})
    console.print(f"{len(folders)} runs in {grid.runs()}, {len(folders) - missing} of them done", highlight=False)
    with Progress(console=console, disable=not missing) as progress:
        bar = progress.add_task("runs", total=missing)
        workers = grid.workers or (None if grid.resolved_device() == "cpu" else 1)
        run_grid([job for _, job in jobs], workers, lambda _: progress.advance(bar))
    runs: dict[str, list[Run]] = {}
    for label, job in jobs:
        runs.setdefault(label, []).append(read_run(job.folder))
    return runs


def show_plan(grid: Grid, experiments: Sequence[Experiment]) -> None:
    """Print what each experiment would do; all seeds do the same."""
    for experiment in experiments:
        print(f"\n{experiment.label}, {grid.seeds} seeds")
        experiment.job(grid, 0).make(dry_run=True).execute()
    every = [experiment.job(grid, seed) for experiment in experiments for seed in range(grid.seeds)]
    jobs = {job.folder: job for job in every}
    done = sum(job.done for job in jobs.values())
    epochs = sum(stage.epochs(made.training) for made in (job.make() for job in jobs.values()) for stage in made.stages)
    print(f"\n{len(jobs)} runs in {grid.runs()}, {done} of them done; {epochs:,} epochs in all")


def rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The first column is left-aligned, the others right-aligned."""
    made = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(mean: float, error: float, digits: int = 1) -> str:
    """ "96.1 ± 0.2"; without the error where there was one seed."""
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if not math.isnan(error) else "")


def command(main: Callable[[Grid], None]) -> None:
    """Command line of a grid; exits with 2 and one sentence where data, folder or an argument is at fault."""
    import tyro

    try:
        main(tyro.cli(Grid, description=main.__doc__))
    except (ValueError, RecipeError, DataMissing, RunFolderError, GridError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except NonFiniteError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except Interrupted as stop:
        print(f"{stop}; the runs in progress have saved: give the same command to go on", file=sys.stderr)
        sys.exit(128 + stop.signal)
