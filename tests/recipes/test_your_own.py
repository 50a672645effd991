"""The file of docs/your-own.md: killed and resumed to the bit, reported, verified and exported by another process, in a
grid's workers, and on two processes."""

import json
import re
from pathlib import Path

import pytest

from supermask.runs.read import read_run
from tests.places import ROOT
from tests.recipes.command import run
from tests.supermask.runs.small_runs import left_by, same

MINE, GRID = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your-own.md").read_text(), re.DOTALL)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "many.py").write_text(GRID)
    return tmp_path


def test_it_is_short() -> None:
    assert len(MINE.splitlines()) <= 40


@pytest.mark.slow
def test_killed_it_goes_on_to_the_bit_and_its_ticket_is_anyone_s(cwd: Path) -> None:
    options = "--lr", 0.02, "--run.device", "cpu", "--run.checkpoint-seconds", 0
    whole = run("mine", *options, "--run.folder", "whole", cwd=cwd)
    assert whole.returncode == 0, whole.stderr
    assert len(re.findall(r"^epoch \d: \d+\.\d% of the held-out images$", whole.stdout, re.MULTILINE)) == 6
    done = run("tests.recipes.stopped", "SIGKILL:step", 60, "mine", *options, "--run.folder", "stopped", cwd=cwd)
    assert done.returncode == -9, done.stderr
    done = run("mine", *options, "--run.folder", "stopped", "--resume", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert same(left_by(cwd / "stopped"), left_by(cwd / "whole"))

    found = read_run(cwd / "whole")
    assert [cycle.picked is not None for cycle in found.cycles] == [True, True]
    rates = [layer.kept / layer.edges for layer in found.cycles[-1].layers.values()]
    assert len(set(rates)) == 3  # ERK's
    assert found.cycles[-1].kept == round(0.1 * found.cycles[-1].edges)
    assert found.config["training"]["optimiser"] == "adam"
    assert {"builder", "data"} <= found.config["code"].keys()

    done = run("supermask", "report", "whole", "stopped", cwd=cwd)
    assert (done.returncode, (cwd / "report" / "report.html").exists()) == (0, True), done.stderr
    ticket = "whole/ticket.safetensors"
    assert run("supermask", "verify", ticket, cwd=cwd).returncode == 2
    done = run("supermask", "verify", "--import", "mine", ticket, cwd=cwd)
    assert done.returncode == 0, done.stderr
    done = run("supermask", "convert", "--import", "mine", ticket, "mine.onnx", "--to", "onnx", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert (cwd / "mine.onnx").stat().st_size > 1000


@pytest.mark.slow
def test_a_grid_of_it(cwd: Path) -> None:
    done = run("many", cwd=cwd)
    assert done.returncode == 0, done.stderr
    folders = sorted((cwd / "runs").iterdir())
    assert len(folders) == 6
    assert all(read_run(folder).finished for folder in folders)
    assert re.search(r"lr +seed +cycle +remaining +validation +accuracy", done.stdout)
    before = {folder: (folder / "metrics.jsonl").stat().st_mtime_ns for folder in folders}
    assert run("many", cwd=cwd).returncode == 0
    assert {folder: (folder / "metrics.jsonl").stat().st_mtime_ns for folder in folders} == before


@pytest.mark.slow
def test_two_processes(cwd: Path) -> None:
    torchrun = "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "mine"
    done = run(*torchrun, "--run.device", "cpu", "--run.folder", "two", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of the held-out images") == 6
    assert json.loads((cwd / "two" / "config.json").read_text())["recipe"]["processes"] == 2
    assert run("supermask", "verify", "--import", "mine", "two/ticket.safetensors", cwd=cwd).returncode == 0
