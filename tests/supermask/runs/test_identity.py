"""A run's identity: all that can change its result, the user's code among it. Runs that differ in it are two lines of a
report, and none resumes the other."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from supermask.data.base import Loaded, in_memory
from supermask.reports.lines import group
from supermask.runs.folder import RunFolderError
from supermask.runs.grid import GridError, Job, run_grid
from supermask.runs.options import RunOptions
from supermask.runs.read import read_run
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Evaluate, Search
from supermask.training.training import Training
from tests.places import ROOT
from tests.supermask.runs.run_folders import edit_config
from tests.supermask.runs.small_runs import BASE, Points, mlp, placed

QUICK = replace(BASE, stages=BASE.course[:2], training=Training(epochs=1, lr=0.3))
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, repr=False)
class Adam(Training):
    """The optimiser is another one."""

    def make_optimiser(self, model: torch.nn.Module) -> Any:
        return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)


@dataclass(frozen=True, kw_only=True, repr=False)
class Plain(Training):
    """SGD without weight decay."""

    def make_optimiser(self, model: torch.nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


def with_optimiser(made: Callable[..., Any]) -> Training:
    """Of a class that a function makes."""

    class Made(Training):
        def make_optimiser(self, model: torch.nn.Module) -> Any:
            return made([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    return Made(epochs=1)


@dataclass(frozen=True, kw_only=True)
class Noisy(Points):
    """Points with noise on them."""

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        x = torch.randn(120, 20, generator=torch.Generator().manual_seed(3))
        return in_memory(x[:80], x[:80, :4].argmax(1), x[80:], x[80:, :4].argmax(1), batch=self.batch, seed=seed,
                         augment=Noise(0.1))  # fmt: skip


class Noise:
    """Added to the images."""

    def __init__(self, share: float) -> None:
        self.share = share

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(count, generator=generator)

    def __call__(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return images + self.share * drawn[:, None]


@dataclass(frozen=True, kw_only=True)
class Augmented(Points):
    """Holds what changes its images."""

    augment: Any = None


@dataclass(frozen=True, kw_only=True)
class Wild(Search):
    """A stage that does nothing else, and is another."""


class Twice:
    """A stage that is no dataclass."""

    def __init__(self, recalibrate: bool) -> None:
        self.recalibrate = recalibrate

    def epochs(self, training: Training) -> int:
        return 0

    def run(self, session: Any) -> None:
        Evaluate(recalibrate=self.recalibrate).run(session)


def wild(recipe: Recipe) -> tuple[Any, ...]:
    search, *rest = recipe.course
    assert isinstance(search, Search)
    return Wild(cycle=search.cycle), *rest


SEARCH = QUICK.course[0]
PAIRS: dict[str, tuple[Recipe, Recipe, str]] = {
    "optimiser": (
        replace(QUICK, training=Plain(epochs=1)),
        replace(QUICK, training=Adam(epochs=1)),
        "the type of training was test_identity.Plain, is test_identity.Adam",
    ),
    "optimiser, and supermask's": (
        replace(QUICK, training=Adam(epochs=1, lr=0.3)),
        QUICK,
        "the type of training was test_identity.Adam, is supermask's own",
    ),
    "optimiser of a class that a function makes": (
        replace(QUICK, training=with_optimiser(torch.optim.SGD)),
        replace(QUICK, training=with_optimiser(torch.optim.Adam)),
        "training.bound.make_optimiser.made was 'torch.optim.sgd.SGD', is 'torch.optim.adam.Adam'",
    ),
    "data": (QUICK, replace(QUICK, data=Noisy()), "the type of data was small_runs.Points, is test_identity.Noisy"),
    "what changes the data": (
        replace(QUICK, data=Augmented(augment=Noise(0.1))),
        replace(QUICK, data=Augmented(augment=Noise(0.2))),
        "data.augment.attributes.share was 0.1, is 0.2",
    ),
    "stage": (
        QUICK,
        replace(QUICK, stages=wild(QUICK)),
        "the type of stages.0 was supermask's own, is test_identity.Wild",
    ),
    "stage without fields": (
        replace(QUICK, stages=(SEARCH, Twice(True))),
        replace(QUICK, stages=(SEARCH, Twice(False))),
        "stages.1.recalibrate was True, is False",
    ),
    "builder": (
        replace(QUICK, network=lambda classes: mlp(classes + 0)),
        replace(QUICK, network=lambda classes: mlp(4)),
        "the type of network was test_identity.<lambda>:",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_parts_are_two_runs(name: str, tmp_path: Path) -> None:
    one, other, said = PAIRS[name]
    placed(one, tmp_path / "one").execute()
    with pytest.raises(RunFolderError, match="holds a run of another configuration") as caught:
        placed(other, tmp_path / "one", resume=True).execute()
    assert said in str(caught.value)
    assert " at 0x" not in (tmp_path / "one" / "config.json").read_text()
    placed(one, tmp_path / "one", resume=True).execute()  # itself it resumes
    placed(one, tmp_path / "again", seed=1).execute()
    placed(other, tmp_path / "other").execute()
    lines = group(read_run(tmp_path / name) for name in ("one", "other", "again"))
    assert [len(line.runs) for line in lines] == [2, 1]
    assert len({line.label for line in lines}) == 2
    assert not any("(2)" in line.label for line in lines), "the label says in what they differ"


MINE = """
from dataclasses import dataclass
import torch
from supermask import Architecture, Recipe, RunOptions, Training, main
from tests.supermask.runs.small_runs import BASE, Points

