"""The numbers beside a picture are those that it draws."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from supermask.edges.overlap import Overlap
from supermask.reports import numbers, plots, run_plots
from supermask.reports.figures import new_figure, picture_files, render
from supermask.reports.lines import Line, group
from supermask.runs.read import RunRecord, read_run
from tests.supermask.runs.run_folders import HALVED, write_ep, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Two seeds of hard iEP and of dense training, one of EP at three rates."""
    path = tmp_path_factory.mktemp("runs")
    folders = [write_run(path / f"hard{seed}", seed=seed, name="hard", space="survivors") for seed in (0, 1)]
    folders += [write_run(path / f"dense{seed}", seed=seed, name="dense", dense=True) for seed in (0, 1)]
    return [read_run(folder) for folder in (*folders, *write_ep(path))]


@pytest.fixture(scope="module")
def lines(runs: list[RunRecord]) -> list[Line]:
    return group(runs)


def read(table: numbers.Table) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(numbers.to_csv(table)), float_precision="round_trip")


def test_accuracy(lines: list[Line]) -> None:
    frame = read(numbers.curves_table(numbers.accuracy_curves(lines), "accuracy"))
    assert list(frame.columns) == ["line", "remaining (%)", "accuracy", "standard error", "seeds"]
    assert frame["line"].tolist() == ["hard"] * 3 + ["dense"] + ["digits_ep"] * 3
    assert frame["seeds"].tolist() == [2, 2, 2, 2, 1, 1, 1]
    (axes,) = plots.accuracy_against_remaining(lines).axes
    drawn = np.concatenate([container.lines[0].get_xydata() for container in axes.containers])
    shown = frame[frame["line"] != "dense"]
    assert np.array_equal(shown[["remaining (%)", "accuracy"]].to_numpy(), drawn)
    points = [point.mean("accuracy") or (0, 0) for point in lines[0].points]
    assert frame["standard error"].tolist()[:3] == [100 * error for _, error in points]
    assert frame["standard error"].isna().tolist() == [False] * 4 + [True] * 3
    assert frame["accuracy"][3] == pytest.approx(98.05)


def test_dying_has_both_curves_of_hard_pruning(lines: list[Line]) -> None:
    frame = read(numbers.curves_table(numbers.dying_curves(lines), "dying"))
    assert list(dict.fromkeys(frame["line"])) == ["hard", "hard, among survivors", "digits_ep"]
    apparent = frame[frame["line"] == "hard, among survivors"]["dying"].tolist()
    assert apparent == [(point.mean("apparent") or (0, 0))[0] for point in lines[0].points]


def test_recalibrated_accuracy_of_trained_weights_is_their_accuracy(lines: list[Line]) -> None:
    frame = read(numbers.curves_table(numbers.accuracy_curves(lines, recalibrated=True), "accuracy"))
    assert frame["accuracy"][0] == pytest.approx(100 * (lines[0].points[0].mean("recalibrated") or (0, 0))[0])
    assert frame[frame["line"] == "dense"]["accuracy"].tolist() == pytest.approx([98.05])


def test_training(lines: list[Line], runs: list[RunRecord]) -> None:
    frame = read(numbers.training_table(lines))
    hard = frame[(frame["line"] == "hard") & (frame["measure"] == "loss")]
    assert hard["epoch"].tolist() == list(range(1, 13))
    assert hard["mean"].tolist() == pytest.approx([epoch.loss for epoch in runs[0].epochs])
    assert set(hard["runs"]) == {2}
    assert {f"digits_ep, {100 * rate:g} %" for rate in HALVED} <= set(frame["line"])
    accuracy = frame[(frame["line"] == "dense") & (frame["measure"] == "training accuracy (%)")]["mean"]
    assert accuracy.iloc[-1] == pytest.approx(100 * (runs[2].epochs[-1].train_accuracy or 0))


def test_overlaps_are_each_pair_once() -> None:
    pairs = [[Overlap(a=4, b=2, common=i + j, expected_common=1.0) for j in range(3)] for i in range(3)]
    frame = read(numbers.overlap_table(["x", "y", "z"], pairs))
    assert list(zip(frame["a"], frame["b"], strict=True)) == [
        ("x", "x"), ("y", "x"), ("y", "y"), ("z", "x"), ("z", "y"), ("z", "z")
    ]  # fmt: skip
    assert frame["common"].tolist() == [0, 1, 2, 2, 3, 4]
    assert frame["overlap"].tolist() == [0, 0.5, 1, 1, 1.5, 2]
    assert set(frame["expected"]) == {0.5}


def test_pictures_of_a_run(runs: list[RunRecord]) -> None:
    run = runs[0]
    assert run.ranks is not None
    ranks = read(numbers.rank_table(run))
    assert len(ranks) == 13 * 200
    assert ranks["rank (%)"].tolist() == (100 * run.ranks.ranks).ravel().tolist()
    assert ranks["selected"].tolist() == run.ranks.selected.astype(int).ravel().tolist()
    assert ranks["remaining (%)"].tolist()[:: 200 * 4] == [50, 50, 25, 12.5]
    assert (ranks["layer"][5], ranks["edge"][5]) == (run.ranks.layers[run.ranks.edges[5][0]], run.ranks.edges[5][1])
    scores = read(numbers.score_table(run, ["fc1", "fc3"]))
    of_one = scores[(scores["layer"] == "fc3") & (scores["cycle"] == 2)]
    values, bins, _ = run_plots.score_histograms(run).axes[2].patches[1].get_data()
    assert of_one.iloc[:, 4].tolist() == list(values)
    assert [*of_one["from"], of_one["to"].iloc[-1]] == list(bins)
    layers = read(numbers.layer_table(run))
    density, dying = run_plots.layer_ratios(run).axes
    second = layers[layers["cycle"] == 2]
    assert second["remaining (%)"].tolist() == list(density.lines[1].get_ydata())
    assert second["dying"].tolist() == list(dying.lines[1].get_ydata())


def test_csv_is_text_that_any_reader_takes() -> None:
    table: numbers.Table = [("line", "x"), ('a, "b"\nc', 0.1), ("d", math.nan), ("e", None), ("\udce9", 2)]
    data = numbers.to_csv(table)
    assert list(csv.reader(io.StringIO(data.decode()))) == [
        ["line", "x"], ['a, "b"\nc', "0.1"], ["d", ""], ["e", ""], ["\\udce9", "2"],
    ]  # fmt: skip


def test_files_are_the_same_whenever_they_are_written(lines: list[Line]) -> None:
    first, second = (
        picture_files("a", plots.training_curves(lines), [("x",)], ("png", "pdf", "svg")) for _ in range(2)
    )
    assert first == second
    assert list(first) == ["a.png", "a.pdf", "a.svg", "a.csv"]
    assert first["a.pdf"].startswith(b"%PDF")
    assert b"/Type3" not in first["a.pdf"], "fonts that journals refuse"
    assert first["a.svg"].startswith(b"<?xml")
    assert first["a.csv"] == b"x\n"


def test_rendering_leaves_matplotlibs_settings_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for form in ("png", "pdf", "svg"):
        render(new_figure()[0], form)  # type: ignore[arg-type]
    assert dict(mpl.rcParams) == before


def test_a_run_without_ranks_has_no_rows(tmp_path: Path) -> None:
    assert len(numbers.rank_table(read_run(write_run(tmp_path / "run", bare=True)))) == 1
