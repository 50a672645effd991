"""Pictures of one run: its score ranks, its scores and its layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from supermask.reports.figures import MARKERS, WIDTH, legend, new_figure, plain, rate_ticks, whole_numbers
from supermask.reports.numbers import score_bins
from supermask.runs.read import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SELECTED, _UNSELECTED = "#d55e00", "#0072b2"
_MOST_LAYERS = 24


def rank_traces(run: RunRecord) -> "Figure":
    """Rank of sampled edges in their layers over all epochs (soft iEP paper, Figure 5b).

    Red: selected at the end; blue: not. Black steps: the threshold of each cycle, its remaining rate; edges above it
    are selected. The axis is logarithmic where the last threshold is below 10 %, so that it can be seen.

    Raises:
        ValueError: the run recorded no ranks.
    """
    if run.ranks is None or run.dense:
        raise ValueError(f"{run.path} recorded no ranks")
    from matplotlib.lines import Line2D

    figure, (axes,) = new_figure(height=4.6)
    starts, rates = _thresholds(run)
    highest = 0.1 if rates[-1] < 0.1 else 0.0
    x, ranks, selected = run.ranks.epochs, np.maximum(100 * run.ranks.ranks, highest), run.ranks.selected[-1]
    for chosen, colour, width, alpha in ((False, _UNSELECTED, 0.5, 0.35), (True, _SELECTED, 0.9, 0.8)):
        axes.plot(x, ranks[:, selected == chosen], color=colour, linewidth=width, alpha=alpha)
    axes.step(starts, [100 * rate for rate in rates], where="post", color="black", linewidth=2)
    axes.set_xlim(x[0], max(x[-1], 1))
    if highest:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(100, highest)
    axes.set_xlabel("epoch")
    axes.set_ylabel("rank in the layer (%)" + (f", {highest:g} or less on top" if highest else ", highest on top"))
    whole_numbers(axes)
    shown = {
        f"selected at the end ({selected.sum()} edges)": Line2D([], [], color=_SELECTED),
        f"not selected ({(~selected).sum()})": Line2D([], [], color=_UNSELECTED),
        "threshold": Line2D([], [], color="black", linewidth=2),
    }
    legend(figure, list(shown.values()), list(shown))
    return figure


def score_histograms(run: RunRecord) -> "Figure":
    """Histograms of the scores of every layer at the end of each cycle; of at most 24 layers, evenly chosen.

    Raises:
        ValueError: the run recorded no histograms.
    """
    layers = layer_names(run, scores=True)
    if not layers:
        raise ValueError(f"{run.path} recorded no score histograms")
    columns = min(len(layers), 3)
    rows = -(-len(layers) // columns)
    figure, grid = new_figure(rows=rows, columns=columns, width=2.6 * columns + 0.6, height=1.9 * rows + 0.9)
    colours = _sequence(len(run.cycles))
    for axes, layer in zip(grid, layers, strict=False):
        for index, colour in enumerate(colours):
            if (found := score_bins(run, layer, index)) is not None:
                bins, share = found
                axes.stairs(share, bins, baseline=None, color=colour, linewidth=1)
        axes.set_title(plain(layer), fontsize="small")
        axes.set_yscale("log")  # few scores are far from zero, and they are the selected ones
        axes.yaxis.set_minor_formatter("")
        axes.tick_params(labelsize="x-small")
    for axes in grid[len(layers) :]:
        axes.set_axis_off()
    signed = any(s.scores and s.scores.low < 0 for record in run.cycles for s in record.layers.values())
    figure.supxlabel("score" if signed else "magnitude of the score", fontsize="medium")
    figure.supylabel("edges (% per unit of score)", fontsize="medium")
    _cycle_legend(figure, run, colours)
    return figure


def layer_ratios(run: RunRecord) -> "Figure":
    """Density and dying ratio of every layer at the end of each cycle.

    Raises:
        ValueError: the run recorded no layers.
    """
    layers = layer_names(run, scores=False)
    if not layers:
        raise ValueError(f"{run.path} recorded no layers")
    longest = max(map(len, layers))
    upright = len(layers) > 6 or longest > 10
    width, height = max(WIDTH, 0.28 * len(layers) + 1.5), 5.6 + 0.08 * longest * upright
    figure, (top, bottom) = new_figure(rows=2, width=width, height=height, sharex=True)
    colours = _sequence(len(run.cycles))
    for index, (record, colour) in enumerate(zip(run.cycles, colours, strict=True)):
        present = [(at, record.layers[name]) for at, name in enumerate(layers) if name in record.layers]
        at = [position for position, _ in present]
        look: dict[str, Any] = {"color": colour, "marker": MARKERS[index % len(MARKERS)], "linewidth": 1}
        top.plot(at, [100 * layer.kept / layer.edges for _, layer in present], **look)
        bottom.plot(at, [1 - layer.ever / layer.edges for _, layer in present], **look)
    top.set_ylabel("remaining (of the layer)")
    densities = {100 * layer.kept / layer.edges for record in run.cycles for layer in record.layers.values()}
    top.set_yscale("log")
    top.set_ylim(min(densities) / 1.4, max(densities) * 1.4)
    top.set_yticks(*rate_ticks(densities))
    top.set_yticks([], minor=True)
    bottom.set_ylabel("dying ratio")
    bottom.set_ylim(0, 1)
    bottom.set_xticks(range(len(layers)), [plain(name) for name in layers], rotation=90 if upright else 0)
    bottom.set_xlabel("layer")
    _cycle_legend(figure, run, colours, markers=True)
    return figure


def _thresholds(run: RunRecord) -> tuple[list[int], list[float]]:
    """Epochs after which a threshold begins, and the threshold; the last one is given again where it ends."""
    if run.ranks is None:
        raise ValueError(f"{run.path} has no ranks: thresholds are drawn over them")
    rates = run.rates
    starts: list[int] = []
    levels: list[float] = []
    before = run.ranks.epochs[0]
    for cycle, epoch in zip(run.ranks.cycles, run.ranks.epochs, strict=True):
        level = rates[min(cycle, len(rates)) - 1]
        if not levels or level != levels[-1]:
            starts.append(before)
            levels.append(level)
        before = epoch
    return [*starts, before], [*levels, levels[-1]]


def layer_names(run: RunRecord, *, scores: bool) -> list[str]:
    """The layers of a run; of those with score histograms as many as are drawn, evenly chosen."""
    names = [
        name for record in run.cycles for name, layer in record.layers.items() if not scores or layer.scores is not None
    ]
    names = list(dict.fromkeys(names))
    if scores and len(names) > _MOST_LAYERS:
        names = [names[round(index)] for index in np.linspace(0, len(names) - 1, _MOST_LAYERS)]
    return names


def _sequence(count: int) -> list[Any]:
    """Colours from dark to light for cycles, told apart by lightness alone."""
    from matplotlib import colormaps

    return [colormaps["viridis"](value) for value in np.linspace(0, 0.85, count)]


def _cycle_legend(figure: "Figure", run: RunRecord, colours: Sequence[Any], *, markers: bool = False) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=MARKERS[index % len(MARKERS)] if markers else "")
        for index, colour in enumerate(colours)
    ]
    legend(figure, handles, [f"cycle {record.cycle}, {100 * record.rate:.3g} %" for record in run.cycles])
