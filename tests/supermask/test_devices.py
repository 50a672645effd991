"""Which devices a flag may name, on a machine with some GPUs or none."""

from pathlib import Path

import pytest
import torch

from supermask.devices import device_named, meant, set_seed
from supermask.recipes import digits_ep
from supermask.runs.options import RecipeError, RunOptions
from tests.recipes.command import run


def with_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "name", "stands_for"),
    [(0, "auto", "cpu"), (1, "auto", "cuda"), (0, "cpu", "cpu"), (0, "cpu:0", "cpu:0"), (2, "cuda:1", "cuda:1")],
)
def test_what_is_there(count: int, name: str, stands_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(count, monkeypatch)
    assert str(device_named(name)) == stands_for
    assert torch.device(meant(name)) == device_named(name)


@pytest.mark.parametrize(
    ("count", "name", "says"),
    [
        (0, "cuda", "torch finds no GPU here; run on cpu"),
        (0, "cuda:7", "torch finds no GPU here; run on cpu"),
        (1, "cuda:1", "torch finds cuda:0 alone here"),
        (4, "cuda:7", "torch finds cuda:0 to cuda:3 here"),
        (1, "cuda:256", "torch finds cuda:0 alone here"),  # torch itself takes it for cuda:0
        (0, "cpu:1", "say cpu"),
        *(
            (1, name, "expected auto, cpu, cuda or cuda:N")
            for name in ("mps", "meta", "xpu:0", "", "cuda:", "CUDA", "cuda:x")
        ),
    ],
)
def test_what_is_not(count: int, name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(count, monkeypatch)
    with pytest.raises(ValueError, match=says) as told:
        device_named(name)
    assert repr(name) in str(told.value)


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps", "meta"])
def test_a_plan_is_refused_as_the_run_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(0, monkeypatch)
    for dry_run in (True, False):
        options = RunOptions(device=name, dry_run=dry_run, folder=tmp_path / "run")
        with pytest.raises(RecipeError, match=f"device '{name}'"):
            digits_ep.recipe(run=options).execute()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", ["recipes.digits_ep --run.device", "recipes.figure3 --device", "recipes.table1 --device"]
)
def test_on_the_command_line_it_is_one_sentence(command: str, tmp_path: Path) -> None:
    done = run(*command.split(), "mps", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "device 'mps': expected auto, cpu, cuda or cuda:N\n"


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_a_seed_is_torch_s(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.rand(5)
        set_seed(seed, torch.device("cpu"))
        assert torch.equal(torch.rand(5), expected)


def test_of_gpus_the_one_at_hand_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run goes on there; on a machine without one its calls are noted."""
    seeded: list[tuple[int, int]] = []
    current = [0]

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((current[-1], seed)))
    with torch.random.fork_rng(devices=[]):
        set_seed(3, torch.device("cuda:1"))
        assert torch.initial_seed() == 3
        set_seed(4, torch.device("cpu"))
    assert seeded == [(1, 3)]
