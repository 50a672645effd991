"""The report of some runs: one HTML page that needs nothing else, and its pictures as PNG files beside it."""

import base64
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from supermask.checks import SupermaskError
from supermask.edges.overlap import Masks, overlap
from supermask.files import UnsyncedError, check_writable, write_all
from supermask.reports import plots, run_plots
from supermask.reports.figures import to_png
from supermask.reports.lines import Line, Measure, Point, differing, group, settings
from supermask.runs.read import RunRecord, read_masks, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
_MOST_MASKS = 24
_MEASURES: dict[str, tuple[Measure, float, int]] = {
    "accuracy (%)": ("accuracy", 100, 1),
    "recalibrated (%)": ("recalibrated", 100, 1),
    "dying": ("dying", 1, 3),
    "cumulative dying": ("dying_cumulative", 1, 3),
    "explored": ("explored", 1, 3),
    "dead units": ("dead", 1, 0),
}
_OF_MASKS = {"dying", "dying_cumulative", "explored", "dead"}  # trained weights have none


class ReportError(SupermaskError):
    """A report that cannot be made; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a report.

    Attributes:
        file: its name.
        title, caption: what it shows.
        png: the file.
        single: it is of one run; others compare all lines.
    """

    file: str
    title: str
    caption: str
    png: bytes
    single: bool


