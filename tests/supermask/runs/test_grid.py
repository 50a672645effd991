"""Grids: runs in processes of their own, once each, begun again after a stop."""

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supermask.data.image_sets import CIFAR10
from supermask.recipes import cifar10_ep, digits_ep
from supermask.runs.folder import RunFolder
from supermask.runs.grid import GridError, Job, run_grid
from supermask.runs.options import RunOptions
from supermask.runs.read import read_metrics
from supermask.runs.recipe import Recipe
from supermask.training.non_finite import NonFiniteError
from supermask.training.training import Training
from tests.places import ROOT

QUICK = Training(epochs=1, lr=0.3)


def job(parent: Path, seed: int = 0, **arguments: object) -> Job:
    run = RunOptions(seed=seed, device="cpu")
    return Job(recipe=digits_ep.recipe, arguments={"training": QUICK, **arguments}, run=run, parent=parent)


def test_each_job_runs_once(tmp_path: Path) -> None:
    jobs = [job(tmp_path), job(tmp_path, seed=1), job(tmp_path)]
    done: list[Path] = []
    run_grid(jobs, workers=2, on_done=done.append)
    assert sorted(done) == sorted({job.folder for job in jobs})
    assert len(done) == 2
    before = {path: (path / "metrics.jsonl").read_bytes() for path in done}
    run_grid(jobs, workers=2, on_done=done.append)
    assert len(done) == 2
    assert {path: (path / "metrics.jsonl").read_bytes() for path in done} == before


def test_a_run_that_stopped_goes_on(tmp_path: Path) -> None:
    whole, stopped = job(tmp_path / "whole"), job(tmp_path / "stopped")
    run_grid([whole], workers=1)
    run_grid([stopped], workers=1)
    metrics = stopped.folder / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().removesuffix(b'{"event": "end"}\n'))
    for path in sorted((stopped.folder / "checkpoints").glob("*.pt"))[-1:]:
        path.unlink()
    assert not stopped.done
    run_grid([stopped], workers=1)
    assert metrics.read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()


def test_a_run_that_was_killed_before_its_hooks_heard_of_the_end_is_not_done(tmp_path: Path) -> None:
    """The last checkpoint was saved; hooks' `end` and the summary come after it."""
    whole = job(tmp_path)
    run_grid([whole], workers=1)
    assert whole.done
    (whole.folder / "summary.json").unlink()
    assert whole.ended
    assert not whole.done
    before = (whole.folder / "metrics.jsonl").read_bytes(), (whole.folder / "times.jsonl").read_bytes()
    done: list[Path] = []
    run_grid([whole], workers=1, on_done=done.append)
    assert done == [whole.folder]
    assert whole.done
    assert before == ((whole.folder / "metrics.jsonl").read_bytes(), (whole.folder / "times.jsonl").read_bytes())


def test_a_run_of_a_release_that_wrote_no_summaries_is_done_without(tmp_path: Path) -> None:
    early = job(tmp_path)
    run_grid([early], workers=1)
    (early.folder / "summary.json").unlink()
    config = early.folder / "config.json"
    said = json.loads(config.read_bytes())
    del said["recipe"]["results"]
    config.write_text(json.dumps(said))
    assert early.done


def test_what_a_run_raises_ends_the_grid(tmp_path: Path) -> None:
    broken = job(tmp_path, training=Training(epochs=1, lr=1e30))
    with pytest.raises(NonFiniteError, match="lower learning rate"):
        run_grid([broken], workers=1)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from supermask.runs.grid import run_grid
from supermask.runs.interrupts import Interrupted
from tests.supermask.runs.test_grid import job
from supermask.training.training import Training

if __name__ == "__main__":
    parent, ending = Path(sys.argv[1]), signal.Signals[sys.argv[2]]
    jobs = [job(parent), job(parent, seed=1, training=Training(epochs=3000, lr=0.3))]

    def stop(folder):  # the short run is done, so the long one has begun or is about to
        print(folder, flush=True)
        os.kill(os.getpid(), ending)

    try:
        run_grid(jobs, workers=2, on_done=stop)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)
"""


def stopped_by(ending: signal.Signals, parent: Path) -> Job:
    """The run that was going on, or about to begin, when the grid got a signal."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(parent), ending.name],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (128 + ending, -ending), done.stderr
    assert str(job(parent).folder) in done.stdout
    unfinished = job(parent, seed=1, training=Training(epochs=3000, lr=0.3))
    assert not unfinished.done
    return unfinished


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_however_a_grid_ends_its_runs_end_too(ending: signal.Signals, tmp_path: Path) -> None:
    unfinished = stopped_by(ending, tmp_path)
    folder = RunFolder(unfinished.folder, resume=True, patience=120)  # nobody else holds it, soon
    folder.close()
    assert all(json.dumps(event) for event in read_metrics(unfinished.folder))


def test_a_killed_worker_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    killed = Job(recipe=suicide, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    with pytest.raises(GridError, match="memory ran out"):
        run_grid([killed], workers=1)


def suicide(run: RunOptions) -> Recipe:
    """A recipe whose worker is killed; the grid itself can name its folder."""
    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return digits_ep.recipe(run=run)


@pytest.mark.parametrize("said", ["one", "other"])
def test_workers_have_the_environment_of_this_moment(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SAID_TO_WORKERS", said)
    told = Job(recipe=telling, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    with pytest.raises(ValueError, match=f"was told {said}"):
        run_grid([told], workers=1)


def telling(run: RunOptions) -> Recipe:
    """A recipe whose worker says what it was told."""
    if multiprocessing.parent_process() is not None:
        raise ValueError(f"was told {os.environ.get('SAID_TO_WORKERS')}")
    return digits_ep.recipe(run=run)


def test_the_folder_says_device_and_data_but_not_how_they_are_had(tmp_path: Path) -> None:
    def folder(device: str = "cpu", **options: object) -> Path:
        data = CIFAR10(**options)  # type: ignore[arg-type]
        run = RunOptions(device=device)
        return Job(recipe=cifar10_ep.recipe, arguments={"data": data}, run=run, parent=tmp_path).folder

    assert folder() == folder(download=True)
    assert len({folder(), folder(batch=64), folder("cuda")}) == 3


def test_the_folder_is_the_same_whichever_way_the_recipe_was_imported(tmp_path: Path) -> None:
    clone = importlib.import_module("recipes.digits_ep")
    assert clone.recipe is not digits_ep.recipe
    made = [
        Job(recipe=module.recipe, arguments={}, run=RunOptions(seed=1, device="cpu"), parent=tmp_path).folder
        for module in (clone, digits_ep)
    ]
    assert made == [tmp_path / "digits_ep-610e8466-seed1"] * 2
