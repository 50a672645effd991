"""One batch goes through a network before its run folder is made; what does not fit leaves nothing, a fit no trace."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supermask.data.base import Batch, Loaded, Part, in_memory
from supermask.data.digits import Digits
from supermask.networks.architecture import Architecture
from supermask.runs import run as runs
from supermask.runs.options import RecipeError, RunOptions
from supermask.runs.stages import Train
from supermask.runs.trial import first
from tests.ranks import free_port, meet, on_ranks
from tests.supermask.runs.small_runs import BASE, CASES, Points, left_by, placed, same

DIGITS = replace(BASE, data=Digits(layout="image"))


def named(name: str, **arguments: Any) -> Any:
    return lambda classes: Architecture(name=name, arguments={"num_classes": classes, **arguments})


@dataclass(frozen=True, kw_only=True)
class Mislabelled:
    """Three classes, one of which has the number 3."""

    batch: int = 8

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        x, y = torch.ones(32, 20, device=device), torch.arange(32, device=device) % 4
        return in_memory(x, y, x, y, batch=self.batch, seed=seed, classes=3)


class Tuple(nn.Module):
    """Gives more than logits in training."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Any:
        return (self.fc(x), self.fc(x)) if self.training else self.fc(x)


@dataclass(frozen=True, kw_only=True)
class Made(Architecture):
    """A network of no registry."""

    name: str = "made"

    def build(self) -> nn.Module:
        return Tuple()


MISFITS = {
    "one channel for three": (
        replace(DIGITS, network=named("conv2")),
        r"conv2\(num_classes=10\) cannot be trained on Digits, whose inputs have the shape \(1, 8, 8\) \(it is made "
        r"for \(3, 32, 32\)\): .*weight of size \[64, 3, 3, 3\], expected input\[2, 1, 8, 8\] to have 3 channels",
    ),
    "too small a picture": (
        replace(DIGITS, network=named("conv2", channels=1)),
        r"the shape \(1, 8, 8\) \(it is made for \(1, 32, 32\)\)",
    ),
    "features": (
        replace(BASE, network=lambda classes: Architecture(name="mlp", arguments={"sizes": [21, classes]})),
        r"shape \(20,\) \(it is made for \(21,\)\)",
    ),
    "fewer outputs than classes": (
        replace(BASE, network=lambda classes: Architecture(name="mlp", arguments={"sizes": [20, classes - 1]})),
        r"its outputs have the shape \(3,\), and labels go from 0 to 3",
    ),
    "labels beyond the classes": (replace(BASE, data=Mislabelled()), "labels go from 0 to 3"),
    "no logits": (replace(BASE, network=lambda classes: Made()), "returned tuple"),
    "dense": (replace(DIGITS, network=named("resnet18"), stages=(Train(),)), "to have 3 channels"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_told_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    recipe, says = MISFITS[name]
    with pytest.raises(RecipeError, match=says) as told:
        placed(recipe, tmp_path / "runs" / "mine").execute()
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_batch_norms_with_one_example_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="more than 1 value per channel"):
        placed(replace(BASE, data=Points(batch=1)), tmp_path / "run").execute()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_same_as_without(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(CASES[case], tmp_path / "with").execute()
    monkeypatch.setattr(runs, "try_out", lambda *_, **__: None)
    placed(CASES[case], tmp_path / "without").execute()
    assert same(left_by(tmp_path / "with"), left_by(tmp_path / "without"))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Whoever asks for test data draws from every generator there is."""

    batch: int = 16

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        loaded = Points(batch=self.batch).open(seed=seed, device=device)

        def test(part: Part) -> Iterator[Batch]:
            random.random()
            np.random.rand()
            torch.rand(1)
            return loaded.test(part)

        return replace(loaded, test=test)


def test_generators_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index,union-attr]

    seen = []
    real = runs.try_out

    def watched(*args: Any, **kwargs: Any) -> None:
        before = states()
        real(*args, **kwargs)
        seen.append(before == states())

    monkeypatch.setattr(runs, "try_out", watched)
    placed(replace(BASE, data=Drawing()), tmp_path / "run").execute()
    assert seen == [True]


def test_a_batch_is_as_large_as_asked_for() -> None:
    x, y = torch.arange(3.0)[:, None], torch.arange(3)
    for count in (1, 3, 5):
        inputs, labels = first((x, y), count)
        assert inputs[:, 0].tolist() == labels.tolist() == [0, 1, 2, 2, 2][:count]


def test_processes_end_together(tmp_path: Path) -> None:
    on_ranks(misfit, str(tmp_path), free_port())
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    assert "conv2" in (tmp_path / "1").read_text()
    assert (tmp_path / "0").read_text() == "another process cannot train on Digits; it says why"


def misfit(rank: int, folder: str, port: int) -> None:
    """Rank 1 alone has a network that does not fit."""
    meet(rank, port)
    network = named("conv2", channels=1, size=8) if rank == 0 else named("conv2")
    options = RunOptions(folder=Path(folder) / "run", device="cpu", quiet=True)
    try:
        replace(DIGITS, network=network, run=options, data=Digits(layout="image", batch=32)).execute()
    except RecipeError as error:
        (Path(folder) / str(rank)).write_text(str(error))
        os._exit(0)
