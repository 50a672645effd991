"""Validation from the command line: every recipe's --validation.every and --validation.pick."""

from pathlib import Path

from supermask.runs.read import read_run
from tests.recipes.command import run

SMALL = "--training.epochs", 3, "--run.device", "cpu", "--run.folder", "run"


def test_held_out_digits_are_evaluated_and_picked_by(tmp_path: Path) -> None:
    held = "--data.hold-out", 200, "--validation.every", 1, "--validation.pick", "best"
    done = run("recipes.digits", "ep", *SMALL, *held, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_run(tmp_path / "run")
    (cycle,) = found.cycles
    assert cycle.validation == max(epoch.validation or 0 for epoch in found.epochs)
    assert f"{cycle.validation:.2%} (epoch {cycle.picked})" in " ".join(done.stdout.split())
    assert found.config["validation"] == {"every": 1, "pick": "best"}


def test_without_held_out_images_also_the_plan_is_refused(tmp_path: Path) -> None:
    for options in ((), ("--dry-run",)):
        done = run("recipes.digits_dense", *SMALL, "--validation.every", 2, *options, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("validation.every=2: Digits holds no training images out: give data.hold_out")
    assert not list(tmp_path.iterdir())