def network(classes):
    return Architecture(name="mlp", arguments={"sizes": [20, 24, classes]})

def recipe(run: RunOptions = RunOptions()) -> Recipe:
    return Recipe(name="mine", data=Points(), network=network, training=Training(epochs=1, lr=0.3), run=run,
                  stages=BASE.course[:2])

if __name__ == "__main__":
    main(recipe)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's file."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine_of_identity.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path / "lab")
    module = importlib.import_module("mine_of_identity")
    yield module  # type: ignore[misc]
    del sys.modules["mine_of_identity"]


def test_a_builder_whose_file_changed_is_another(mine: ModuleType, tmp_path: Path) -> None:
    made = mine.recipe()
    placed(made, tmp_path / "run").execute()
    config = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    digest = sha256(MINE.encode()).hexdigest()
    assert config["code"]["network"] == {
        "type": "mine_of_identity.network",
        "source": {"mine_of_identity": digest},
    }
    file = Path(str(mine.__file__))
    file.write_text(MINE.replace("24", "24 + 0"))
    other = sha256(file.read_bytes()).hexdigest()
    with pytest.raises(RunFolderError) as caught:
        placed(made, tmp_path / "run", resume=True).execute()
    said = f"network in mine_of_identity was of SHA-256 {digest[:12]}, is of SHA-256 {other[:12]}"
    assert f"the code of {said}" in str(caught.value)
    placed(made, tmp_path / "other").execute()
    assert len(group(read_run(tmp_path / name) for name in ("run", "other"))) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_a_script_is_its_file_however_it_is_begun(tmp_path: Path) -> None:
    ways = (["-m", "mine_of_identity"], ["lab/mine_of_identity.py"], ["-m", "lab.mine_of_identity"])
    for number, way in enumerate(ways):
        done = subprocess.run(
            [sys.executable, *way, "--run.folder", "run", "--run.quiet", *(["--resume"] if number else [])],
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": f"{ROOT}:{tmp_path / 'lab'}:{tmp_path}",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_run_of_an_earlier_release_is_the_same_run_where_all_of_it_is_supermask_s(tmp_path: Path) -> None:
    from supermask.recipes import digits_ep

    made = replace(digits_ep.recipe(), training=Training(epochs=1, lr=0.3))
    assert made.code() == {}
    placed(made, tmp_path / "run").execute()
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    assert "code" not in config["recipe"]
    assert config["recipe"].pop("results") == 1
    file.write_text(json.dumps(config))
    placed(made, tmp_path / "run", resume=True).execute()
    placed(made, tmp_path / "other", seed=1).execute()
    assert len(group(read_run(tmp_path / name) for name in ("run", "other"))) == 1


def test_another_version_of_results_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(QUICK, tmp_path / "run").execute()
    monkeypatch.setattr("supermask.runs.configuration.RESULTS", 2)
    with pytest.raises(RunFolderError, match="results was 1, is 2"):
        placed(QUICK, tmp_path / "run", resume=True).execute()
    placed(QUICK, tmp_path / "other").execute()
    assert len(group(read_run(tmp_path / name) for name in ("run", "other"))) == 2


def test_a_resumed_run_without_a_name_says_why_the_newest_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = RunOptions(device="cpu")
    replace(QUICK, run=options).execute()
    monkeypatch.setenv("COLUMNS", "1000")
    again = replace(QUICK, training=Adam(epochs=1, lr=0.3), run=replace(options, resume=True))
    again.execute()
    said = capsys.readouterr().out
    assert "(runs/base-1 is another run: " in said
    assert "the type of training was supermask's own, is test_identity.Adam" in said


def adam(run: RunOptions, training: Training = Training(epochs=1, lr=0.3), data: Any = Points()) -> Recipe:
    """A user's recipe."""
    return replace(QUICK, run=run, training=training, data=data)


def test_the_folders_of_a_grid_tell_the_user_s_parts(tmp_path: Path, mine: ModuleType) -> None:
    def job(**arguments: Any) -> Path:
        return Job(recipe=adam, arguments=arguments, run=RunOptions(device="cpu"), parent=tmp_path).folder

    assert len({job(), job(training=Adam(epochs=1)), job(training=Plain(epochs=1))}) == 3
    assert job(data=Augmented(augment=Noise(0.1))) == job(data=Augmented(augment=Noise(0.1)))
    assert job(data=Augmented(augment=Noise(0.1))) != job(data=Augmented(augment=Noise(0.2)))
    own = Job(recipe=mine.recipe, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    before = own.folder
    Path(str(mine.__file__)).write_text(MINE + "\n")
    assert own.folder != before


def test_the_folders_of_a_grid_are_those_of_any_gpu(tmp_path: Path) -> None:
    def job(device: str) -> Path:
        return Job(recipe=adam, arguments={}, run=RunOptions(device=device), parent=tmp_path).folder

    assert job("cuda") == job("cuda:0") == job("cuda:1") != job("cpu")


def test_a_grid_takes_no_run_of_another_configuration(tmp_path: Path) -> None:
    one = Job(recipe=adam, arguments={}, run=RunOptions(device="cpu"), parent=tmp_path)
    placed(adam(RunOptions()), one.folder).execute()
    assert one.done
    run_grid([one])
    edit_config(one.folder, training={"epochs": 7})
    before = (one.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(GridError, match=r"holds a run of another configuration: .*training.epochs was 7, is 1"):
        run_grid([one])
    assert (one.folder / "metrics.jsonl").read_bytes() == before


def test_what_is_set_in_a_module_or_a_class_tells_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set_here.py").write_text(
        "import torch\nfrom supermask import Architecture, Training\nRATE = 0.1\n\n"
        "class Mine(Training):\n    beta = 0.9\n"
        "    def make_optimiser(self, model):\n        return torch.optim.Adam(model.parameters(), lr=RATE)\n\n"
        "WIDTH = 24\n\ndef network(classes):\n"
        "    return Architecture(name='mlp', arguments={'sizes': [20, WIDTH, classes]})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import set_here  # type: ignore[import-not-found]

    def code() -> str:
        return json.dumps(replace(BASE, training=set_here.Mine(), network=set_here.network).code(), sort_keys=True)

    first = code()
    assert code() == first
    monkeypatch.setattr(set_here, "RATE", 0.2)
    second = code()
    monkeypatch.setattr(set_here.Mine, "beta", 0.5)
    third = code()
    monkeypatch.setattr(set_here, "WIDTH", 32)
    assert len({first, second, third, code()}) == 4
