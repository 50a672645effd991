"""The numbers that pictures show: curves that are drawn from them, and tables that are written beside the pictures."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from supermask.edges.overlap import Overlap
from supermask.reports.lines import Line, Measure, Point, line
from supermask.runs.read import RunRecord, mean_and_error

Table = list[tuple[str | int | float | None, ...]]
"""Rows; the first has the names of the columns."""


class Mean(NamedTuple):
    """A point of a curve: where, the mean, its standard error (NaN for one seed) and of how many runs or seeds."""

    x: float
    mean: float
    error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What is drawn of a line.

    Attributes:
        label: in the legend.
        points: in their order along x.
        kind: "line"; "level", of trained weights: one point, drawn at every rate; "apparent", a second curve.
    """

    label: str
    points: Sequence[Mean]
    kind: Literal["line", "level", "apparent"] = "line"


def accuracy_curves(lines: Sequence[Line], *, recalibrated: bool = False) -> list[list[Curve]]:
    """Of each line its test accuracy in % against remaining in %."""
    measure: Measure = "recalibrated" if recalibrated else "accuracy"
    return [[_level(drawn, measure)] if drawn.dense else [_curve(drawn, measure, 100)] for drawn in lines]


def dying_curves(lines: Sequence[Line]) -> list[list[Curve]]:
    """Of each line its dying ratio against remaining in %, and for hard pruning the apparent one; of trained weights
    none."""
    found = []
    for drawn in lines:
        curves = [] if drawn.dense else [_curve(drawn, "dying", 1)]
        if curves and any(_pruned(point) for point in drawn.points):
            points = _curve(drawn, "apparent", 1).points
            curves.append(Curve(label=f"{drawn.label}, among survivors", points=points, kind="apparent"))
        found.append(curves)
    return found


def by_rate(drawn: Line) -> list[Line]:
    """A line's runs of one cycle apart by their rate; other lines as they are."""
    rates = sorted({run.rates[0] for run in drawn.runs if len(run.rates) == 1}, reverse=True)
    if len(rates) < 2:
        return [drawn]
    return [
        line(
            f"{drawn.label}, {100 * rate:.3g} %",
            [run for run in drawn.runs if run.rates == (rate,)],
        )
        for rate in rates
    ]


def epoch_curve(drawn: Line, measure: str, scale: float) -> Curve:
    """Mean of a measure at each epoch over the line's runs."""
    found: dict[int, list[float]] = {}
    for run in drawn.runs:
        for epoch in run.epochs:
            if (value := getattr(epoch, measure)) is not None:
                found.setdefault(epoch.epoch, []).append(scale * value)
    points = [Mean(epoch, *mean_and_error(found[epoch]), len(found[epoch])) for epoch in sorted(found)]
    return Curve(label=drawn.label, points=points)


def curves_table(curves: Iterable[Sequence[Curve]], what: str) -> Table:
    """The points of curves against remaining."""
    rows: Table = [("line", "remaining (%)", what, "standard error", "seeds")]
    return rows + [(curve.label, *point) for some in curves for curve in some for point in curve.points]


def training_table(lines: Sequence[Line]) -> Table:
    """Loss and accuracy of every epoch."""
    rows: Table = [("line", "measure", "epoch", "mean", "standard error", "runs")]
    for part in (part for drawn in lines for part in by_rate(drawn)):
        for name, measure, scale in (("loss", "loss", 1), ("training accuracy (%)", "train_accuracy", 100)):
            rows += [(part.label, name, *point) for point in epoch_curve(part, measure, scale).points]
    return rows


def overlap_table(names: Sequence[str], overlaps: Sequence[Sequence[Overlap]]) -> Table:
    """Every pair of masks once."""
    rows: Table = [("a", "b", "edges of a", "edges of b", "common", "overlap", "expected")]
    for i, row in enumerate(overlaps):
        for j, pair in enumerate(row[: i + 1]):
            rows.append((names[i], names[j], pair.a, pair.b, pair.common, pair.ratio, pair.expected))
    return rows


def rank_table(run: RunRecord) -> Table:
    """Ranks of sampled edges; epoch 0 is before the first step."""
    rows: Table = [("layer", "edge", "cycle", "epoch", "rank (%)", "selected", "remaining (%)")]
    if run.ranks is None:
        return rows
    rates = [100 * rate for rate in run.rates]
    for at, (cycle, epoch) in enumerate(zip(run.ranks.cycles, run.ranks.epochs, strict=True)):
        for (layer, edge), rank, selected in zip(
            run.ranks.edges, run.ranks.ranks[at].tolist(), run.ranks.selected[at].tolist(), strict=True
        ):
            rate = rates[min(cycle, len(rates)) - 1]
            rows.append((run.ranks.layers[layer], edge, cycle, epoch, 100 * rank, int(selected), rate))
    return rows


def score_bins(run: RunRecord, layer: str, cycle: int) -> tuple[Any, Any] | None:
    """(edges of bins, % of the layer's edges per unit of score) after cycle number `cycle` in the run's order from 0;
    None where none was recorded or all scores are one."""
    record = run.cycles[cycle]
    scores = record.layers[layer].scores if layer in record.layers else None
    if scores is None or scores.high <= scores.low:
        return None
    width = (scores.high - scores.low) / len(scores.counts)
    share = 100 * np.array(scores.counts) / max(sum(scores.counts), 1) / width
    return np.linspace(scores.low, scores.high, len(share) + 1), share


def score_table(run: RunRecord, layers: Sequence[str]) -> Table:
    """Histograms of the scores of these layers."""
    rows: Table = [("layer", "cycle", "from", "to", "edges (% per unit of score)")]
    for layer in layers:
        for index, record in enumerate(run.cycles):
            if (found := score_bins(run, layer, index)) is not None:
                bins, share = (one.tolist() for one in found)
                each = zip(bins, bins[1:], share, strict=False)
                rows += [(layer, record.cycle, *one) for one in each]
    return rows


def layer_table(run: RunRecord) -> Table:
    """Density and dying ratio of every layer."""
    rows: Table = [("layer", "cycle", "remaining (%)", "dying")]
    return rows + [
        (name, record.cycle, 100 * layer.kept / layer.edges, 1 - layer.ever / layer.edges)
        for record in run.cycles
        for name, layer in record.layers.items()
    ]


def to_csv(table: Table) -> bytes:
    """A table as CSV, all digits of its numbers, an empty cell where there is none."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cells, table))
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cells(row: Sequence[str | int | float | None]) -> Iterator[str]:
    for cell in row:
        missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
        yield "" if missing else str(cell)


def _curve(drawn: Line, measure: Measure, scale: float) -> Curve:
    """Means of the line's points."""
    points = [
        Mean(100 * point.remaining, scale * mean[0], scale * mean[1], point.count(measure))
        for point in drawn.points
        if (mean := point.mean(measure)) is not None
    ]
    return Curve(label=drawn.label, points=points)


def _level(drawn: Line, measure: Measure) -> Curve:
    """A dense line: what it reached last; it may have no recalibrated accuracy."""
    points = []
    for point in drawn.points[-1:]:
        of: Measure = measure if point.mean(measure) else "accuracy"
        if (mean := point.mean(of)) is not None:
            points.append(Mean(100 * point.remaining, 100 * mean[0], 100 * mean[1], point.count(of)))
    return Curve(label=drawn.label, points=points, kind="level")


def _pruned(point: Point) -> bool:
    """Hard pruning took edges out of the search space."""
    apparent, worst = point.mean("apparent"), point.mean("dying")
    return apparent is not None and worst is not None and not math.isclose(apparent[0], worst[0], abs_tol=1e-9)
