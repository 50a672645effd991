"""The report of some runs: one HTML page that needs nothing else, and its pictures and their numbers beside it."""

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from supermask.checks import SupermaskError
from supermask.files import UnsyncedError, check_writable, write_all
from supermask.reports.figures import Format
from supermask.reports.glossary import TERMS
from supermask.reports.lines import Line, Measure, Point, differing, group, settings, shared
from supermask.reports.pictures import Picture, draw, in_order
from supermask.runs.read import RunRecord, read_run
from supermask.runs.rows import OF_MASKS

PAGE = "report.html"
MEASURES: dict[str, tuple[Measure, float, int]] = {
    "accuracy (%)": ("accuracy", 100, 1),
    "recalibrated (%)": ("recalibrated", 100, 1),
    "dying": ("dying", 1, 3),
    "cumulative dying": ("dying_cumulative", 1, 3),
    "explored": ("explored", 1, 3),
    "dead units": ("dead", 1, 0),
}


class ReportError(SupermaskError):
    """A report that cannot be made; the message says why and what to do."""


def write_report(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    labels: Sequence[str] = (),
    forms: Sequence[Format] = ("png",),
) -> Path:
    """Write the report of these run folders, or of one, into the folder `out`, and return its page.

    Args:
        labels: of the lines, in the order in which each one's first run comes; by default what tells them apart.
        forms: formats of the pictures beside the page, which are in it as PNG.

    Each file is replaced in one step; other files of the folder are left as they are. Where one cannot be written,
    those that were not there before are gone again.

    Raises:
        RunReadError: a path is not a run folder, or the folder is damaged.
        MaskFileError: a mask file is damaged.
        LabelError: there are more or fewer labels than lines.
        ReportError: there is no run, no matplotlib, or `out` cannot be written or may lose what was.
    """
    paths, out = [paths] if isinstance(paths, str | Path) else paths, Path(out)
    if not paths:
        raise ReportError("no run to report on: name run folders, such as runs/*")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ReportError('a report needs matplotlib: pip install "supermask[recipes]"') from error
    lines = group([read_run(path) for path in paths], labels)
    try:
        check_writable(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    pictures, notes = draw(lines, forms)
    files = {name: data for picture in pictures for name, data in picture.files.items()}
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
        *(f"<p>All lines: {escape(common)}.</p>" for common in [shared(lines)] if common),
        _pictures(picture for picture in pictures if not picture.single),
        *(f"<p>Left out: {escape(note)}.</p>" for note in notes),
        "<h2>Cycles</h2><p>Means, &plusmn; one standard error over seeds. Remaining is the fraction of all masked "
        "edges; dying, cumulative dying and explored are fractions of them too.</p>",
        _table(("line", "cycle", "remaining", "seeds", *MEASURES), _cycles(lines)),
        "<h2>Single runs</h2><p>Of each line the run of the lowest seed, at the fewest edges remaining.</p>",
        _pictures(picture for picture in pictures if picture.single),
        "<h2>Runs</h2>",
        *_settings(lines),
        "<h2>Terms</h2><dl>",
        *(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in TERMS.items()),
        "</dl>",
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _cycles(lines: Sequence[Line]) -> Iterator[tuple[str, ...]]:
    for line in lines:
        for point in line.points:
            yield (
                line.label,
                str(point.cycle),
                f"{100 * point.remaining:.3g} %",
                str(len(point.seeds)),
                *(
                    "-" if line.dense and measure in OF_MASKS else _value(point, measure, scale, digits)
                    for measure, scale, digits in MEASURES.values()
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
        for run in sorted(line.runs, key=in_order):
            rates = " ".join(f"{100 * rate:.3g}" for rate in run.rates)
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
        f"<figcaption>{escape(picture.caption)} <code>{escape(', '.join(picture.files))}</code></figcaption></figure>"
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
dt { font-weight: bold; }
dd { margin: 0 0 0.5rem 1.5rem; }
"""
