"""Recipes under torchrun, two gloo processes."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supermask.recipes import digits_dense, digits_soft_iep
from supermask.recipes._settings import DIGITS
from supermask.runs.options import RunOptions
from supermask.runs.read import read_metrics
from tests.ranks import free_port, meet, on_ranks
from tests.recipes.command import run
from tests.supermask.runs.small_runs import last_state, left_by, same

pytestmark = pytest.mark.slow

RECIPE = "recipes.digits_soft_iep"
OPTIONS = ("--training.epochs", 1, "--cycles", 2, "--run.device", "cpu", "--run.folder", "run")


def torchrun(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", *arguments, *OPTIONS, cwd=cwd)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes."""
    cwd = tmp_path_factory.mktemp("two")
    done = torchrun(RECIPE, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dying ratio") == 1, "one process prints"
    return cwd / "run"


def test_the_result_is_that_of_one_process_up_to_the_order_of_sums(two: Path, tmp_path: Path) -> None:
    options = RunOptions(folder=tmp_path / "run", device="cpu", quiet=True)
    one = digits_soft_iep.recipe(training=replace(DIGITS, epochs=1), cycles=2, run=options).execute().folder
    assert sorted(p.name for p in two.rglob("*")) == sorted(p.name for p in one.rglob("*")), "rank 0 alone writes"
    processes = [json.loads((folder / "config.json").read_text())["recipe"]["processes"] for folder in (one, two)]
    assert processes == [1, 2]
    for mine, other in zip(read_metrics(two), read_metrics(one), strict=True):
        assert (mine["event"], mine.keys()) == (other["event"], other.keys())
        if mine["event"] == "epoch":
            assert mine["loss"] == pytest.approx(other["loss"], rel=0.02)
        for name in ("step", "cycle", "kept", "remaining", "lr"):
            assert mine.get(name) == other.get(name)
        for name in ("accuracy", "recalibrated", "train_accuracy", "dying"):
            assert mine.get(name) == (pytest.approx(other[name], abs=0.03) if name in other else None)


def test_told_to_stop_the_job_saves_and_goes_on_to_the_same_end(two: Path, tmp_path: Path) -> None:
    done = torchrun("tests.recipes.stopped", "job", 20, RECIPE, cwd=tmp_path)
    assert done.returncode != 0
    assert "interrupted by SIGTERM at step 20 (epoch 1 of the run); saved to run/checkpoints/00000001.pt" in done.stderr
    state = last_state(tmp_path / "run")
    assert (state["loop"]["step"], state["stage"]) == (20, 0)
    done = torchrun(RECIPE, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run: goes on after 20 of 62 steps" in done.stdout
    assert same(left_by(tmp_path / "run"), left_by(two))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("disturb", "rank 1 selects other edges than rank 0 in layer fc2"),
        ("die", "OSError: the memory of rank 1 is gone"),
    ],
)
def test_a_rank_that_fails_ends_the_job_with_its_error(how: str, says: str, tmp_path: Path) -> None:
    done = torchrun("tests.recipes.stopped", how, 31 if how == "disturb" else 5, RECIPE, cwd=tmp_path)
    assert done.returncode != 0
    assert says in done.stderr
    events: list[dict[str, Any]] = read_metrics(tmp_path / "run")
    assert events == []


def test_dense_training(tmp_path: Path) -> None:
    on_ranks(dense, str(tmp_path), free_port())
    assert read_metrics(tmp_path / "run")[-1] == {"event": "end"}


def dense(rank: int, folder: str, port: int) -> None:
    meet(rank, port)
    options = RunOptions(folder=Path(folder) / "run", device="cpu", quiet=True)
    digits_dense.recipe(training=replace(DIGITS, epochs=1), run=options).execute()
