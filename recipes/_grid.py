"""What table1, table2, table3, figure3 and figure5 share: experiments on one data set, run over seeds, read back."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from supermask import (
    CIFAR10,
    CIFAR100,
    METHODS,
    SVHN,
    Conversion,
    Cycle,
    Data,
    Digits,
    Evaluate,
    Export,
    ImageFolder,
    Recipe,
    RunOptions,
    Train,
    Training,
    ep,
    ep_long,
    search,
)
from supermask.devices import meant
from supermask.files import write_whole
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
from supermask.runs.grid import Job, run_grid
from supermask.runs.main import told
from supermask.runs.read import RunRecord, read_run

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
        return meant(self.device)

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
class Compared:
    """A row of a table, or a line of a figure: a method, at all rates of a setting.

    Attributes:
        method: as the table calls it.
        name: of the recipe: runs of one name and one configuration are one run, whatever row asks for them.
        runs: cycles of each run, of the rates; no cycles are dense training.
        lr: the learning rate, if not the setting's.
    """

    method: str
    name: str
    runs: Callable[[Sequence[float]], list[tuple[Cycle, ...]]]
    lr: float | None = None

    @property
    def label(self) -> str:
        return self.method if self.lr is None else f"{self.method}, lr {self.lr:g}"


DENSE = Compared(method="dense", name="dense", runs=lambda rates: [()])
EP = Compared(method="EP", name="ep", runs=lambda rates: [ep(rate) for rate in rates])
# At the rate of cycle i for the epochs of i cycles; EP long for the epochs of one cycle is EP: one run for both.
EP_LONG = Compared(
    method="EP long", name="ep", runs=lambda rates: [ep_long(rates[:cycle]) for cycle in range(1, len(rates) + 1)]
)


def _through_all(method: str) -> Compared:
    """One run through all rates."""
    return Compared(method=method, name=method.lower().replace(" ", "_"), runs=lambda rates: [METHODS[method](rates)])


ROWS: Mapping[str, Compared] = {
    "EP": EP,
    **{method: EP_LONG if method == EP_LONG.method else _through_all(method) for method in METHODS},
}
"""The rows of Table 3: EP and EP long are a run a rate, the others one run through all rates."""


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


def experiments(setting: Setting, rows: Sequence[Compared]) -> list[Experiment]:
    """The runs of each row with `setting`, over all of its rates."""
    made = []
    for row in rows:
        training = setting.training if row.lr is None else replace(setting.training, lr=row.lr)
        changed = replace(setting, training=training)
        made += [
            Experiment(label=row.label, name=row.name, setting=changed, cycles=cycles)
            for cycles in row.runs(setting.rates)
        ]
    return made


def run(grid: Grid, experiments: Sequence[Experiment], console: Console) -> dict[str, list[RunRecord]]:
    """Run what is not done yet; the finished runs by label, in the order of the experiments."""
    jobs = [(experiment.label, experiment.job(grid, seed)) for experiment in experiments for seed in range(grid.seeds)]
    folders = {job.folder for _, job in jobs}
    missing = len({job.folder for _, job in jobs if not job.done})
    console.print(f"{len(folders)} runs in {grid.runs()}, {len(folders) - missing} of them done", highlight=False)
    with Progress(console=console, disable=not missing) as progress:
        bar = progress.add_task("runs", total=missing)
        workers = grid.workers or (None if grid.resolved_device() == "cpu" else 1)
        run_grid([job for _, job in jobs], workers, lambda _: progress.advance(bar))
    runs: dict[str, list[RunRecord]] = {}
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

    with told(ValueError):
        main(tyro.cli(Grid, description=main.__doc__))
