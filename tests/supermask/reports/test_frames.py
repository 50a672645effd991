"""Runs as one table: a row for each thing measured, beside the settings in which the runs differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from supermask.methods.iep import IEP
from supermask.networks.allocation import Allocator
from supermask.reports.frames import FrameError, frames
from supermask.reports.paired import compare
from supermask.runs.read import read_run
from supermask.runs.records import RunReadError
from tests.supermask.runs.run_folders import HALVED, edit_config, write_run
from tests.supermask.runs.small_runs import BASE, RATES, TRAINING, placed


def test_rows_and_settings(tmp_path: Path) -> None:
    paths = []
    for seed, lr in ((0, 0.3), (1, 0.3), (0, 1e-05)):
        folder = tmp_path / f"{lr}-{seed}"
        placed(replace(BASE, training=replace(TRAINING, lr=lr)), folder, seed=seed).execute()
        paths.append(folder)
    frame = frames(paths)
    assert list(frame.columns[:7]) == ["run", "path", "name", "seed", "finished", "lr", "cycle"]
    assert frame["lr"].dtype == np.float64
    assert frame["lr"].tolist() == [0.3] * 4 + [1e-05] * 2
    assert frame["seed"].tolist() == [0, 0, 1, 1, 0, 0]
    assert frame["run"].tolist() == [path.name for path in paths for _ in range(2)]
    runs = [read_run(path) for path in paths]
    assert frame["accuracy"].tolist() == [cycle.accuracy for run in runs for cycle in run.cycles]
    epochs = frames(paths, "epochs")
    assert "training.lr" in epochs.columns, "epochs have a column lr of their own"
    assert epochs["lr"].tolist() == [epoch.lr for run in runs for epoch in run.epochs]
    layers = frames(runs, kind="layers")
    assert len(layers) == 3 * 2 * 2
    assert layers["kept"].dtype == np.int64


def test_settings_that_all_share_are_left_out_and_a_run_counts_once(tmp_path: Path) -> None:
    one, other = (write_run(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    (tmp_path / "x").mkdir()
    frame = frames([one, other, tmp_path / "x" / ".." / "0", read_run(one)])
    assert frame["path"].tolist() == [str(one)] * 3 + [str(other)] * 3
    assert len(frame) == 6
    assert list(frame.columns[3:6]) == ["seed", "finished", "cycle"]
    assert len(frames(str(one))) == len(frames(one)) == len(frames(read_run(one))) == 3


def test_types_of_settings(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", rates=HALVED[:2], epochs=2)
    edit_config(a, device="cuda:1", conversion={"overrides": {}, "weights": "kaiming_normal", "fan": 3})
    edit_config(b, network={"name": "mlp", "arguments": {"sizes": [64, 10]}})
    frame = frames([a, b])
    assert frame["epochs"].tolist() == [4, 4, 4, 2, 2]
    assert frame["epochs"].dtype == frame["cycles"].dtype == np.int64
    assert frame["device"].tolist() == ["cuda"] * 3 + ["cpu"] * 2
    assert frame["weights"].tolist()[0] == "kaiming_normal"
    assert frame["fan"].dtype == np.float64
    assert np.isnan(frame["fan"][4])
    assert frame["sizes"].tolist()[-1] == "[64, 10]"
    assert frame["cycles.remaining"].tolist()[0] == "0.5 to 0.125"


def test_labels(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / str(seed), seed=seed, rates=[0.5]) for seed in (0, 1))
    frame = frames({"soft": [a, b], "one": a})
    assert list(frame.columns[:2]) == ["label", "run"]
    assert list(zip(frame["label"], frame["seed"], strict=True)) == [("soft", 0), ("soft", 1), ("one", 0)]


def test_a_setting_never_hides_a_measure(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / str(seed), seed=seed, rates=[0.5]) for seed in (0, 1))
    edit_config(a, loss="hinge", conversion={"dying": 1})
    frame = frames([a, b])
    assert frame["settings.loss"].tolist()[0] == "hinge"
    assert frame["loss"].tolist() == [0.3, 0.3]
    assert frame["conversion.dying"].tolist()[0] == 1


def test_no_runs_and_what_are_none(tmp_path: Path) -> None:
    for none in ([], {}, (path for path in ())):
        with pytest.raises(FrameError, match="no run: name run folders"):
            frames(none)
    with pytest.raises(FrameError, match="no run of label 'EP'"):
        frames({"EP": tmp_path.glob("*")})
    with pytest.raises(RunReadError, match="is not a run folder"):
        frames([tmp_path])
    with pytest.raises(ValueError, match="kind='lines': expected one of"):
        frames(write_run(tmp_path / "run"), "lines")  # type: ignore[arg-type]


def test_a_default_is_a_value_too(tmp_path: Path) -> None:
    """A configuration leaves out what has the default of a later setting."""
    for seed in (0, 1):
        for name, changes in (
            ("plain", {}),
            ("adam", {"training": replace(TRAINING, optimiser="adam", schedule="linear")}),
            ("erk", {"stages": None, "method": IEP(given=RATES, allocate=Allocator(kind="erk"), anneal="cubic")}),
        ):
            placed(replace(BASE, **changes), tmp_path / f"{name}-{seed}", seed=seed).execute()
    frame = frames(sorted(tmp_path.glob("*-*")))
    first = frame.groupby("run").first()
    assert first["optimiser"].to_dict() == {f"{name}-{seed}": "adam" if name == "adam" else "sgd" for seed in (0, 1)
                                            for name in ("adam", "erk", "plain")}  # fmt: skip
    assert set(first["schedule"]) == {"cosine", "linear"}
    assert first["anneal"].to_dict()["plain-0"] == "none"
    assert first["anneal"].to_dict()["erk-0"] == "cubic"
    assert frame["allocate"].notna().all()
    two = frame[~frame["run"].str.startswith("erk")]
    assert {pair.a for pair in compare(two, by="optimiser")} | {pair.b for pair in compare(two, by="optimiser")} == {
        "adam", "sgd"
    }  # fmt: skip
