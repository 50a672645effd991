"""--dry-run: what it prints is what a run does, and it writes nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from supermask.data.base import DataMissing
from supermask.data.digits import Digits
from supermask.data.image_folder import ImageFolder
from supermask.data.image_sets import CIFAR10
from supermask.methods.cycles import Cycle, Space
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP, hard_iep
from supermask.networks.allocation import Allocator
from supermask.networks.architecture import Architecture
from supermask.recipes import digits_soft_iep, imagenet_soft_iep
from supermask.runs import plan
from supermask.runs.options import Conversion, RecipeError, RunOptions
from supermask.runs.read import read_metrics, read_run
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Evaluate, Train, search
from supermask.training.training import Training
from tests.supermask.runs.small_runs import BASE, placed


def dry(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What --dry-run prints, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    result = replace(recipe, run=replace(recipe.run, dry_run=True, quiet=False)).execute()
    assert (result.folder, result.cycles, result.tickets) == (None, (), ())
    return capsys.readouterr().out


def rows(printed: str, columns: int) -> list[list[str]]:
    """The rows of that many cells that begin with a number or a layer's name."""
    return [cells for line in printed.splitlines() if len(cells := line.split()) == columns and cells[-1][0].isdigit()]


def test_kept_edges_and_steps_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(BASE, conversion=Conversion(overrides={"fc2": 1.0}), stages=search(hard_iep((0.5, 0.3, 0.07))))
    recipe = placed(recipe, tmp_path / "run")
    printed = dry(recipe, monkeypatch, capsys)
    assert not list(tmp_path.iterdir())
    recipe.execute()
    events = read_metrics(tmp_path / "run")
    cycles = [event for event in events if event["event"] == "cycle"]
    planned = rows(printed, 9)
    assert [row[0] for row in planned] == ["1", "2", "3"]
    assert [int(row[6].replace(",", "")) for row in planned] == [cycle["kept"] for cycle in cycles]
    assert [float(row[2]) for row in planned] == pytest.approx([cycle["remaining"] for cycle in cycles], abs=1e-4)
    assert [row[3:6] for row in planned] == [["initial", "rewind", "all"]] + [["inherit", "rewind", "survivors"]] * 2
    layers = {row[0]: [int(cell.replace(",", "")) for cell in row[1:]] for row in rows(printed, 5)}
    assert layers == {
        name: [layer["edges"], *(cycle["layers"][name]["kept"] for cycle in cycles)]
        for name, layer in cycles[0]["layers"].items()
    }
    assert f"{[e for e in events if e['event'] == 'epoch'][-1]['step']} steps in all" in printed


def test_a_described_set_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ImageFolder(root=tmp_path / "nowhere", batch=512)
    recipe = imagenet_soft_iep.recipe(data=data, network=Net(), run=RunOptions(device="cpu"))  # type: ignore[arg-type]
    printed = dry(recipe, monkeypatch, capsys)
    assert "batch 512, 2,502 steps an epoch" in printed
    assert f"{2502 * 300:,} steps in all" in printed
    assert re.search(r"memory: about [\d.]+ GB \(.*activations [\d.]+ GB", printed)
    with pytest.raises(DataMissing):
        recipe.execute()


class Net:
    """Stands in for an ImageNet recipe's network: the small one of torchvision's."""

    def __call__(self, classes: int) -> Architecture:
        return Architecture(name="torchvision/resnet18", arguments={"num_classes": classes})


def test_a_set_that_describes_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = dry(placed(BASE, tmp_path / "run"), monkeypatch, capsys)
    assert "Points, batch 16, 5 steps an epoch" in printed


def test_of_many_cycles_a_few_are_shown_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RunOptions(folder=tmp_path / "run", device="cpu")
    printed = dry(digits_soft_iep.recipe(cycles=8, run=options), monkeypatch, capsys)
    assert re.search(r"layer +edges +cycle 1 +cycle 3 +cycle 6 +cycle 8 *$", printed, re.MULTILINE)
    kept = [f"{round((1 / 32) ** (cycle / 8) * 2560):,}" for cycle in (1, 3, 6, 8)]
    assert re.search(rf"fc3 +2,560 +{' +'.join(kept)} *$", printed, re.MULTILINE)


