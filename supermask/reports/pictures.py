"""The pictures of a report: those that some lines have the records for, each with its numbers beside it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from supermask.edges.overlap import Masks, overlap
from supermask.reports import numbers, plots, run_plots
from supermask.reports.figures import Format, picture_files, render
from supermask.reports.lines import Line
from supermask.runs.read import RunRecord, read_masks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MASKS = 24


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a report.

    Attributes:
        title, caption: what it shows.
        png: as the page has it.
        files: written beside the page, by their names; its numbers as CSV among them.
        single: it is of one run; others compare all lines.
    """

    title: str
    caption: str
    png: bytes
    files: Mapping[str, bytes]
    single: bool


def draw(lines: Sequence[Line], forms: Sequence[Format] = ("png",)) -> tuple[list[Picture], list[str]]:
    """All pictures that these lines have the records for, as files of these formats, and notes on those that they have
    not."""
    pictures: list[Picture] = []
    notes: list[str] = []

    def add(
        name: str, title: str, caption: str, figure: "Figure", table: numbers.Table, *, single: bool = False
    ) -> None:
        files = picture_files(name, figure, table, forms)
        png = files.get(f"{name}.png") or render(figure, "png")
        pictures.append(Picture(title=title, caption=caption, png=png, files=files, single=single))

    bars = "Bars: one standard error over seeds."
    measured = [line for line in lines if not line.dense and line.points]
    level = " Dashed: trained weights." if any(line.dense for line in lines) else ""
    if any(point.mean("accuracy") for line in measured for point in line.points):
        caption = f"With the batch-norm statistics of training. {bars}{level}"
        table = numbers.curves_table(numbers.accuracy_curves(lines), "test accuracy (%)")
        add("accuracy", "Accuracy against remaining", caption, plots.accuracy_against_remaining(lines), table)
    else:
        notes.append("no searched cycle was evaluated: no accuracy against remaining")
    if any(point.mean("recalibrated") for line in measured for point in line.points):
        caption = f"With batch-norm statistics recalibrated for the final mask. {bars}{level}"
        figure = plots.accuracy_against_remaining(lines, recalibrated=True)
        curves = numbers.accuracy_curves(lines, recalibrated=True)
        table = numbers.curves_table(curves, "test accuracy (%), recalibrated")
        add("recalibrated", "Accuracy against remaining, recalibrated", caption, figure, table)
    if measured:
        caption = (
            f"Edges that no training step of the cycle selected, over all edges. {bars} Under hard pruning removed "
            "edges count as dying (solid); dashed: never selected among the survivors, over the survivors."
        )
        table = numbers.curves_table(numbers.dying_curves(lines), "dying ratio")
        add("dying", "Dying ratio against remaining", caption, plots.dying_against_remaining(lines), table)
    if any(run.epochs for line in lines for run in line.runs):
        caption = "Means over seeds; bands: one standard error."
        add("training", "Training", caption, plots.training_curves(lines), numbers.training_table(lines))
    for number, (seed, names, masks) in enumerate(_masks(lines, notes), start=1):
        pairs = [[overlap(a, b).total for b in masks] for a in masks]
        named = "; ".join(f"{place}: {name}" for place, name in enumerate(names, start=1))
        caption = (
            f"{named}. Seed {seed}. Below the diagonal: edges that two masks have in common, over those of the smaller "
            "one. Above it: what independent masks of the same densities would have."
        )
        figure, table = plots.overlap_map(names, pairs), numbers.overlap_table(names, pairs)
        add(f"overlap-{number}", "Overlap of masks", caption, figure, table)
    for name, title, caption, figure, table in _of_runs(lines, notes):
        add(name, title, caption, figure, table, single=True)
    return pictures, notes


def _masks(lines: Sequence[Line], notes: list[str]) -> Iterator[tuple[int, list[str], list[Masks]]]:
    """(seed, names, masks) of each network with two masks or more: of one seed, whose masks are of the same weights."""
    searched = [(line, run) for line in lines for run in sorted(line.runs, key=in_order) if not run.dense]
    _note(notes, "masks", [run for _, run in searched if not run.masks], "overlap of masks")
    networks: dict[str, list[tuple[str, bool, Masks]]] = defaultdict(list)
    seed = min((run.seed for _, run in searched if run.masks), default=0)
    for line, run in searched:
        for cycle, file in run.masks.items() if run.seed == seed else ():
            masks = read_masks(file)
            shape = repr([(name, bits.shape[0], masks.cols[name]) for name, bits in masks.bits.items()])
            rates = [f"{100 * rate:.3g} %" for rate in run.rates[cycle - 1 : cycle]]
            networks[shape].append(
                (" ".join([*([line.label] if len(lines) > 1 else []), *rates]), cycle == max(run.masks), masks)
            )
    for found in networks.values():
        chosen = [(name, masks) for name, last, masks in found if last or len(found) <= _MOST_MASKS]
        if len(chosen) > 1:
            yield seed, [name for name, _ in chosen], [masks for _, masks in chosen]


class _Kind(NamedTuple):
    """A picture of one run: its name, what it shows, whether a run has it, how it is drawn, its numbers."""

    name: str
    title: str
    caption: str
    has: Callable[[RunRecord], bool]
    figure: "Callable[[RunRecord], Figure]"
    table: Callable[[RunRecord], numbers.Table]


_KINDS = (
    _Kind(
        "ranks",
        "Score ranks",
        "Ranks of sampled edges in their layer. Edges above the black threshold are selected.",
        lambda run: run.ranks is not None,
        run_plots.rank_traces,
        numbers.rank_table,
    ),
    _Kind(
        "scores",
        "Scores by layer",
        "At the end of each cycle.",
        lambda run: any(layer.scores for record in run.cycles for layer in record.layers.values()),
        run_plots.score_histograms,
        lambda run: numbers.score_table(run, run_plots.layer_names(run, scores=True)),
    ),
    _Kind(
        "layers",
        "Density and dying ratio by layer",
        "At the end of each cycle.",
        lambda run: any(record.layers for record in run.cycles),
        run_plots.layer_ratios,
        numbers.layer_table,
    ),
)


def _of_runs(lines: Sequence[Line], notes: list[str]) -> Iterator[tuple[str, str, str, "Figure", numbers.Table]]:
    """(name, title, caption, figure, its numbers) of one run of each line: of its lowest seed, and of that the fewest
    edges."""
    for kind in _KINDS:
        lacking = []
        for number, line in enumerate(lines, start=1):
            runs = [run for run in sorted(line.runs, key=in_order) if not run.dense]
            lacking += [run for run in runs if not kind.has(run)]
            for run in [run for run in runs if kind.has(run) and run.seed == runs[0].seed][-1:]:
                rate = f", {100 * run.rates[0]:.3g} %" if len(run.rates) == 1 else ""
                heading = f"{kind.title}: {line.label}{rate}, seed {run.seed}"
                yield f"{kind.name}-{number}", heading, kind.caption, kind.figure(run), kind.table(run)
        _note(notes, kind.name, lacking, kind.title.lower())


def in_order(run: RunRecord) -> tuple[int, float]:
    """By seed, from many edges remaining to few."""
    return run.seed, -run.rates[-1] if run.rates else -1.0


def _note(notes: list[str], what: str, lacking: Sequence[RunRecord], picture: str) -> None:
    if lacking:
        names = ", ".join(str(run.path) for run in lacking[:5]) + (" and others" if len(lacking) > 5 else "")
        notes.append(f"{picture} of {names}: no {what} recorded")
