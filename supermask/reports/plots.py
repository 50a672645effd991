"""Pictures that compare runs: functions from lines, and from mask overlaps, to matplotlib figures."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from supermask.edges.overlap import Overlap
from supermask.reports.figures import Look, legend, lighter, looks, new_figure, plain, rate_ticks, whole_numbers
from supermask.reports.lines import Line, Measure, Point, line
from supermask.runs.read import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Shown = list[tuple[Any, str]]  # what a legend shows, and its label
_GREY = "#707070"


def accuracy_against_remaining(lines: Sequence[Line], *, recalibrated: bool = False) -> "Figure":
    """Test accuracy against remaining, from many edges to few; trained weights as a horizontal dashed line.

    Args:
        lines: with standard errors where they have several seeds.
        recalibrated: with batch-norm statistics of the final mask, not those of training.
    """
    figure, (axes,) = new_figure()
    measure: Measure = "recalibrated" if recalibrated else "accuracy"
    shown: _Shown = []
    for drawn, look in looks(lines):
        if drawn.dense:
            shown += _level(axes, drawn, measure, look)
        else:
            shown += _curve(axes, drawn, measure, look, scale=100)
    _against_remaining(axes, lines)
    axes.set_ylabel(f"test accuracy (%){', recalibrated' if recalibrated else ''}")
    legend(figure, [handle for handle, _ in shown], [label for _, label in shown])
    return figure


def dying_against_remaining(lines: Sequence[Line]) -> "Figure":
    """Dying ratio of each cycle against remaining.

    Hard pruning has two: solid, the worst case, in which every removed edge counts as dying; dashed, the apparent one,
    never selected among the survivors over the survivors (soft iEP paper, Figure 5a).
    """
    figure, (axes,) = new_figure()
    shown: _Shown = []
    for drawn, look in looks(lines):
        if drawn.dense:
            continue
        shown += _curve(axes, drawn, "dying", look)
        if any(_pruned(point) for point in drawn.points):
            apparent = replace(drawn, label=f"{drawn.label}, among survivors")
            shown += _curve(axes, apparent, "apparent", look, linestyle="--", markerfacecolor="white")
    _against_remaining(axes, lines)
    axes.set_ylabel("dying ratio (fraction of edges)")
    axes.set_ylim(0, 1)
    legend(figure, [handle for handle, _ in shown], [label for _, label in shown])
    return figure


def training_curves(lines: Sequence[Line]) -> "Figure":
    """Training loss and accuracy of every epoch, means over seeds with a band of one standard error.

    Runs of one cycle are drawn by remaining rate, lighter where more edges remain. Vertical lines end the cycles.
    """
    figure, (top, bottom) = new_figure(rows=2, height=6.4, sharex=True)
    ends: set[int] = set()
    for drawn, look in looks(lines):
        parts = _by_rate(drawn)
        for index, part in enumerate(parts):
            colour = lighter(look.color, 0.7 * (1 - (index + 1) / len(parts)))
            for axes, measure, scale in ((top, "loss", 1), (bottom, "train_accuracy", 100)):
                _epochs(axes, part, measure, scale, replace(look, color=colour), dashed=drawn.dense)
            for run in part.runs:
                ends |= {a.epoch for a, b in zip(run.epochs, run.epochs[1:], strict=False) if a.cycle != b.cycle}
    for axes in (top, bottom):
        for end in ends:
            axes.axvline(end + 0.5, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
    top.set_ylabel("training loss (mean of the epoch)")
    bottom.set_ylabel("training accuracy (%)")
    bottom.set_xlabel("epoch" + (" (dotted: a cycle ends)" if ends else ""))
    whole_numbers(bottom)
    legend(figure, *top.get_legend_handles_labels())
    return figure


def overlap_map(names: Sequence[str], overlaps: Sequence[Sequence[Overlap]]) -> "Figure":
    """Heat map of mask overlaps: measured below the diagonal, and above it what independent masks would have.

    Args:
        names: of the masks.
        overlaps: [row][column] of every pair.
    """
    count = len(names)
    size = max(4.0, 0.42 * count + 0.075 * max(map(len, names), default=0) + 1.2)
    figure, (axes,) = new_figure(width=size + 0.8, height=size)
    values = np.array(
        [[(pair.ratio if i >= j else pair.expected) for j, pair in enumerate(row)] for i, row in enumerate(overlaps)]
    )
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(count), [plain(name) for name in names], rotation=90)
    axes.set_yticks(range(count), [plain(name) for name in names])
    axes.grid(visible=False)
    if count <= 20:
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > 0.45 else "white"
            axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", color=colour, fontsize=7)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("common edges / edges of the smaller mask")
    return figure


def _pruned(point: Point) -> bool:
    """Hard pruning took edges out of the search space."""
    apparent, worst = point.mean("apparent"), point.mean("dying")
    return apparent is not None and worst is not None and not math.isclose(apparent[0], worst[0], abs_tol=1e-9)


def _curve(axes: "Axes", drawn: Line, measure: Measure, look: Look, scale: float = 1, **style: Any) -> _Shown:
    """Means of the line's points, with bars of one standard error."""
    values = [(point.remaining, mean) for point in drawn.points if (mean := point.mean(measure)) is not None]
    if not values:
        return []
    handle = axes.errorbar(
        [100 * remaining for remaining, _ in values],
        [scale * mean for _, (mean, _) in values],
        yerr=[scale * error for _, (_, error) in values],  # NaN, of one seed, draws no bar
        color=look.color,
        marker=look.marker,
        markersize=5,
        linewidth=1.5,
        capsize=3,
        **style,
    )
    return [(handle, plain(drawn.label))]


