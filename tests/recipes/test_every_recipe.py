"""Every recipe file: its command line, its plan, and that its name is its module's."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import recipes
from supermask import Network
from supermask.runs.options import RunOptions
from tests.recipes.command import run

EVERY = [module.name for module in pkgutil.iter_modules(recipes.__path__) if not module.name.startswith("_")]
GRIDS = {"table1", "table2", "table3", "figure3", "figure4a", "figure5", "layerwise"}
DATA = "digits", "cifar10", "cifar100", "svhn", "imagenet"
EXPERIMENTS = sorted(set(EVERY) - GRIDS - {*DATA, "digits32"})


def test_the_recipes_are_the_documented_ones() -> None:
    expected = {f"{name}_{method}" for name in DATA for method in ("ep", "hard_iep", "soft_iep", "dense")}
    assert set(EXPERIMENTS) == expected | {"digits_ep_long"}
    assert set(EVERY) >= {*GRIDS, *DATA, "digits32"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_plan_needs_no_data_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = RunOptions(dry_run=True)
    recipe = importlib.import_module(f"recipes.{name}").recipe
    # The papers' networks take seconds to draw, or a step does: a small one says as much.
    small = {} if name.startswith("digits") else {"network": Network(name="resnet18", arguments={"width": 0.125})}
    planned = recipe(run=options, **small)
    assert planned.name == name
    planned.execute()
    out = capsys.readouterr().out
    assert f"{name}: " in out
    assert "steps in all" in out
    assert "memory: about" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar10_soft_iep", "imagenet_dense", "figure3"])
def test_help_on_the_command_line(name: str, tmp_path: Path) -> None:
    done = run(f"recipes.{name}", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout
    assert f"usage: python -m recipes.{name} " in done.stdout


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_usage_lines_of_grids_are_commands(name: str, tmp_path: Path) -> None:
    done = run(f"recipes.{name}", "--help", cwd=tmp_path)
    assert f"usage: python -m recipes.{name} " in done.stdout


TOOLS = "supermask inspect", "supermask report", "benchmarks.threshold", "benchmarks.gpu", "benchmarks"


@pytest.mark.parametrize("name", TOOLS)
def test_usage_lines_of_tools_are_commands(name: str, tmp_path: Path) -> None:
    done = run(*name.split(), "--help", cwd=tmp_path)
    assert done.stdout.startswith(f"usage: python -m {name} ")


def test_public_names_are_enough() -> None:
    """Whoever writes an experiment of their own needs no inner module."""
    public = {"supermask", "supermask.reports", "supermask.runs"}
    for file in Path(recipes.__path__[0]).glob("*.py"):
        modules = {node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
        own = {module for module in modules if module and module.startswith("supermask.recipes._")}
        assert {module for module in modules - own if module and module.startswith("supermask")} <= public, file


def test_paper_settings() -> None:
    """Section 5 of the soft iEP paper."""
    from supermask.recipes import cifar10_soft_iep, imagenet_hard_iep

    small = cifar10_soft_iep.recipe()
    assert (small.training.lr, small.training.momentum, small.training.weight_decay) == (0.1, 0.9, 1e-4)
    assert (small.training.epochs, small.training.warmup, small.data.batch) == (100, 0, 128)  # type: ignore[attr-defined]
    rates = [stage.cycle.remaining for stage in small.course if hasattr(stage, "cycle")]
    assert rates == pytest.approx([0.8**i for i in range(1, 16)])
    large = imagenet_hard_iep.recipe()
    assert (large.training.lr, large.training.momentum, large.training.weight_decay) == (0.3, 0.875, 3e-5)
    assert (large.training.epochs, large.training.warmup, large.data.batch) == (100, 5, 512)  # type: ignore[attr-defined]
    rates = [stage.cycle.remaining for stage in large.course if hasattr(stage, "cycle")]
    assert rates == pytest.approx([0.3 ** (1 / 3), 0.3 ** (2 / 3), 0.3])
