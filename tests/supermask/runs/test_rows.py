"""A run as a DataFrame: every number of its records, in a column of the right type."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from supermask.reports.frames import frames
from supermask.runs.read import RunRecord, read_run
from supermask.runs.records import CycleResult, Epoch
from supermask.runs.rows import OF_MASKS, RUN, Kind, columns, rows
from tests.supermask.runs.run_folders import write_lines, write_run
from tests.supermask.runs.small_runs import BASE, placed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    folder = tmp_path_factory.mktemp("rows") / "one"
    placed(BASE, folder, seed=3).execute()
    return read_run(folder)


def numbered(value: float | None) -> float:
    """As a column of numbers has it."""
    return math.nan if value is None else value


def test_cycles(run: RunRecord) -> None:
    frame = run.frame()
    assert list(frame.columns[:6]) == ["run", "path", "name", "seed", "finished", "cycle"]
    assert frame["run"].tolist() == ["one", "one"]
    assert set(frame["path"]) == {str(run.path)}
    assert set(frame["seed"]) == {3}
    unseen = {"dead_units", "layers", "measures", "measures_recalibrated"}
    for name in {one.name for one in fields(CycleResult)} - unseen | {"dead"}:
        held = [numbered(getattr(cycle, name)) for cycle in run.cycles]
        np.testing.assert_array_equal(frame[name], held, name)
        assert frame[name].dtype.kind in "if", name


def test_epochs_have_their_times(run: RunRecord) -> None:
    frame = run.frame("epochs")
    for one in fields(Epoch):
        np.testing.assert_array_equal(frame[one.name], [numbered(getattr(epoch, one.name)) for epoch in run.epochs])
    assert frame["seconds"].tolist() == [time.seconds for time in run.times]
    assert frame["data_wait"].tolist() == [time.data_wait for time in run.times]


def test_layers(run: RunRecord) -> None:
    frame = run.frame("layers")
    cycle = run.cycles[1]
    assert frame["layer"].tolist() == [*run.cycles[0].layers, *cycle.layers]
    row = frame[(frame["cycle"] == 2) & (frame["layer"] == "fc2")].iloc[0]
    layer = cycle.layers["fc2"]
    assert (row["edges"], row["kept"], row["ever"]) == (layer.edges, layer.kept, layer.ever)
    assert row["remaining"] == layer.kept / layer.edges
    assert row["dying"] == 1 - layer.ever / layer.edges
    assert row["dead"] == cycle.dead_units["fc2"]
    assert layer.scores is not None
    assert (row["score_low"], row["score_high"]) == (layer.scores.low, layer.scores.high)


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", bare=True, rates=[0.5])
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    write_lines(path / "metrics.jsonl", [line for line in lines if line["event"] != "evaluate"])
    run = read_run(path)
    assert np.isnan(run.frame()["accuracy"]).all()
    assert run.frame("epochs")["seconds"].dtype == np.float64
    assert np.isnan(run.frame("epochs")["seconds"]).all()
    assert len(run.frame("layers")) == 0
    assert run.frame("layers")["kept"].dtype == np.int64


def test_measures_of_a_method_are_columns(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", rates=[0.5])
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "evaluate":
            line |= {"measures": {"mse": 0.25, "loss": 7.0}, "measures_recalibrated": {"mse": 0.5}}
    write_lines(path / "metrics.jsonl", lines)
    frame = read_run(path).frame()
    assert frame["mse"].tolist() == [0.25]
    assert frame["mse_recalibrated"].tolist() == [0.5]
    assert frame["measures.loss"].tolist() == [7.0]
    assert frame["loss"].tolist() == [0.3]


def test_another_kind_is_refused(run: RunRecord) -> None:
    with pytest.raises(ValueError, match="kind='edges': expected one of 'cycles', 'epochs', 'layers'"):
        run.frame("edges")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cycles", "epochs", "layers"])
def test_columns_are_declared_without_a_run(kind: Kind, run: RunRecord) -> None:
    assert list(run.frame(kind).columns) == [*RUN, *columns(kind)]


def test_trained_weights_have_no_measures_of_masks(tmp_path: Path) -> None:
    dense = write_run(tmp_path / "dense", name="dense", dense=True)
    (row,) = rows(read_run(dense), "cycles")
    assert [row[name] for name in OF_MASKS] == [None] * len(OF_MASKS)
    assert read_run(dense).frame("epochs")["dying"].isna().all()
    frame = frames([dense, write_run(tmp_path / "soft")])
    assert frame.loc[frame["name"] == "dense", list(OF_MASKS)].isna().all(axis=None)
    assert frame.loc[frame["name"] != "dense", list(OF_MASKS)].notna().all(axis=None)
