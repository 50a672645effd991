"""Pictures that compare runs: functions from lines, and from mask overlaps, to matplotlib figures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from supermask.edges.overlap import Overlap
from supermask.reports.figures import Look, legend, lighter, looks, new_figure, plain, rate_ticks, whole_numbers
from supermask.reports.lines import Line, shared
from supermask.reports.numbers import Curve, accuracy_curves, by_rate, dying_curves, epoch_curve

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
    figure = _against_remaining(lines, accuracy_curves(lines, recalibrated=recalibrated))
    figure.axes[0].set_ylabel(f"test accuracy (%){', recalibrated' if recalibrated else ''}")
    return figure


def accuracy_panels(panels: Mapping[str, Sequence[Line]], *, columns: int) -> "Figure":
    """`accuracy_against_remaining` in small: a panel for each name, of the same lines, that share the axes and the
    legend. Ticks are the rates of the first line."""
    rows = -(-len(panels) // columns)
    size = {"width": 1.2 + 2.6 * columns, "height": 0.9 + 2.1 * rows}
    figure, every = new_figure(rows=rows, columns=columns, **size, sharex=True, sharey=True)
    shown: dict[str, Any] = {}
    for axes, (name, lines) in zip(every, panels.items(), strict=False):
        for handle, label in _drawn(axes, lines, accuracy_curves(lines)):
            shown.setdefault(label, handle)
        axes.set_xticks(*rate_ticks({100 * point.remaining for point in lines[0].points}))
        axes.tick_params(labelsize="x-small")
        axes.set_title(plain(name), fontsize="small")
    for axes in every[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("remaining (% of the masked edges, logarithmic)", fontsize="medium")
    figure.supylabel("test accuracy (%)", fontsize="medium")
    legend(figure, list(shown.values()), list(shown))
    return figure


def dying_against_remaining(lines: Sequence[Line]) -> "Figure":
    """Dying ratio of each cycle against remaining.

    Hard pruning has two: solid, the worst case, in which every removed edge counts as dying; dashed, the apparent one,
    never selected among the survivors over the survivors (soft iEP paper, Figure 5a).
    """
    figure = _against_remaining(lines, dying_curves(lines))
    figure.axes[0].set_ylabel("dying ratio (fraction of edges)")
    figure.axes[0].set_ylim(0, 1)
    return figure


def training_curves(lines: Sequence[Line]) -> "Figure":
    """Training loss and accuracy of every epoch, means over seeds with a band of one standard error.

    Runs of one cycle are drawn by remaining rate, lighter where more edges remain. Vertical lines end the cycles.
    """
    figure, (top, bottom) = new_figure(rows=2, height=6.4, sharex=True)
    ends: set[int] = set()
    for drawn, look in looks(lines):
        parts = by_rate(drawn)
        for index, part in enumerate(parts):
            colour = lighter(look.color, 0.7 * (1 - (index + 1) / len(parts)))
            for axes, measure, scale in ((top, "loss", 1), (bottom, "train_accuracy", 100)):
                curve = epoch_curve(part, measure, scale)
                _epochs(axes, curve, replace(look, color=colour), dashed=drawn.dense)
            for run in part.runs:
                ends |= {a.epoch for a, b in zip(run.epochs, run.epochs[1:], strict=False) if a.cycle != b.cycle}
    for axes in (top, bottom):
        for end in ends:
            axes.axvline(end + 0.5, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
    _title(top, lines)
    top.set_ylabel("training loss (mean of the epoch)")
    bottom.set_ylabel("training accuracy (%)")
    bottom.set_xlabel("epoch" + (" (dotted: a cycle ends)" if ends else ""))
    whole_numbers(bottom)
    legend(figure, *top.get_legend_handles_labels())
    return figure


def overlap_map(names: Sequence[str], overlaps: Sequence[Sequence[Overlap]]) -> "Figure":
    """Heat map of mask overlaps: measured below the diagonal, and above it what independent masks would have. Rows and
    columns are numbered, and the legend has their names.

    Args:
        names: of the masks.
        overlaps: [row][column] of every pair.
    """
    from matplotlib.lines import Line2D

    count = len(names)
    size = max(3.8, 0.36 * count + 0.9)
    figure, (axes,) = new_figure(width=size + 0.8, height=size)
    values = np.array(
        [[(pair.ratio if i >= j else pair.expected) for j, pair in enumerate(row)] for i, row in enumerate(overlaps)]
    )
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
    numbers = [str(number) for number in range(1, count + 1)]
    axes.set_xticks(range(count), numbers)
    axes.set_yticks(range(count), numbers)
    axes.grid(visible=False)
    if count <= 20:
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > 0.45 else "white"
            axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", color=colour, fontsize=7)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("common edges / edges of the smaller mask")
    named = [plain(f"{number}: {name}") for number, name in zip(numbers, names, strict=True)]
    legend(figure, [Line2D([], [], linestyle="none") for _ in names], named, sample=0)
    return figure


def _against_remaining(lines: Sequence[Line], curves: Sequence[Sequence[Curve]]) -> "Figure":
    figure, (axes,) = new_figure()
    shown = _drawn(axes, lines, curves)
    axes.set_xlabel("remaining (% of the masked edges, logarithmic)")
    _title(axes, lines)
    legend(figure, [handle for handle, _ in shown], [label for _, label in shown])
    return figure


def _drawn(axes: "Axes", lines: Sequence[Line], curves: Sequence[Sequence[Curve]]) -> _Shown:
    """Curves over a logarithmic axis from many edges to few, with ticks at rates that were run."""
    shown: _Shown = []
    for (_, look), some in zip(looks(lines), curves, strict=True):
        for curve in some:
            shown += _level(axes, curve, look) if curve.kind == "level" else _curve(axes, curve, look)
    axes.set_xscale("log")
    rates = {100 * point.remaining for drawn in lines if not drawn.dense for point in drawn.points}
    if rates:
        spare = 1.15 if len(rates) > 1 else 2.0
        axes.set_xlim(max(rates) * spare, min(rates) / spare)
        axes.set_xticks(*rate_ticks(rates))
        axes.set_xticks([], minor=True)
    return shown


def _title(axes: "Axes", lines: Sequence[Line]) -> None:
    """What all lines have in common."""
    axes.set_title(plain(shared(lines)), fontsize="small", color=_GREY)


def _curve(axes: "Axes", curve: Curve, look: Look) -> _Shown:
    """Means, with bars of one standard error."""
    if not curve.points:
        return []
    x, mean, error, _ = zip(*curve.points, strict=True)
    style: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"} if curve.kind == "apparent" else {}
    handle = axes.errorbar(
        x,
        mean,
        yerr=error,  # NaN, of one seed, draws no bar
        color=look.color,
        marker=look.marker,
        markersize=5,
        linewidth=1.5,
        capsize=3,
        **style,
    )
    return [(handle, plain(curve.label))]


def _level(axes: "Axes", curve: Curve, look: Look) -> _Shown:
    """Trained weights, at every remaining rate."""
    if not curve.points:
        return []
    _, mean, error, _ = curve.points[0]
    handle = axes.axhline(mean, color=look.color, linestyle="--", linewidth=1.5)
    if error > 0:
        axes.axhspan(mean - error, mean + error, color=look.color, alpha=0.15, linewidth=0)
    return [(handle, plain(curve.label))]


def _epochs(axes: "Axes", curve: Curve, look: Look, *, dashed: bool) -> None:
    """Means at each epoch, with a band of one standard error."""
    if not curve.points:
        return
    x, mean, error, _ = np.array(curve.points).T
    axes.plot(
        x,
        mean,
        label=plain(curve.label),
        color=look.color,
        marker=look.marker,
        markevery=max(len(x) // 8, 1),
        markersize=4,
        linewidth=1.3,
        linestyle="--" if dashed else "-",
    )
    axes.fill_between(x, mean - error, mean + error, color=look.color, alpha=0.2, linewidth=0)
