"""Digits drawn at 32x32, as a command: a killed run goes on with the same images; its ticket is evaluated on them."""

import json
from pathlib import Path

import pytest

from supermask.runs.read import read_metrics
from tests.recipes.command import run

SMALL = [
    "ep", "--method.remaining", 0.5, "--network.arguments", "width", 0.125, "--data.batch", 16,
    "--data.images-per-epoch", 100, "--training.epochs", 2, "--run.device", "cpu", "--run.checkpoint-seconds", 0,
]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_was_killed_within_an_epoch_ends_as_one_that_was_not(tmp_path: Path) -> None:
    done = run("recipes.digits32", *SMALL, "--run.folder", "whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = json.loads((whole / "config.json").read_text())["recipe"]
    assert config["data"] == {"type": "Digits32", "batch": 16, "images_per_epoch": 100}
    assert [event["step"] for event in read_metrics(whole) if event["event"] == "epoch"] == [6, 12]
    options = [*SMALL, "--run.folder", "killed"]
    done = run("tests.recipes.stopped", "SIGKILL:step", 9, "recipes.digits32", *options, cwd=tmp_path)
    assert done.returncode == -9, done.stderr
    done = run("recipes.digits32", *options, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "goes on after" in done.stdout
    for name in ("metrics.jsonl", "ticket.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    done = run("supermask", "eval", whole / "ticket.safetensors", "--data", "digits32", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    last = [event for event in read_metrics(whole) if event["event"] == "evaluate"][-1]
    assert (found["images"], found["accuracy"]) == (797, last["recalibrated"])
    done = run("supermask", "eval", whole / "ticket.safetensors", "--data", "digits32", "--root", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert "--root x: digits32 come with scikit-learn and need no folder" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data.images-per-epoch", 0], "images_per_epoch=0: expected 1 to 10,000,000"),
        (["--data.batch", 101, "--data.images-per-epoch", 100], "batch=101: expected 1 to 100"),
    ],
)
def test_bad_arguments_end_with_two_and_leave_nothing(options: list[object], says: str, tmp_path: Path) -> None:
    done = run("recipes.digits32", "ep", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert not list(tmp_path.iterdir())
