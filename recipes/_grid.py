"""What the tables and figures share: experiments on one data set, run over seeds, read back."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.console import Console
from rich.progress import Progress

from supermask import (
    EP,
    IEP,
    METHODS,
    Conversion,
    Cycle,
    Data,
    Digits,
    EPLong,
    Evaluate,
    Export,
    Method,
    Network,
    Recipe,
    RunOptions,
    Shuffled,
    SupermaskError,
    Train,
    Training,
    Validation,
    search,
)
from supermask.recipes._experiment import suited
from supermask.recipes._settings import (
    NO_VALIDATION,
    SETTINGS,
    USUAL_NETWORK,
    DataName,
    Mlp,
    Other,
    Setting,
    SmallConv4,
    layout_for,
)
from supermask.reports import Format, Line, Table, picture_files
from supermask.runs import (
    GridError,
    Job,
    RunRecord,
    check_choice,
    check_writable,
    cores,
    meant,
    name_of,
    parsed,
    program,
    read_run,
    run_grid,
    told,
    write_whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which runs, how many, and where they go.

    Attributes:
        data: the data set; each has its own network and schedule.
        seeds: how many seeds, from 0.
        root: folder of the data set, if not its usual one.
        epochs: of one cycle; by default the setting's, as for the four below.
        lr: learning rate at its highest.
        weight_decay: of the scores.
        precision: dtype of weights and activations.
        cycles: how many of the rates, the setting's or the grid's own, from the first.
        compile: run the network through torch.compile.
        capture: take each step as one launch of a CUDA graph.
        folder: where the runs are, one folder each; by default runs/DATA. Runs that are there are not run again.
        out: where the table or figure goes; by default the same folder.
        workers: runs at once; by default one a core, and one on a GPU.
        device: where each run happens; by default the GPU if there is one.
        network: another network than the data set's own.
        format: of the figures: several can be named; the numbers of each are written as CSV too.
        dry_run: print the plan of every experiment and the time that all take, and write nothing.
    """

    data: DataName = "digits"
    seeds: int = 5
    root: Path | None = None
    epochs: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    cycles: int | None = None
    compile: bool = False
    capture: bool = False
    folder: Path | None = None
    out: Path | None = None
    workers: int | None = None
    device: str = "auto"
    network: Other = USUAL_NETWORK
    format: tuple[Format, ...] = ("png",)
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("root", "folder", "out"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))  # a string will do
        for name, value in (("seeds", self.seeds), ("workers", self.workers), ("cycles", self.cycles)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least one")
        for one in self.format:
            check_choice("format", one, Format)
        known = len(self.known_rates)
        if self.cycles is not None and self.cycles > known:
            raise ValueError(f"cycles={self.cycles}: on {self.data} there are {known}")

    @property
    def known_rates(self) -> tuple[float, ...]:
        """Those that `cycles` counts, from the first: the setting's; of a grid that has its own, these."""
        return SETTINGS[self.data].rates

    def setting(self, training: Training | None = None) -> Setting:
        """The data set's setting (with another schedule, if given), changed as the options say."""
        setting = SETTINGS[self.data]
        named = "epochs", "lr", "weight_decay", "precision"
        changes = {name: value for name in named if (value := getattr(self, name)) is not None}
        changes |= {name: True for name in ("compile", "capture") if getattr(self, name)}
        data = setting.data
        if self.root is not None:
            if not hasattr(data, "root"):
                raise ValueError(f"root={self.root}: {self.data} comes with scikit-learn and needs no folder")
            data = replace(data, root=self.root)  # type: ignore[type-var]
        network = self.network.made()
        if network and isinstance(data, Digits):
            data = replace(data, layout=layout_for(network, data))
        return replace(
            setting,
            data=data,
            network=network or setting.network,
            training=replace(training or setting.training, **changes),
            rates=self.known_rates[: self.cycles],
        )

    def resolved_device(self) -> str:
        """The device that "auto" stands for here, so that runs of two devices are not taken for each other."""
        return meant(self.device)

    def at_once(self) -> int:
        """How many runs go on at once."""
        return self.workers or (cores() if self.resolved_device() == "cpu" else 1)

    def runs(self) -> Path:
        """Parent of the run folders."""
        return self.folder or Path("runs") / self.data

    def results(self) -> Path:
        """Where tables and figures go."""
        return self.out or self.runs()

    def check(self) -> None:
        """Raise GridError where tables and figures could not be written, before anything is run for them."""
        try:
            check_writable(self.results())
        except OSError as error:
            raise self._unwritable(self.results(), error) from error

    def write(self, name: str, data: str | bytes) -> Path:
        """Write one file of results."""
        path = self.results() / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data.encode() if isinstance(data, str) else data)
        except OSError as error:
            if isinstance(error, SupermaskError):  # written, but
                raise
            raise self._unwritable(path, error) from error
        return path

    def draw(self, name: str, figure: "Figure", numbers: Table) -> list[Path]:
        """Write a figure in every format asked for, and its numbers."""
        return [self.write(file, data) for file, data in picture_files(name, figure, numbers, self.format).items()]

    def _unwritable(self, path: Path, error: OSError) -> GridError:
        return GridError(
            f"cannot write {path}: {error.strerror}; name another folder with --out: runs are not repeated"
        )


