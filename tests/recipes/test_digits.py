"""The digits recipes, as commands."""

import json
from pathlib import Path

import pytest

import supermask
from supermask.data.base import Part
from supermask.data.digits import Digits
from supermask.runs.read import read_metrics
from supermask.training.evaluate import accuracy
from tests.recipes.command import run


@pytest.mark.slow
def test_quick_start_reaches_the_published_figures_and_its_ticket_reloads(tmp_path: Path) -> None:
    done = run("recipes.digits_soft_iep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for column in ("remaining", "kept edges", "accuracy", "recalibrated", "dying ratio", "dead units"):
        assert column in done.stdout
    folder = tmp_path / "runs" / "digits_soft_iep-1"
    cycles = [event for event in read_metrics(folder) if event["event"] == "cycle"]
    assert [cycle["kept"] for cycle in cycles] == [42240, 21120, 10560, 5280, 2640]
    for cycle, expected in zip(cycles, (0.40, 0.69, 0.82, 0.89, 0.94), strict=True):
        assert cycle["dying"] == pytest.approx(expected, abs=0.02)
    last = [event for event in read_metrics(folder) if event["event"] == "evaluate"][-1]
    assert last["accuracy"] > 0.93
    path = folder / "ticket.safetensors"
    assert f"{path.stat().st_size:,} bytes" in done.stdout
    loaded = Digits().open(seed=0, device=supermask.load(path).fc1.edges.constant.device)
    for weights in ("cached", "on_the_fly", "auto"):
        assert accuracy(supermask.load(path, weights=weights), loaded.test(Part())) == last["recalibrated"]


@pytest.mark.parametrize("name", ["digits_hard_iep", "digits_ep", "digits_ep_long", "digits_dense"])
def test_the_other_methods_run_with_overrides(name: str, tmp_path: Path) -> None:
    options = ["--training.epochs", 1, "--training.lr", 0.05, "--run.seed", 3, "--run.folder", tmp_path / "run"]
    done = run(f"recipes.{name}", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (config["training"]["lr"], config["run"]["seed"], config["name"]) == (0.05, 3, name)
    epochs = [event for event in read_metrics(tmp_path / "run") if event["event"] == "epoch"]
    assert len(epochs) == (1 if name in ("digits_ep", "digits_dense") else 5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--final", "1.5"], "remaining=1.5"),
        (["--final", "0"], "remaining=0"),
        (["--final", "nan"], "remaining=nan"),
        (["--run.seed", str(2**64)], f"seed {2**64}"),
        (["--run.folder", "/proc/run"], "/proc/run"),
        (["--conversion.overrides", "fc9", "1.0"], "fc9"),
        (["--training.epochs", "0"], "epochs=0"),
        (["--data.batch", "2000"], "batch=2000"),
        (["--run.device", "abacus"], "abacus"),
    ],
)
def test_bad_arguments_end_with_two_name_the_value_and_leave_nothing(
    options: list[str], says: str, tmp_path: Path
) -> None:
    done = run("recipes.digits_soft_iep", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/*"))


def test_help_names_every_override(tmp_path: Path) -> None:
    done = run("recipes.digits_soft_iep", "--help", cwd=tmp_path)
    for flag in (
        "--training.lr",
        "--data.batch",
        "--run.seed",
        "--conversion.overrides",
        "--final",
        "--cycles",
        "--resume",
        "--dry-run",
    ):
        assert flag in done.stdout
