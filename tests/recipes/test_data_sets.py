"""The recipes of a data set: every method is a subcommand, with the data set's settings."""

import importlib
import json
from pathlib import Path

import pytest

import supermask
from supermask.methods import METHODS
from supermask.runs import name_of
from supermask.runs.read import read_metrics
from tests.recipes.command import run

DATA = ("digits", "digits32", "cifar10", "cifar100", "svhn", "imagenet")
SUBCOMMANDS = {label: label.lower().replace(" ", "-") for label in METHODS}


@pytest.mark.parametrize("data", DATA)
def test_help_lists_the_methods_with_their_papers(data: str, tmp_path: Path) -> None:
    done = run(f"recipes.{data}", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python -m recipes.{data} " in done.stdout
    words = " ".join(done.stdout.replace("│", " ").replace("•", " ").split())
    for label, method in METHODS.items():
        assert f" {SUBCOMMANDS[label]} {(type(method).__doc__ or '')[:9]}" in words
        assert f"{method.paper}." in words
    assert " dense All weights" in words


@pytest.mark.parametrize("label", METHODS)
def test_help_of_a_subcommand_names_the_paper_and_its_settings(label: str, tmp_path: Path) -> None:
    done = run("recipes.digits", SUBCOMMANDS[label], "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m recipes.digits {SUBCOMMANDS[label]} " in done.stdout
    assert METHODS[label].paper in " ".join(done.stdout.split())
    for flag in ("--method.", "--data.batch", "--training.lr", "--conversion.overrides", "--run.seed", "--dry-run"):
        assert flag in done.stdout


@pytest.mark.parametrize("subcommand", [*SUBCOMMANDS.values(), "dense"])
def test_the_plan_of_every_method(subcommand: str, tmp_path: Path) -> None:
    done = run("recipes.digits", subcommand, "--dry-run", "--data.batch", 50, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"digits_{subcommand.replace('-', '_')}: mlp" in done.stdout
    assert "20 steps an epoch" in done.stdout
    assert not list(tmp_path.iterdir())


def test_no_method_and_a_wrong_one_end_with_two_and_the_list(tmp_path: Path) -> None:
    for arguments in ((), ("hardest-iep",)):
        done = run("recipes.digits", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "soft-iep-srw-zero" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("subcommand", ["soft-iep", "iterand", "multicoated"])
def test_a_method_end_to_end(subcommand: str, tmp_path: Path) -> None:
    options = ["--training.epochs", 1, "--run.seed", 3, "--run.device", "cpu", "--run.folder", "run"]
    done = run("recipes.digits", subcommand, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    config = json.loads((folder / "config.json").read_text())["recipe"]
    assert (config["name"], config["run"]["seed"]) == (f"digits_{subcommand.replace('-', '_')}", 3)
    cycles = [event for event in read_metrics(folder) if event["event"] == "cycle"]
    assert [cycle["kept"] for cycle in cycles][-1] == 2640
    assert len(cycles) == (5 if subcommand == "soft-iep" else 1)
    ticket = supermask.inspect(folder / "ticket.safetensors")
    assert ticket.architecture.name == "mlp"
    if subcommand == "iterand":
        assert (config["method"]["type"], config["method"]["every"]) == ("supermask.methods.iterand.IteRand", 24)
        assert (config["conversion"]["magnitude"], config["conversion"]["scores"]) == ("raw", "kaiming_uniform_relu")
    else:
        assert config["conversion"]["magnitude"] == "abs"


def test_it_is_the_run_of_the_older_module(tmp_path: Path) -> None:
    options = ["--training.epochs", 1, "--run.device", "cpu"]
    one = run("recipes.digits_hard_iep", *options, "--cycles", 2, cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    other = run("recipes.digits", "hard-iep", *options, "--method.cycles", 2, "--resume", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert "runs/digits_hard_iep-1: goes on after 62 of 62 steps" in other.stdout


def recipe(data: str, label: str) -> supermask.Recipe:
    module = importlib.import_module(f"supermask.recipes.{data}")
    return module.recipe(name_of(label), module.METHODS[label])


@pytest.mark.parametrize("label", ["soft iEP", "hard iEP SRi", "soft iEP zero"])
def test_iterations_go_through_the_rates_of_the_data_set(label: str) -> None:
    for data in ("digits32", "cifar10", "cifar100", "svhn"):
        rates = [cycle.remaining for cycle in recipe(data, label).cycles]
        assert rates == pytest.approx([0.8**i for i in range(1, 16)])
    for data, final, cycles in (("digits", 1 / 32, 5), ("imagenet", 0.3, 3)):
        rates = [cycle.remaining for cycle in recipe(data, label).cycles]
        assert rates == pytest.approx([final ** (i / cycles) for i in range(1, cycles + 1)])


def test_methods_of_one_rate() -> None:
    rates = {data: [recipe(data, label).cycles[-1].remaining for label in ("EP", "IteRand")] for data in DATA}
    small = {data: [0.3, 0.4] for data in ("digits32", "cifar10", "cifar100", "svhn")}
    assert rates == {"digits": [1 / 32] * 2, **small, "imagenet": [0.3] * 2}
    every = {data: vars(recipe(data, "IteRand").method)["every"] for data in DATA}
    assert every == {"digits": 24, **dict.fromkeys(small, 300), "imagenet": 1000}
    for data in DATA:
        assert recipe(data, "EP long").epochs == recipe(data, "soft iEP").epochs
        assert len(recipe(data, "multicoated").cycles) == 1
        assert len(recipe(data, "multicoated soft iEP").cycles) == len(recipe(data, "soft iEP").cycles)
