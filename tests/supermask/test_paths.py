"""Wherever a path is taken, a string is taken too, and means the same."""

from pathlib import Path
from typing import Any

import pytest

from supermask import CIFAR10, CIFAR100, MNIST, SVHN, ImageFolder, RunOptions, inspect, load, save, verify
from supermask.files import check_writable, write_all, write_atomically, write_whole
from supermask.recipes import digits_ep
from supermask.recipes._grid import Grid
from supermask.recipes.table1 import Table1
from supermask.reports.page import write_report
from supermask.runs.checkpoint import Checkpoints
from supermask.runs.folder import RunFolder
from supermask.runs.grid import Job
from supermask.runs.read import finished, read_masks, read_metrics, read_run, read_summary, summarise
from supermask.tickets import exports
from supermask.tickets.diff import diff
from supermask.tickets.file import recode
from supermask.tickets.save import save_folder
from tests.supermask.runs.small_runs import BASE, placed
from tests.supermask.tickets.networks import mlp, searched


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100, MNIST, SVHN, ImageFolder])
def test_roots_of_data(kind: Any, tmp_path: Path) -> None:
    named, typed = kind(root=str(tmp_path)), kind(root=tmp_path)
    assert (named, repr(named)) == (typed, repr(typed))
    assert isinstance(named.root, Path)


@pytest.mark.parametrize("kind", [Grid, Table1])
def test_grids(kind: Any) -> None:
    names = "root", "folder", "out"
    assert kind(data="cifar10", **dict.fromkeys(names, "x/y")) == kind(
        data="cifar10", **{name: Path("x/y") for name in names}
    )
    assert kind(data="cifar10", root="x").setting().data.root == Path("x")
    assert kind(folder="x").results() == kind(out="x", folder="y").results() == Path("x")


def test_jobs_and_options() -> None:
    run = RunOptions(device="cpu")
    folders = [Job(recipe=digits_ep.recipe, arguments={}, run=run, parent=parent).folder for parent in ("x", Path("x"))]  # type: ignore[arg-type]
    assert folders[0] == folders[1]
    assert RunOptions(folder="x").folder == Path("x")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths") / "run"
    placed(BASE, folder).execute()
    return folder


def test_reading_runs(run: Path, tmp_path: Path) -> None:
    for read in (read_metrics, read_summary, summarise, finished):
        assert read(str(run)) == read(run)
    assert read_run(str(run)).path == run
    assert read_masks(str(run / "masks" / "cycle-1.safetensors")).name == str(run / "masks" / "cycle-1.safetensors")
    assert Checkpoints(str(run / "checkpoints")).paths() == Checkpoints(run / "checkpoints").paths()
    pages = [write_report(paths, str(tmp_path / out)) for paths, out in ((str(run), "a"), ([str(run)], "b"))]
    assert pages == [tmp_path / "a" / "report.html", tmp_path / "b" / "report.html"]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_writing(tmp_path: Path) -> None:
    RunFolder(str(tmp_path / "run")).close()
    RunFolder.next_free(str(tmp_path), "next").close()
    write_whole(str(tmp_path / "a"), b"a")
    write_atomically(str(tmp_path / "b"), lambda path: path.write_bytes(b"b"), lambda _: None)
    write_all(str(tmp_path / "c"), {"d": b"d"})
    check_writable(str(tmp_path / "e"))
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"a", "b", "c", "c/d", "run", "run/metrics.jsonl", "next-1", "next-1/metrics.jsonl"}


def test_tickets(tmp_path: Path) -> None:
    ticket = str(tmp_path / "ticket")
    model = searched(mlp(64, 32, 10), 8, 64, remaining=0.3)
    save(model, ticket, architecture=mlp(64, 32, 10))
    save_folder(model, str(tmp_path / "folder"), architecture=mlp(64, 32, 10))
    recode(ticket, str(tmp_path / "raw"), encoding="raw")
    exports.write_state_dict(ticket, str(tmp_path / "dense"))
    assert inspect(ticket).sha256 == verify(Path(ticket)).sha256
    assert diff(ticket, str(tmp_path / "folder")).same
    load(str(tmp_path / "folder"))
