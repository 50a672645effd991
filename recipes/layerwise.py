"""Layer-wise rates: edge-popup, its iterations and a random mask, under five ways to share a network's edges out.

The learning rate of each row is the one of the highest accuracy on held-out images; test accuracy is told of it alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any, Literal

from rich.console import Console

from supermask import IEP, Allocator, Conversion, EPLong, Method, RandomMask
from supermask.recipes._grid import Compared, Experiment, command, markdown, run, spread
from supermask.recipes._picking import PickingGrid
from supermask.recipes._plan import show_plan
from supermask.recipes._settings import Setting, SmallConv4
from supermask.reports import Line, Point, accuracy_curves, accuracy_panels, curves_table, line
from supermask.runs import name_of, table

RATES = (0.46, 0.215, 0.1, 0.035, 0.016)
SEARCHES: Mapping[str, Method] = {"EP": EPLong(), "hard iEP": IEP(space="survivors"), "soft iEP": IEP()}
RANDOM = "random mask"
PINNED = "first and last whole"
ALLOCATIONS: Mapping[str, Mapping[str, Any]] = {
    "uniform": {},
    "ERK": {"allocate": Allocator(kind="erk")},
    "network": {"ranking": "network"},
    "network, annealed": {"ranking": "network", "anneal": "cubic"},
    PINNED: {},
}


@dataclass(frozen=True, kw_only=True)
class Layerwise(PickingGrid):
    """Which runs, how many, and where they go.

    Attributes:
        networks: which of the digits' two, an MLP and a small CNN; of no other data set, and not with `network`.
    """

    lrs: tuple[float, ...] = (0.03, 0.1, 0.3)
    hold_out: float = 200
    networks: tuple[Literal["mlp", "conv4"], ...] = ("mlp", "conv4")

    def __post_init__(self) -> None:
        super().__post_init__()
        usual = next(one.default for one in fields(self) if one.name == "networks")
        if self._other and self.networks != usual:
            raise ValueError(
                f"networks={self.networks}: they are the digits' two, and the network is that of {self._other}: leave "
                "it out"
            )

    @property
    def known_rates(self) -> tuple[float, ...]:
        return RATES

    @property
    def _other(self) -> str | None:
        """What the one network is of, where it is none of the digits' two."""
        return self.network.name or (None if self.data == "digits" else self.data)

    def settings(self) -> dict[str, Setting]:
        """Of each network: the digits' two, or the one of another data set or of `--network.name`."""
        one = self.setting()
        if self._other:
            return {self._other: one}
        conv4 = replace(one, network=SmallConv4(), data=replace(one.data, layout="image"))  # type: ignore[type-var]
        return {name: {"mlp": one, "conv4": conv4}[name] for name in self.networks}


@dataclass(frozen=True, kw_only=True)
class Row(Compared):
    """A method under one way to share edges out.

    Attributes:
        network: that it searches.
        of: what the method is called.
        shared: what the way is called.
    """

    network: str
    of: str
    shared: str


def rows(network: str) -> list[Row]:
    """Every method under every way that it takes: a mask that no step is taken for is not annealed."""
    made = []
    for of, method in {**SEARCHES, RANDOM: RandomMask()}.items():
        for shared, settings in ALLOCATIONS.items():
            if of != RANDOM or "anneal" not in settings:
                made.append(
                    Row(
                        title=f"{network}, {of}, {shared}",
                        name="ep" if of == "EP" else name_of(of),
                        method=replace(method, **settings),
                        network=network,
                        of=of,
                        shared=shared,
                    )
                )
    return made


def experiments(grid: Layerwise, setting: Setting, compared: Sequence[Row]) -> list[Experiment]:
    """The runs of all rows of one network."""
    whole = Conversion(overrides={"first": 1.0, "last": 1.0})
    kept = {at.label for row in compared if row.shared == PINNED for at in (row, *grid.tried(row))}
    made = grid.experiments(compared, setting)
    return [replace(one, conversion=whole) if one.label in kept else one for one in made]