def write_report(paths: str | Path | Sequence[str | Path], out: str | Path) -> Path:
    """Write the report of these run folders, or of one, into the folder `out`, and return its page.

    Each file is replaced in one step; other files of the folder are left as they are. Where one cannot be written,
    those that were not there before are gone again.

    Raises:
        RunReadError: a path is not a run folder, or the folder is damaged.
        MaskFileError: a mask file is damaged.
        ReportError: there is no run, no matplotlib, or `out` cannot be written or may lose what was.
    """
    paths, out = [paths] if isinstance(paths, str | Path) else paths, Path(out)
    if not paths:
        raise ReportError("no run to report on: name run folders, such as runs/*")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ReportError('a report needs matplotlib: pip install "supermask[recipes]"') from error
    lines = group([read_run(path) for path in paths])
    try:
        check_writable(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    pictures, notes = draw(lines)
    files = {picture.file: picture.png for picture in pictures}
    files[PAGE] = page(lines, pictures, notes).encode("utf-8", "backslashreplace")
    try:
        write_all(out, files)
    except UnsyncedError as error:
        what = f"{error.filename} is {error.strerror}; mend the disk and write the report again"
        raise ReportError(what) from error
    except OSError as error:
        raise _unwritable(out, error) from error
    return out / PAGE


def _unwritable(out: Path, error: OSError) -> ReportError:
    return ReportError(f"cannot write the report into {out}: {error.strerror}; name another folder")


def draw(lines: Sequence[Line]) -> tuple[list[Picture], list[str]]:
    """All pictures that these lines have the records for, and notes on those that they have not."""
    pictures: list[Picture] = []
    notes: list[str] = []

    def add(file: str, title: str, caption: str, figure: "Figure", *, single: bool = False) -> None:
        pictures.append(Picture(file=f"{file}.png", title=title, caption=caption, png=to_png(figure), single=single))

    bars = "Bars: one standard error over seeds."
    measured = [line for line in lines if not line.dense and line.points]
    level = " Dashed: trained weights." if any(line.dense for line in lines) else ""
    if any(point.mean("accuracy") for line in measured for point in line.points):
        caption = f"With the batch-norm statistics of training. {bars}{level}"
        add("accuracy", "Accuracy against remaining", caption, plots.accuracy_against_remaining(lines))
    else:
        notes.append("no searched cycle was evaluated: no accuracy against remaining")
    if any(point.mean("recalibrated") for line in measured for point in line.points):
        caption = f"With batch-norm statistics recalibrated for the final mask. {bars}{level}"
        figure = plots.accuracy_against_remaining(lines, recalibrated=True)
        add("recalibrated", "Accuracy against remaining, recalibrated", caption, figure)
    if measured:
        caption = (
            f"Edges that no training step of the cycle selected, over all edges. {bars} Under hard pruning removed "
            "edges count as dying (solid); dashed: never selected among the survivors, over the survivors."
        )
        add("dying", "Dying ratio against remaining", caption, plots.dying_against_remaining(lines))
    if any(run.epochs for line in lines for run in line.runs):
        caption = "Means over seeds; bands: one standard error."
        add("training", "Training", caption, plots.training_curves(lines))
    for number, (seed, names, masks) in enumerate(_masks(lines, notes), start=1):
        table = [[overlap(a, b).total for b in masks] for a in masks]
        caption = (
            f"Seed {seed}. Below the diagonal: edges that two masks have in common, over those of the smaller one. "
            "Above it: what independent masks of the same densities would have."
        )
        add(f"overlap-{number}", "Overlap of masks", caption, plots.overlap_map(names, table))
    for file, title, caption, figure in _of_runs(lines, notes):
        add(file, title, caption, figure, single=True)
    return pictures, notes


def page(lines: Sequence[Line], pictures: Sequence[Picture], notes: Sequence[str]) -> str:
    """The HTML page."""
    runs = sum(len(line.runs) for line in lines)
    seeds = {run.seed for line in lines for run in line.runs}
    unfinished = sum(not run.finished for line in lines for run in line.runs)
    summary = f"{_count(runs, 'run')} in {_count(len(lines), 'line')}, {_count(len(seeds), 'seed')}"
    if unfinished:
        summary += f"; {unfinished} not finished"
    title = ", ".join(dict.fromkeys(run.name for line in lines for run in line.runs))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: supermask report</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(title)}</h1><p>{escape(summary)}.</p>",
        _pictures(picture for picture in pictures if not picture.single),
        *(f"<p>Left out: {escape(note)}.</p>" for note in notes),
        "<h2>Cycles</h2><p>Means, &plusmn; one standard error over seeds. Remaining is the fraction of all masked "
        "edges; dying, cumulative dying and explored are fractions of them too.</p>",
        _table(("line", "cycle", "remaining", "seeds", *_MEASURES), _cycles(lines)),
        "<h2>Single runs</h2><p>Of each line the run of the lowest seed, at the fewest edges remaining.</p>",
        _pictures(picture for picture in pictures if picture.single),
        "<h2>Runs</h2>",
        *_settings(lines),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _masks(lines: Sequence[Line], notes: list[str]) -> Iterator[tuple[int, list[str], list[Masks]]]:
    """(seed, names, masks) of each network with two masks or more: of one seed, whose masks are of the same weights."""
    searched = [(line, run) for line in lines for run in sorted(line.runs, key=_order) if not run.dense]
    _note(notes, "masks", [run for _, run in searched if not run.masks], "overlap of masks")
    networks: dict[str, list[tuple[str, bool, Masks]]] = defaultdict(list)
    seed = min((run.seed for _, run in searched if run.masks), default=0)
    for line, run in searched:
        for cycle, file in run.masks.items() if run.seed == seed else ():
            masks = read_masks(file)
            shape = repr([(name, bits.shape[0], masks.cols[name]) for name, bits in masks.bits.items()])
            rates = [f"{100 * search['remaining']:.3g} %" for search in run.searches[cycle - 1 : cycle]]
            networks[shape].append((" ".join([line.label, *rates]), cycle == max(run.masks), masks))
    for found in networks.values():
        chosen = [(name, masks) for name, last, masks in found if last or len(found) <= _MOST_MASKS]
        if len(chosen) > 1:
            yield seed, [name for name, _ in chosen], [masks for _, masks in chosen]


def _of_runs(lines: Sequence[Line], notes: list[str]) -> Iterator[tuple[str, str, str, "Figure"]]:
    """(file, title, caption, figure) of one run of each line: of its lowest seed, and of that the fewest edges."""
    kinds: list[tuple[str, str, str, Callable[[RunRecord], bool], Callable[[RunRecord], Figure]]] = [
        (
            "ranks",
            "Score ranks",
            "Ranks of sampled edges in their layer. Edges above the black threshold are selected.",
            lambda run: run.ranks is not None,
            run_plots.rank_traces,
        ),
        (
            "scores",
            "Scores by layer",
            "At the end of each cycle.",
            lambda run: any(layer.scores for record in run.cycles for layer in record.layers.values()),
            run_plots.score_histograms,
        ),
        (
            "layers",
            "Density and dying ratio by layer",
            "At the end of each cycle.",
            lambda run: any(record.layers for record in run.cycles),
            run_plots.layer_ratios,
        ),
    ]
    for kind, title, caption, has, figure in kinds:
        lacking = []
        for number, line in enumerate(lines, start=1):
            runs = [run for run in sorted(line.runs, key=_order) if not run.dense]
            lacking += [run for run in runs if not has(run)]
            for run in [run for run in runs if has(run) and run.seed == runs[0].seed][-1:]:
                rate = f", {100 * run.searches[0]['remaining']:.3g} %" if len(run.searches) == 1 else ""
                heading = f"{title}: {line.label}{rate}, seed {run.seed}"
                yield f"{kind}-{number}", heading, caption, figure(run)
        _note(notes, kind, lacking, title.lower())


