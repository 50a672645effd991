"""Commands that are killed, told to stop or left without room on the disk, and go on with --resume."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from supermask.recipes import digits_soft_iep
from supermask.recipes._settings import DIGITS
from supermask.runs.options import RunOptions
from tests.recipes.command import run
from tests.supermask.runs.small_runs import left_by, same

RECIPE = "recipes.digits_soft_iep"
OPTIONS = ("--training.epochs", 2, "--cycles", 2, "--run.device", "cpu", "--run.checkpoint-seconds", 1000)
FOLDER = Path("runs") / "digits_soft_iep-1"


def stopped(how: str, count: int, *options: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The recipe, stopped as tests/recipes/stopped.py has it."""
    return run("tests.recipes.stopped", how, count, RECIPE, *OPTIONS, *options, cwd=cwd)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stopped."""
    options = RunOptions(folder=tmp_path_factory.mktemp("whole") / "run", device="cpu", quiet=True)
    return digits_soft_iep.recipe(training=replace(DIGITS, epochs=2), cycles=2, run=options).execute().folder


def goes_on(cwd: Path) -> str:
    """Resume the run to its end; what it printed."""
    done = run(RECIPE, *OPTIONS, "--resume", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (cwd / "runs").iterdir()] == [FOLDER.name]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    every_step = "--run.checkpoint-seconds", 0
    for how, count, code, options in (
        ("SIGKILL:step", 45, -9, every_step),
        ("cut", 300_000, -25, ("--resume", *every_step)),  # in mid-write of a checkpoint, which has 600 kB
        ("SIGKILL:export", 1, -9, ("--resume",)),
    ):
        done = stopped(how, count, *options, cwd=tmp_path)
        assert done.returncode == code, (how, done.stderr)
    assert "goes on after 124 of 124 steps" in goes_on(tmp_path)
    assert same(left_by(tmp_path / FOLDER), left_by(whole))


@pytest.mark.slow
def test_told_to_stop_it_saves_says_where_and_goes_on(whole: Path, tmp_path: Path) -> None:
    done = stopped("SIGTERM:step", 50, cwd=tmp_path)
    assert done.returncode == 143
    checkpoint = FOLDER / "checkpoints" / "00000001.pt"
    assert f"interrupted by SIGTERM at step 50 (epoch 2 of the run); saved to {checkpoint}: go on with --resume" in (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    assert f"{FOLDER}: goes on after 50 of 124 steps" in goes_on(tmp_path)
    assert same(left_by(tmp_path / FOLDER), left_by(whole))


@pytest.mark.slow
def test_without_room_for_checkpoints_it_says_so_and_finishes(whole: Path, tmp_path: Path) -> None:
    done = stopped("full", 100_000, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "00000001.pt could not be written (File too large); there is none before it" in done.stderr
    assert not list((tmp_path / FOLDER / "checkpoints").iterdir())
    for name in ("metrics.jsonl", "ranks.jsonl", "ticket.safetensors"):
        assert (tmp_path / FOLDER / name).read_bytes() == (whole / name).read_bytes()
