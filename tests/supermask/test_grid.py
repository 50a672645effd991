"""Grids: runs in processes of their own, once each, begun again after a stop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recipes import digits_ep
from supermask.folder import read_metrics
from supermask.grid import Job, run_grid
from supermask.recipe import RunOptions
from supermask.train import NonFiniteError, Training

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


def test_what_a_run_raises_ends_the_grid(tmp_path: Path) -> None:
    broken = job(tmp_path, training=Training(epochs=1, lr=1e30))
    with pytest.raises(NonFiniteError, match="lower learning rate"):
        run_grid([broken], workers=1)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from supermask.grid import run_grid
from supermask.interrupts import Interrupted
from tests.supermask.test_grid import job
from supermask.train import Training

if __name__ == "__main__":
    parent = Path(sys.argv[1])
    jobs = [job(parent), job(parent, seed=1, training=Training(epochs=3000, lr=0.3))]

    def stop(folder):  # the short run is done, so the long one has begun or is about to
        print(folder, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        run_grid(jobs, workers=2, on_done=stop)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)
"""


def test_a_signal_ends_the_grid_and_its_workers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert str(job(tmp_path).folder) in done.stdout
    unfinished = job(tmp_path, seed=1, training=Training(epochs=3000, lr=0.3))
    assert not unfinished.done
    if unfinished.folder.exists():  # it had begun: what it wrote is whole
        assert all(json.dumps(event) for event in read_metrics(unfinished.folder))
