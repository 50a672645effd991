"""The builder behind a network's name is part of a run's identity, whichever way a recipe names it."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest

from supermask import Architecture, Digits, Network, Recipe, RunOptions, Training
from supermask.networks.registry import BUILDERS
from supermask.runs.folder import RunFolderError
from supermask.runs.grid import GridError, Job, run_grid
from supermask.runs.stages import Evaluate, Train
from tests.supermask.runs.own_networks import NETS, write_nets
from tests.supermask.runs.small_runs import BASE, placed

NETWORK = Network(name="mine/cnn", arguments={"width": 2})
RECIPE = replace(
    BASE,
    data=Digits(layout="image", batch=500),
    network=NETWORK,
    training=Training(epochs=1, lr=0.3),
    stages=(Train(), Evaluate()),
)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The user's module, which registers mine/cnn."""
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(BUILDERS)
    write_nets(tmp_path, "nets_of_builders")
    importlib.invalidate_caches()
    yield importlib.import_module("nets_of_builders")
    del sys.modules["nets_of_builders"]
    BUILDERS.clear()
    BUILDERS.update(before)


def change(nets: ModuleType) -> str:
    """The user's file is another one; its digest."""
    text = NETS.replace("A convolution", "One convolution")
    Path(str(nets.__file__)).write_text(text)
    return sha256(text.encode()).hexdigest()


def test_it_is_recorded_and_another_one_is_refused(nets: ModuleType, tmp_path: Path) -> None:
    placed(RECIPE, tmp_path / "run").execute()
    config = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    digest = sha256(NETS.encode()).hexdigest()
    builder = config["code"]["builder"]
    assert builder["type"] == "nets_of_builders.Cnn"
    assert builder["source"] == {"nets_of_builders": digest}
    assert builder["bound"]["POOL"] == 2, "what a script may have set"
    placed(RECIPE, tmp_path / "run", resume=True).execute()
    other = change(nets)
    with pytest.raises(RunFolderError) as caught:
        placed(RECIPE, tmp_path / "run", resume=True).execute()
    said = f"the code of builder in nets_of_builders was of SHA-256 {digest[:12]}, is of SHA-256 {other[:12]}"
    assert said in str(caught.value)


def test_supermask_s_own_are_not_said() -> None:
    for name in ("mlp", "conv2", "resnet18"):
        assert "builder" not in replace(RECIPE, network=Network(name=name)).code()


def named(run: RunOptions) -> Recipe:
    """A recipe whose network has its name."""
    return replace(RECIPE, run=run)


def called(run: RunOptions) -> Recipe:
    """A recipe whose network is a function of the user's, which gives the name when it is called."""
    return replace(
        RECIPE, run=run, network=lambda classes: Architecture(name="mine/cnn", arguments={"num_classes": 10})
    )


def test_a_grid_runs_another_one_anew(nets: ModuleType, tmp_path: Path) -> None:
    job = Job(recipe=named, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    before = job.folder
    change(nets)
    assert job.folder != before


def test_a_grid_takes_no_run_of_another_one_for_its_own(nets: ModuleType, tmp_path: Path) -> None:
    job = Job(recipe=called, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    placed(called(RunOptions()), job.folder).execute()
    assert job.done
    change(nets)
    with pytest.raises(GridError, match=r"another configuration: the code of builder in nets_of_builders was of SHA"):
        run_grid([job])
