"""The pictures hold the numbers of the runs: read from the figures' own artists."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from supermask.edges.overlap import Overlap
from supermask.reports import plots, run_plots
from supermask.reports.figures import to_png
from supermask.reports.lines import Line, group, line
from supermask.runs.read import RunRecord, read_run
from tests.supermask.runs.run_folders import HALVED, write_ep, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[RunRecord]]:
    """Two seeds of soft and hard iEP, of EP and of dense training."""
    path = tmp_path_factory.mktemp("runs")
    made = {
        "soft": [write_run(path / f"soft{seed}", seed=seed) for seed in (0, 1)],
        "hard": [write_run(path / f"hard{seed}", seed=seed, name="hard", space="survivors") for seed in (0, 1)],
        "ep": write_ep(path, seeds=(0, 1)),
        "dense": [write_run(path / f"dense{seed}", seed=seed, name="dense", dense=True) for seed in (0, 1)],
    }
    return {name: [read_run(folder) for folder in folders] for name, folders in made.items()}


@pytest.fixture(scope="module")
def lines(runs: dict[str, list[RunRecord]]) -> list[Line]:
    return group(run for members in runs.values() for run in members)


def curves(figure: Figure) -> dict[str, Any]:
    """Data line by legend label."""
    (legend,) = figure.legends
    axes = figure.axes[0]
    names = [text.get_text() for text in legend.get_texts()]
    found = {}
    bars = iter(container.lines[0] for container in axes.containers)
    level = iter(line for line in axes.lines if list(line.get_xdata()) == [0, 1])
    for name in names:
        found[name] = next(level) if name == "dense" else next(bars)
    return found


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_accuracy_against_remaining(lines: list[Line]) -> None:
    figure = plots.accuracy_against_remaining(lines)
    (axes,) = figure.axes
    drawn = curves(figure)
    assert list(drawn) == labels(figure) == ["digits_soft_iep", "hard", "digits_ep", "dense"]
    assert axes.get_title() == "Digits, mlp [64, 32, 24, 10]"
    for expected in lines[:3]:
        points = [(100 * point.remaining, 100 * (point.mean("accuracy") or (0,))[0]) for point in expected.points]
        assert np.allclose(drawn[expected.label].get_xydata(), points)
    (level,) = set(drawn["dense"].get_ydata())
    assert level == pytest.approx(98.05)
    assert drawn["dense"].get_linestyle() == "--"
    assert axes.get_xscale() == "log"
    left, right = axes.get_xlim()
    assert left > right
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["50 %", "25 %", "12.5 %"]
    assert "%" in axes.get_ylabel()
    assert "%" in axes.get_xlabel()
    styles = {(line.get_color(), line.get_marker()) for line in list(drawn.values())[:3]}
    assert len(styles) == 3


def test_error_bars_are_standard_errors(lines: list[Line]) -> None:
    (axes,) = plots.accuracy_against_remaining(lines[:1]).axes
    mean, error = lines[0].points[1].mean("accuracy") or (0.0, 0.0)
    segments = axes.containers[0].lines[2][0].get_segments()
    assert np.allclose(sorted(segments[1][:, 1]), [100 * (mean - error), 100 * (mean + error)])


def test_recalibrated_accuracy_is_another_picture(lines: list[Line]) -> None:
    drawn = curves(plots.accuracy_against_remaining(lines, recalibrated=True))
    assert drawn["hard"].get_ydata()[0] == pytest.approx(100 * (lines[1].points[0].mean("recalibrated") or (0,))[0])
    assert drawn["dense"].get_ydata()[0] == pytest.approx(98.05)


def test_panels_have_the_lines_of_one_legend(lines: list[Line]) -> None:
    figure = plots.accuracy_panels({"one": lines[:2], "other": lines[1:3], "last": lines[:1]}, columns=2)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["one", "other", "last"]
    assert labels(figure) == ["digits_soft_iep", "hard", "digits_ep"]
    for axes, expected in zip(panels, (lines[:2], lines[1:3], lines[:1]), strict=True):
        drawn = [container.lines[0].get_ydata() for container in axes.containers]
        points = [[100 * (point.mean("accuracy") or (0,))[0] for point in one.points] for one in expected]
        assert np.allclose(np.concatenate(drawn), np.concatenate(points))
        assert axes.get_xlim() == panels[0].get_xlim()
        assert axes.get_ylim() == panels[0].get_ylim()
    assert [tick.get_text() for tick in panels[2].get_xticklabels()] == ["50 %", "25 %", "12.5 %"]


def test_dying_against_remaining_has_two_lines_for_hard_pruning(lines: list[Line]) -> None:
    figure = plots.dying_against_remaining(lines)
    drawn = curves(figure)
    assert list(drawn) == ["digits_soft_iep", "hard", "hard, among survivors", "digits_ep"]
    assert drawn["hard, among survivors"].get_linestyle() == "--"
    assert drawn["hard"].get_linestyle() == "-"
    worst, apparent = drawn["hard"].get_ydata(), drawn["hard, among survivors"].get_ydata()
    assert worst[0] == pytest.approx(apparent[0])
    assert (worst[1:] > apparent[1:]).all()
    assert worst[2] == pytest.approx((lines[1].points[2].mean("dying") or (0,))[0])


def test_one_seed_of_soft_iep_has_one_dying_line(runs: dict[str, list[RunRecord]]) -> None:
    figure = plots.dying_against_remaining(group(runs["soft"][:1]))
    assert labels(figure) == ["digits_soft_iep"]


def test_training_curves_end_cycles_and_split_rates(lines: list[Line], runs: dict[str, list[RunRecord]]) -> None:
    figure = plots.training_curves(lines)
    top, bottom = figure.axes
    rates = [f"digits_ep, {100 * rate:g} %" for rate in HALVED]
    drawn, below = ({str(line.get_label()): line for line in axes.lines} for axes in (top, bottom))
    assert labels(figure) == ["digits_soft_iep", "hard", *rates, "dense"]
    loss: Any = drawn["digits_soft_iep"]
    assert list(loss.get_xdata()) == list(range(1, 13))
    assert loss.get_ydata()[2] == pytest.approx(runs["soft"][0].epochs[2].loss)
    accuracy: Any = below["digits_soft_iep"].get_ydata()
    assert accuracy[2] == pytest.approx(100 * runs["soft"][0].epochs[2].train_accuracy)
    ends = {
        line.get_xdata()[0] for line in top.lines if len(set(line.get_xdata())) == 1 and line.get_linestyle() == ":"
    }
    assert ends == {4.5, 8.5}
    assert len({drawn[rate].get_color() for rate in rates}) == 3


@pytest.mark.parametrize("last", [0.125, 1 / 32])
def test_rank_traces(tmp_path: Path, last: float) -> None:
    run = read_run(write_run(tmp_path / "run", rates=(0.5, last)))
    assert run.ranks is not None
    figure = run_plots.rank_traces(run)
    (axes,) = figure.axes
    *traces, threshold = axes.lines
    assert len(traces) == 200
    red = [trace for trace in traces if trace.get_color() == "#d55e00"]
    chosen = run.ranks.selected[-1]
    assert len(red) == chosen.sum()
    expected = np.maximum(100 * run.ranks.ranks[:, chosen][:, 0], 0.1 if last < 0.1 else 0)
    assert np.allclose(red[0].get_ydata(), expected)
    assert axes.get_yscale() == ("log" if last < 0.1 else "linear")
    assert (threshold.get_color(), threshold.get_drawstyle()) == ("black", "steps-post")
    assert np.allclose(threshold.get_xydata(), [(0, 50), (4, 100 * last), (8, 100 * last)])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert labels(figure)[0] == f"selected at the end ({chosen.sum()} edges)"


def test_score_histograms_and_layers(runs: dict[str, list[RunRecord]]) -> None:
    run = runs["soft"][0]
    figure = run_plots.score_histograms(run)
    assert [axes.get_title() for axes in figure.axes] == ["fc1", "fc2", "fc3"]
    assert all(len(axes.patches) == 3 for axes in figure.axes)
    values, bins, _ = figure.axes[1].patches[2].get_data()
    assert sum(values * np.diff(bins)) == pytest.approx(100)
    assert labels(figure) == ["cycle 1, 50 %", "cycle 2, 25 %", "cycle 3, 12.5 %"]
    density, dying = run_plots.layer_ratios(run).axes
    layers = run.cycles[1].layers
    assert np.allclose(density.lines[1].get_ydata(), [100 * layer.kept / layer.edges for layer in layers.values()])
    assert np.allclose(dying.lines[1].get_ydata(), [1 - layer.ever / layer.edges for layer in layers.values()])


def test_many_layers_are_thinned_out(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", rates=[0.5], epochs=1, layers={f"l{i}": (4, 8) for i in range(40)}))
    shown = [axes.get_title() for axes in run_plots.score_histograms(run).axes]
    assert len(shown) == 24
    assert (shown[0], shown[-1]) == ("l0", "l39")


def test_pictures_of_what_was_not_recorded_are_refused(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", bare=True))
    for picture in (run_plots.rank_traces, run_plots.score_histograms, run_plots.layer_ratios):
        with pytest.raises(ValueError, match=f"{tmp_path}/run recorded no"):
            picture(run)


def test_overlap_map_has_the_expected_ones_above_the_diagonal() -> None:
    def pair(i: int, j: int) -> Overlap:
        return Overlap(a=100, b=100, common=100 if i == j else 60, expected_common=20.0)

    figure = plots.overlap_map(["a", "b"], [[pair(i, j) for j in range(2)] for i in range(2)])
    axes = figure.axes[0]
    assert np.allclose(axes.images[0].get_array(), [[1, 0.2], [0.6, 1]])
    assert [text.get_text() for text in axes.texts] == ["1.00", ".20", ".60", "1.00"]


def test_an_overlap_map_keeps_its_size_whatever_its_masks_are_called() -> None:
    one = Overlap(a=100, b=100, common=60, expected_common=20.0)
    sizes = []
    for names in (
        [f"{i}" for i in range(8)],
        [f"{i}, a name of some fifty letters, as settings make" for i in range(8)],
    ):
        figure = plots.overlap_map(names, [[one] * 8] * 8)
        assert to_png(figure).startswith(b"\x89PNG")
        assert labels(figure) == [f"{number}: {name}" for number, name in enumerate(names, start=1)]
        (axes, _) = figure.axes
        assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(number) for number in range(1, 9)]
        box = axes.get_window_extent()
        sizes.append(min(box.width, box.height) / figure.dpi)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    assert sizes[1] > 2.5


def test_a_label_wider_than_the_figure_is_cut(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    (shown,) = labels(plots.accuracy_against_remaining([line("x" * 200, [run])]))
    assert shown == "x" * 74 + "..."


def test_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    names = ["_hidden", "costs $5 and $x^2", r"back\slash {"]
    figure = plots.accuracy_against_remaining([line(name, [run]) for name in names])
    assert labels(figure) == [" _hidden", r"costs \$5 and \$x^2", r"back\slash {"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_lines_without_points_draw_empty_axes() -> None:
    empty = [line("nothing", [])]
    for figure in (
        plots.accuracy_against_remaining(empty),
        plots.dying_against_remaining(empty),
        plots.training_curves([]),
    ):
        assert to_png(figure).startswith(b"\x89PNG")


def test_no_global_state(lines: list[Line]) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.training_curves(lines)
    assert dict(mpl.rcParams) == before