def _order(run: RunRecord) -> tuple[int, float]:
    """By seed, from many edges remaining to few."""
    return run.seed, -run.searches[-1]["remaining"] if run.searches else -1.0


def _note(notes: list[str], what: str, lacking: Sequence[RunRecord], picture: str) -> None:
    if lacking:
        names = ", ".join(str(run.path) for run in lacking[:5]) + (" and others" if len(lacking) > 5 else "")
        notes.append(f"{picture} of {names}: no {what} recorded")


def _cycles(lines: Sequence[Line]) -> Iterator[tuple[str, ...]]:
    for line in lines:
        for point in line.points:
            yield (
                line.label,
                str(point.cycle),
                f"{100 * point.remaining:.3g} %",
                str(len(point.seeds)),
                *(
                    "-" if line.dense and measure in _OF_MASKS else _value(point, measure, scale, digits)
                    for measure, scale, digits in _MEASURES.values()
                ),
            )


def _value(point: Point, measure: Measure, scale: float, digits: int) -> str:
    found = point.mean(measure)
    if found is None:
        return "-"
    mean, error = found
    if math.isnan(error):
        return f"{scale * mean:.{digits}f}"
    return f"{scale * mean:.{digits}f} ± {scale * error:.{max(digits, 1)}f}"


def _settings(lines: Sequence[Line]) -> Iterator[str]:
    """Every run with the settings in which its line differs from others, and the settings that all share."""
    by_line = [settings(line.runs[0]) for line in lines]
    short = differing(by_line)
    rows = []
    for line, found in zip(lines, by_line, strict=True):
        own = ", ".join(f"{end} {found[name]}" for name, end in short.items() if name in found)
        for run in sorted(line.runs, key=_order):
            rates = " ".join(f"{100 * cycle['remaining']:.3g}" for cycle in run.searches)
            wait = "-" if math.isnan(run.data_wait) else f"{run.data_wait:.0%}"
            time = f"{run.seconds:.3g} s" if run.times else "-"
            rows.append(
                (line.label, run.name, str(run.path), str(run.seed), _state(run), rates or "-", time, wait, own)
            )
    columns = ("line", "recipe", "run folder", "seed", "state", "remaining (%)", "training time", "waiting for data")
    yield _table((*columns, "settings that differ"), rows)
    shared = [(name, value) for name, value in by_line[0].items() if name not in short]
    yield "<details><summary>Settings that all lines share</summary>"
    yield _table(("setting", "value"), shared)
    yield "</details>"


def _state(run: RunRecord) -> str:
    if run.finished:
        return "finished"
    cycles = f"{len(run.cycles)} of {_count(len(run.searches), 'cycle')}" if run.searches else "dense"
    return f"not finished: {cycles}, {_count(len(run.epochs), 'epoch')}"


def _pictures(pictures: Iterable[Picture]) -> str:
    return "\n".join(['<div class="pictures">', *map(_figure, pictures), "</div>"])


def _figure(picture: Picture) -> str:
    title, data = escape(picture.title), base64.b64encode(picture.png).decode()
    return (
        f'<figure><h3>{title}</h3><img alt="{title}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.caption)} <code>{escape(picture.file)}</code></figcaption></figure>"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --rule: #d5d5d5; --quiet: #5a5a5a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181b; --rule: #3a3d42; --quiet: #a5a5a5; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 84rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2rem; }
h3 { font-size: 1rem; overflow-wrap: anywhere; }
p { overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 6px; }
figcaption { color: var(--quiet); font-size: 0.9rem; margin-top: 0.3rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
td { white-space: nowrap; }
td:last-child { white-space: normal; min-width: 10rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; }
"""