def _level(axes: "Axes", drawn: Line, measure: Measure, look: Look) -> _Shown:
    """A dense line: what it reached last, at every remaining rate; it may have no recalibrated accuracy."""
    found = [point.mean(measure) or point.mean("accuracy") for point in drawn.points[-1:]]
    if not found or found[0] is None:
        return []
    mean, error = found[0]
    handle = axes.axhline(100 * mean, color=look.color, linestyle="--", linewidth=1.5)
    if error > 0:
        axes.axhspan(100 * (mean - error), 100 * (mean + error), color=look.color, alpha=0.15, linewidth=0)
    return [(handle, plain(drawn.label))]


def _against_remaining(axes: "Axes", lines: Sequence[Line]) -> None:
    """A logarithmic axis from many edges to few, with ticks at rates that were run."""
    axes.set_xscale("log")
    rates = {100 * point.remaining for drawn in lines if not drawn.dense for point in drawn.points}
    if rates:
        spare = 1.15 if len(rates) > 1 else 2.0
        axes.set_xlim(max(rates) * spare, min(rates) / spare)
        axes.set_xticks(*rate_ticks(rates))
        axes.set_xticks([], minor=True)
    axes.set_xlabel("remaining (% of the masked edges, logarithmic)")


def _by_rate(drawn: Line) -> list[Line]:
    """A line's runs of one cycle apart by their rate; other lines as they are."""
    rates = sorted({run.searches[0]["remaining"] for run in drawn.runs if len(run.searches) == 1}, reverse=True)
    if len(rates) < 2:
        return [drawn]
    return [
        line(
            f"{drawn.label}, {100 * rate:.3g} %",
            [run for run in drawn.runs if [cycle["remaining"] for cycle in run.searches] == [rate]],
        )
        for rate in rates
    ]


def _epochs(axes: "Axes", drawn: Line, measure: str, scale: float, look: Look, *, dashed: bool) -> None:
    """Mean of a measure at each epoch over the line's runs."""
    found: dict[int, list[float]] = {}
    for run in drawn.runs:
        for epoch in run.epochs:
            if (value := getattr(epoch, measure)) is not None:
                found.setdefault(epoch.epoch, []).append(scale * value)
    if not found:
        return
    x = sorted(found)
    mean, error = np.array([mean_and_error(found[epoch]) for epoch in x]).T
    axes.plot(
        x,
        mean,
        label=plain(drawn.label),
        color=look.color,
        marker=look.marker,
        markevery=max(len(x) // 8, 1),
        markersize=4,
        linewidth=1.3,
        linestyle="--" if dashed else "-",
    )
    axes.fill_between(x, mean - error, mean + error, color=look.color, alpha=0.2, linewidth=0)
