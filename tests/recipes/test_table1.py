"""Table 1, small: rates that are chosen, and a table that is there as soon as a run is."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from supermask import shrinking
from supermask.recipes.table1 import RATES, Table1
from supermask.runs.read import read_run
from tests.places import ROOT
from tests.recipes.command import run
from tests.recipes.test_grids import columns

HEAD = ["k = 1 - remaining", "d", "k - d", "paper's d (CIFAR-10)", "paper's k - d", "test accuracy, %"]
SCRIPT = """
import os, signal, sys
from pathlib import Path
from supermask import Digits32, Training
from supermask.recipes import _grid, table1
from supermask.recipes._settings import SETTINGS, SMALL_IMAGES_RATES, Network, Setting

if __name__ == "__main__":
    SETTINGS["digits32"] = Setting(
        data=Digits32(batch=16, images_per_epoch=64),
        network=Network(name="resnet18", arguments={"width": 0.125}),
        training=Training(epochs=1, lr=0.1),
        rates=SMALL_IMAGES_RATES,
    )
    written, left = _grid.write_whole, int(sys.argv[1])

    def write(path, data):
        global left
        written(path, data)
        left -= path.name == "table1.md"
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    _grid.write_whole = write
    table1.main(table1.Table1(
        data="digits32", remaining=(0.512, 0.4), seeds=1, workers=1, device="cpu", folder=Path("grid")
    ))
"""


def small(killed_after: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Two rates; killed once the table was written so many times."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(killed_after)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_table_is_written_as_runs_end_and_goes_on(tmp_path: Path) -> None:
    done = small(1, tmp_path)  # after the first run
    assert done.returncode == -signal.SIGKILL, done.stderr
    grid = tmp_path / "grid"
    head, *rows = columns(grid / "table1.md")
    assert head == [*HEAD, "seeds"]
    assert [row[0] for row in rows] == ["0.488", "0.600"]
    assert rows[1][1:3] + rows[1][5:] == [*["not yet"] * 3, "0 of 1"]
    assert rows[0][6] == "1 of 1"
    assert [row[3:5] for row in rows] == [["0.293", "0.195"], ["", ""]]
    first = json.loads((grid / "table1.json").read_text())
    assert [len(row["runs"]) for row in first["rows"]] == [1, 0]
    assert [row["missing"] for row in first["rows"]] == [0, 1]
    done = small(99, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 runs in grid, 1 of them done" in done.stdout
    again, *whole = columns(grid / "table1.md")
    assert again == HEAD
    assert whole[0] == rows[0][:6]
    dying = [float(row[1]) for row in whole]
    assert 0 < dying[0] < 0.488 < dying[1] < 0.6
    record = json.loads((grid / "table1.json").read_text())
    assert record["rows"][0] == first["rows"][0]
    assert [row["remaining"] for row in record["rows"]] == [RATES[2], 0.4]
    for row in record["rows"]:
        (found,) = row["runs"]
        ended = read_run(tmp_path / found["folder"])
        assert (found["seed"], found["epochs"], found["dying"]) == (0, 1, ended.cycles[0].dying)
        assert ended.config["data"] == {"type": "Digits32", "batch": 16, "images_per_epoch": 64}


def test_rates_of_the_paper_are_named_by_three_digits() -> None:
    assert Table1().rates == RATES == shrinking(0.2, 8)
    assert Table1(cycles=3).rates == RATES[:3]
    for data in ("digits", "cifar10", "imagenet"):
        assert Table1(data=data, cycles=8).rates == RATES
        with pytest.raises(ValueError, match=f"cycles=9: on {data} there are 8"):
            Table1(data=data, cycles=9)
    assert Table1(remaining=(0.21, 0.512, 0.5)).rates == (RATES[6], RATES[2], 0.5)


def test_precision_and_compiler_are_those_asked_for() -> None:
    usual = Table1(data="digits32").setting().training
    assert (usual.epochs, usual.lr, usual.weight_decay, usual.momentum) == (100, 0.1, 1e-4, 0.9)
    assert (usual.precision, usual.compile, usual.capture) == ("float32", False, False)
    changed = Table1(data="digits32", precision="bfloat16", compile=True, capture=True).setting().training
    assert changed == replace(usual, precision="bfloat16", compile=True, capture=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--remaining", 0.5, "--cycles", 2], "cycles=2 and remaining=(0.5,)"),
        (["--remaining", 0.21, 0.2097], "0.2097 is there twice"),
        (["--remaining", 0], "remaining"),
        (["--remaining", 1.5], "1.5"),
        (["--precision", "float16"], "float16"),
        (["--data", "digits32", "--root", "x"], "root=x: digits32 comes with scikit-learn"),
    ],
)
def test_bad_arguments_end_with_two_and_leave_nothing(options: list[object], says: str, tmp_path: Path) -> None:
    done = run("recipes.table1", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert says in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_the_plan_of_the_papers_schedule_needs_no_data(tmp_path: Path) -> None:
    options = ["--data", "digits32", "--remaining", 0.512, 0.21, "--seeds", 1, "--precision", "bfloat16", "--compile"]
    options += ["--network.name", "resnet18", "--network.arguments", "width", 0.125]  # a step takes less
    done = run("recipes.table1", *options, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "digits32_ep: resnet18" in done.stdout
    assert done.stdout.count("Digits32, batch 128, 390 steps an epoch") == 2
    assert done.stdout.count("39,000 steps in all") == 2
    assert "2 runs in runs/digits32, 0 of them done; 200 epochs in all" in done.stdout
    assert not list(tmp_path.iterdir())


def test_capture_is_refused_before_a_table_is_written(tmp_path: Path) -> None:
    done = run("recipes.table1", "--data", "digits32", "--device", "cpu", "--capture", "--folder", "grid", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "capture=True on cpu: steps are captured in CUDA graphs" in done.stderr
    assert not list(tmp_path.iterdir())