Options = TypeVar("Options", bound=Grid)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A row of a table, or a line of a figure: a method, at all rates of a setting.

    Attributes:
        title: as the table calls it.
        name: of the recipe: runs of one name and one configuration are one run, whatever row asks for them.
        method: at whatever rates; None is dense training.
        lr: the learning rate, if not the setting's.
    """

    title: str
    name: str
    method: Method | None
    lr: float | None = None

    @property
    def label(self) -> str:
        return self.title if self.lr is None else f"{self.title}, lr {self.lr:g}"

    def runs(self, setting: Setting) -> Sequence[Method | None]:
        """The method of each run that it takes."""
        return [None] if self.method is None else at_rates(suited(self.method, setting.methods), setting.rates)


def at_rates(method: Method, rates: Sequence[float]) -> list[Method]:
    """`method` once for each run that it takes to measure it at all of `rates`: an iteration goes through them."""
    has = {one.name: getattr(method, one.name) for one in fields(method)}
    given: list[dict[str, Any]]
    if isinstance(method, EPLong | Shuffled):  # at the rate of cycle i, after the epochs of i cycles
        given = [{"given": tuple(rates[:cycle])} for cycle in range(1, len(rates) + 1)]
    elif "remaining" in has:
        given = [{"remaining": rate} for rate in rates]
    elif has.get("cycles") == 1:
        given = [{"given": (rate,)} for rate in rates]
    elif "given" in has:
        given = [{"given": tuple(rates)}]
    else:
        raise ValueError(f"{method}: a method without rates has no place in a grid over them")
    return [replace(method, **changes) for changes in given]


DENSE = Compared(title="dense", name="dense", method=None)
ROWS: Mapping[str, Compared] = {
    # EP long for the epochs of one cycle is EP: one name, and one run for both.
    label: Compared(title=label, name="ep" if type(method) is EPLong else name_of(label), method=method)
    for label, method in METHODS.items()
}
TABLE_3: Mapping[str, Compared] = {label: row for label, row in ROWS.items() if type(row.method) in (EP, EPLong, IEP)}
"""Edge-popup, and its iterations in cycles of every kind."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A configuration that is run once a seed.

    Attributes:
        label: the row or line it belongs to.
        name: of the recipe.
        setting: data, network and schedule.
        method: of the search; None trains densely.
        conversion: how the network is made searchable.
        validation: evaluation on held-out images.
    """

    label: str
    name: str
    setting: Setting
    method: Method | None = None
    conversion: Conversion = field(default_factory=Conversion)
    validation: Validation = NO_VALIDATION

    def job(self, grid: Grid, seed: int) -> Job:
        """Its run with one seed."""
        arguments: dict[str, Any] = {
            "name": f"{grid.data}_{self.name}",
            "data": self.setting.data,
            "network": self.setting.network,
            "training": self.setting.training,
            "cycles": self.method.phases() if self.method else (),
            "conversion": replace(self.conversion, **self.conversion.chosen(self.method or EP())),
        }
        if self.method and self.method.settings():  # else the cycles say all of it
            arguments["method"] = self.method
        if self.validation.every:
            arguments["validation"] = self.validation
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
    method: Method = EP(),
    validation: Validation = NO_VALIDATION,
) -> Recipe:
    """A search through `cycles`, or dense training where there are none; what `method` does beside."""
    dense = Train(), Evaluate(recalibrate=False)
    return Recipe(
        name=name,
        data=data,
        network=network,
        training=training,
        method=method,
        conversion=conversion,
        stages=(*search(cycles), Export()) if cycles else dense,
        run=run,
        validation=validation,
    )


def experiments(setting: Setting, rows: Sequence[Compared]) -> list[Experiment]:
    """The runs of each row with `setting`, over all of its rates."""
    made = []
    for row in rows:
        training = setting.training if row.lr is None else replace(setting.training, lr=row.lr)
        changed = replace(setting, training=training)
        made += [
            Experiment(label=row.label, name=row.name, setting=changed, method=method) for method in row.runs(setting)
        ]
    return made


def run(
    grid: Grid,
    experiments: Sequence[Experiment],
    console: Console,
    on_done: Callable[[dict[str, list[RunRecord]]], object] | None = None,
) -> dict[str, list[RunRecord]]:
    """Run what is not done yet; the finished runs by label, in the order of the experiments.

    Args:
        on_done: called with those that are finished so far, at the beginning if there are any, and whenever another is.
    """
    jobs = [(experiment.label, experiment.job(grid, seed)) for experiment in experiments for seed in range(grid.seeds)]
    grid.check()
    for _, job in jobs:
        job.check()
    folders = {job.folder for _, job in jobs}
    missing = len({job.folder for _, job in jobs if not job.done})
    console.print(f"{len(folders)} runs in {grid.runs()}, {len(folders) - missing} of them done", highlight=False)

    def finished() -> dict[str, list[RunRecord]]:
        runs: dict[str, list[RunRecord]] = {label: [] for label, _ in jobs}
        for label, job in jobs:
            if job.ended:
                runs[label].append(read_run(job.folder))
        return runs

    with Progress(console=console, disable=not missing) as progress:
        bar = progress.add_task("runs", total=missing)

        def ended(_: Path) -> None:
            progress.advance(bar)
            if on_done:
                on_done(finished())

        if on_done and missing < len(folders):
            on_done(finished())
        run_grid([job for _, job in jobs], grid.at_once(), ended)
    return finished()


def accuracies(lines: list[Line]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: test accuracy in %, mean and standard error over seeds, before batch-norm recalibration."""
    rates = sorted({round(point.remaining, 4) for drawn in lines if not drawn.dense for point in drawn.points})[::-1]
    rows = []
    for drawn in lines:
        found = {round(point.remaining, 4): point.mean("accuracy") for point in drawn.points}
        cells = [found.get(1.0)] + [None] * (len(rates) - 1) if drawn.dense else [found.get(rate) for rate in rates]
        rows.append([drawn.label, *("" if cell is None else spread(100 * cell[0], 100 * cell[1]) for cell in cells)])
    return ["method", *(f"{100 * rate:.3g} %" for rate in rates)], rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(mean: float, error: float, digits: int = 1) -> str:
    """ "96.1 ± 0.2"; without the error where there was one seed."""
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if not math.isnan(error) else "")


def command(main: Callable[[Options], None], options: type[Options]) -> None:
    """Command line of a grid and its options, with `--import MODULE` as recipes have it; exits with 2 and one sentence
    where data, folder or an argument is at fault."""
    import tyro

    with told(ValueError):
        main(parsed(lambda given: tyro.cli(options, prog=program(), description=main.__doc__, args=given)))