def main(grid: Layerwise) -> None:
    """Run all, print accuracies, what each layer keeps and how far apart they are; write layerwise.png, .csv, .md."""
    settings = grid.settings()
    compared = {name: rows(name) for name in settings}
    every = {name: experiments(grid, setting, compared[name]) for name, setting in settings.items()}
    planned = [one for some in every.values() for one in some]
    if grid.dry_run:
        return show_plan(grid, planned)
    console = Console()
    found = run(grid, planned, console)
    written, panels = "", {}
    for name, some in compared.items():
        picked = grid.picked(some, found)
        lines = {row: line(*picked[row.label]) for row in some}
        for title, (columns, cells) in tables(lines, settings[name]).items():
            console.print(table(f"{name}: {title}", columns, cells, left=columns[:2]))
            written += f"**{name}: {title}**\n\n{markdown(columns, cells)}\n"
        for of in SEARCHES:
            panels[f"{name}, {of}"] = [replace(lines[row], label=row.shared) for row in some if row.of == of]
    wrote = [grid.write("layerwise.md", written)]
    drawn = [replace(one, label=f"{name}, {one.label}") for name, lines in panels.items() for one in lines]
    numbers = curves_table(accuracy_curves(drawn), "test accuracy (%)")
    wrote += grid.draw("layerwise", accuracy_panels(panels, columns=len(SEARCHES)), numbers)
    console.print(f"wrote {', '.join(map(str, wrote))}", highlight=False, soft_wrap=True)


Cells = tuple[Sequence[str], Sequence[Sequence[str]]]


def tables(lines: Mapping[Row, Line], setting: Setting) -> dict[str, Cells]:
    """Columns and rows of each table of one network, by its title."""
    rates = [f"{100 * rate:.3g} %" for rate in setting.rates]
    reached = [[row.of, row.shared, learning_rate(one), *accuracies(one)] for row, one in lines.items()]
    fewest = {row: one for row, one in lines.items() if row.of == "soft iEP"}
    layers = list(next(iter(fewest.values())).runs[0].cycles[-1].layers)
    kept = [[row.shared, *(share(one, layer) for layer in layers), *ended(one)] for row, one in fewest.items()]
    return {
        "test accuracy, %": (["method", "edges shared out", "learning rate", *rates], reached),
        f"soft iEP at {rates[-1]}, % of each layer's edges": (
            ["edges shared out", *layers, "% of all", "units without an input"],
            kept,
        ),
        "points of accuracy between highest and lowest": (["of", *rates], [*between(lines, len(rates))]),
    }


def learning_rate(one: Line) -> str:
    """That of the runs; nothing where no step is taken."""
    run = one.runs[0]
    return f"{run.config['training']['lr']:g}" if run.epochs else ""


def accuracies(one: Line) -> list[str]:
    """At each rate, from the highest to the lowest. Where no step is taken batch norms have no statistics of training:
    those of the mask stand in for them."""
    trained = any(run.epochs for run in one.runs)
    return [spread(*in_percent(point, "accuracy" if trained else "recalibrated")) for point in one.points]


def in_percent(point: Point, measure: Literal["accuracy", "recalibrated"] = "accuracy") -> tuple[float, float]:
    """Mean and standard error of the test accuracy.

    Raises:
        ValueError: it was not measured.
    """
    found = point.mean(measure)
    if found is None:
        raise ValueError(f"remaining {point.remaining}: a run without an evaluation; remove it and begin again")
    return 100 * found[0], 100 * found[1]


def share(one: Line, layer: str) -> str:
    """What the layer keeps of its edges in the last cycle, in %, mean over the seeds."""
    found = [run.cycles[-1].layers[layer] for run in one.runs]
    return f"{fmean(100 * record.kept / record.edges for record in found):.3g}"


def ended(one: Line) -> tuple[str, str]:
    """What the network keeps in the last cycle in %, and the mean number of units that no edge leads to."""
    last = one.points[-1]
    return f"{100 * last.remaining:.3g}", f"{fmean(run.cycles[-1].dead for run in one.runs):.3g}"


def between(lines: Mapping[Row, Line], rates: int) -> Iterator[list[str]]:
    """At each rate how far apart the ways to share edges out are, under one search, and the searches, under one way;
    means over the searches and over the ways. Layers that are whole beside the rate are not compared: they are more."""
    reached = {
        (row.of, row.shared): [in_percent(point)[0] for point in one.points]
        for row, one in lines.items()
        if row.of in SEARCHES and row.shared != PINNED
    }
    for what, place in (("ways to share edges out, under one search", 0), ("searches, under one way", 1)):
        groups: dict[str, list[list[float]]] = {}
        for key, values in reached.items():
            groups.setdefault(key[place], []).append(values)
        apart = [
            fmean(max(column) - min(column) for column in ([values[at] for values in some] for some in groups.values()))
            for at in range(rates)
        ]
        yield [what, *(f"{value:.1f}" for value in apart)]


if __name__ == "__main__":
    command(main, Layerwise)