@pytest.mark.parametrize("space", ["all", "survivors"])
def test_shares_of_layers_are_those_of_the_run(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    method = IEP(given=(0.5, 0.31, 0.3), space=space, allocate=Allocator(kind="erk", floor=2))
    recipe = placed(replace(BASE, method=method, stages=None), tmp_path / "run")
    printed = dry(recipe, monkeypatch, capsys)
    recipe.execute()
    cycles = read_run(tmp_path / "run").cycles
    assert [int(row[6].replace(",", "")) for row in rows(printed, 9)] == [cycle.kept for cycle in cycles]
    layers = {row[0]: [int(cell.replace(",", "")) for cell in row[2:]] for row in rows(printed, 5)}
    assert layers == {name: [cycle.layers[name].kept for cycle in cycles] for name in cycles[0].layers}


def test_what_one_ranking_finds_is_not_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    method = EP(remaining=0.3, ranking="network", anneal="linear")
    recipe = replace(BASE, method=method, stages=None, conversion=Conversion(overrides={"fc2": 0.25}))
    printed = dry(placed(recipe, tmp_path / "run"), monkeypatch, capsys)
    assert re.search(r"^ *fc1 +480 +found *$", printed, re.MULTILINE)
    assert re.search(r"^ *fc2 +96 +24 *$", printed, re.MULTILINE)
    assert re.search(r"^ *1 +1 to 0.3 +0.2917 +initial +rewind +all +168 ", printed, re.MULTILINE)


def test_layers_that_hard_pruning_leaves_no_room_are_found_before_a_run(tmp_path: Path) -> None:
    first = Cycle(remaining=0.3, allocate=Allocator(whole=("last",)))
    second = Cycle(remaining=0.29, scores="inherit", space="survivors")
    recipe = placed(replace(BASE, stages=search((first, second))), tmp_path / "run")
    with pytest.raises(
        RecipeError, match="cycle 2 keeps 139 edges of layer fc1, but hard pruning leaves the 77 of cycle 1"
    ):
        recipe.execute()
    assert not list(tmp_path.iterdir())


def test_dense_training_is_planned_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = replace(placed(BASE, tmp_path / "run"), stages=(Train(length=2), Evaluate()))
    printed = dry(dense, monkeypatch, capsys)
    assert re.search(r"^ *1 +1 +1 +dense +all +4 +20 *$", printed, re.MULTILINE)
    assert "20 steps in all" in printed
    assert "packed bits" not in printed


def test_what_a_run_refuses_a_plan_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = digits_soft_iep.recipe(data=Digits(batch=2000), run=RunOptions(folder=tmp_path / "run"))
    with pytest.raises(RecipeError, match="batch=2000: expected 1 to 1000"):
        dry(recipe, monkeypatch, capsys)
    with pytest.raises(RecipeError, match="fc9"):
        dry(replace(BASE, conversion=Conversion(overrides={"fc9": 1.0})), monkeypatch, capsys)


def test_memory_is_that_of_the_tensors() -> None:
    """An MLP without batch norm: activations that the backward keeps are the inputs of linear layers and of ReLU."""
    architecture = Architecture(name="mlp", arguments={"sizes": [100, 50, 10], "norm": False})
    sizes = plan.Sizes(name="x", classes=10, shape=(100,), batch=8, steps=1, note="")
    edges = 100 * 50 + 50 * 10
    soft = plan.memory(architecture.skeleton(), sizes, edges, [Cycle(remaining=0.5)], Training())
    assert (soft.trained, soft.bits, soft.weights) == (12 * edges, 3 * edges // 8, 4 * edges)
    assert soft.activations == 4 * 8 * (100 + 50)
    hard = plan.memory(architecture.skeleton(), sizes, edges, hard_iep((0.5, 0.3)), Training(precision="bfloat16"))
    assert (hard.trained, hard.bits, hard.weights) == (12 * edges, 4 * edges // 8, 2 * edges)
    assert hard.activations == 2 * 8 * (100 + 50)
    dense = plan.memory(architecture.skeleton(), sizes, edges, [], Training())
    assert (dense.bits, dense.weights) == (0, 0)
    assert soft.total == soft.trained + soft.bits + soft.weights + soft.activations


def test_a_network_that_the_meta_device_cannot_run_has_unknown_activations() -> None:
    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum().item() > 0 else -x

    sizes = plan.Sizes(name="x", classes=2, shape=(4,), batch=2, steps=1, note="")
    found = plan.memory(Looks(), sizes, 1_000_000, [], Training())
    assert found.activations is None
    assert "activations unknown" in str(found)
    assert "memory: at least" in str(found)


def test_a_sets_own_size_counts() -> None:
    found = plan.sizes(CIFAR10(batch=128), seed=0)
    assert (found.classes, found.shape, found.steps) == (10, (3, 32, 32), 390)
    assert plan.sizes(Digits(), seed=0).steps == 31
    assert Training().epochs == 100
