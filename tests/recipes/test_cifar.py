"""The recipes of small images, whole, on a few images in the published file formats."""

from pathlib import Path

import numpy as np
import pytest

import supermask
from supermask.runs.read import read_metrics
from tests.recipes.command import run
from tests.supermask.data.test_image_sets import TEST, TRAIN, write_cifar10, write_cifar100, write_svhn

SMALL = ["--data.batch", 16, "--network.arguments", "width", 0.125, "--training.epochs", 1, "--run.device", "cpu"]
WRITE = {"cifar10": write_cifar10, "cifar100": write_cifar100, "svhn": write_svhn}


def images(root: Path, name: str) -> Path:
    """Pictures whose brightness tells their class, of two."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, TRAIN + TEST).astype(np.uint8)
    x = (generator.integers(0, 60, (TRAIN + TEST, 3, 32, 32)) + 150 * y[:, None, None, None]).astype(np.uint8)
    root.mkdir()
    WRITE[name](root, x, y)
    return root


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("cifar10_soft_iep", ["--cycles", 2]),
        ("cifar100_hard_iep", ["--cycles", 2]),
        ("svhn_ep", ["--remaining", 0.5]),
        ("cifar10_dense", []),
    ],
)
def test_runs_end_to_end(recipe: str, options: list[object], tmp_path: Path) -> None:
    root = images(tmp_path / "data", recipe.partition("_")[0])
    folder = tmp_path / "run"
    arguments = [*SMALL, *options, "--data.root", root, "--run.folder", folder]
    done = run(f"recipes.{recipe}", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = read_metrics(folder)
    assert events[-1] == {"event": "end"}
    cycles = [event for event in events if event["event"] == "cycle"]
    assert len(cycles) == (2 if "iep" in recipe else 1)
    if "dense" in recipe:
        assert cycles[0]["remaining"] == 1.0
    else:
        ticket = supermask.inspect(folder / "ticket.safetensors")
        assert ticket.architecture.name == "resnet18"
        assert ticket.architecture.arguments["width"] == 0.125


def test_without_the_data_set_one_sentence_and_exit_code_two(tmp_path: Path) -> None:
    done = run("recipes.cifar10_ep", cwd=tmp_path)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert "--data.download" in sentence
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_wrong_network_is_told_before_the_data_is_asked_for(tmp_path: Path) -> None:
    done = run("recipes.cifar10_ep", "--network.name", "resnet19", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'resnet18'" in done.stderr
