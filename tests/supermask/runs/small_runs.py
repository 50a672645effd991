"""Small recipes, stopped at chosen moments: what tests of resuming share.

A moment is a count of the places a run passes (`PLACES`: training steps, lines, checkpoints, syncs, renames, before and
after each), never a time.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supermask.data.base import Loaded, in_memory
from supermask.data.pixels import RandomCrop, normalised
from supermask.methods.iep import hard_iep, hard_iep_ft, hard_iep_sri, soft_iep, soft_iep_ft, soft_iep_zero
from supermask.networks.architecture import Architecture
from supermask.runs import measured, session
from supermask.runs.checkpoint import Checkpoints, read
from supermask.runs.folder import RunFolder
from supermask.runs.options import Conversion, RunOptions
from supermask.runs.recipe import Recipe
from supermask.runs.stages import Evaluate, Export, Train, search
from supermask.training.loop import Loop
from supermask.training.training import Training
from tests.devices import DEVICE

RATES = (0.5, 0.3)
PLACES: tuple[tuple[Any, str], ...] = (
    (Loop, "take_step"),
    (RunFolder, "append"),
    (Checkpoints, "save"),
    (measured, "right_of"),
    (os, "fsync"),
    (os, "replace"),
    (Path, "replace"),
    (Path, "unlink"),
)


@dataclass(frozen=True, kw_only=True)
class Points:
    """80 points of four classes, five batches an epoch."""

    batch: int = 16

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        x = torch.randn(120, 20, generator=torch.Generator().manual_seed(3))
        y = x[:, :4].argmax(1)
        x, y = x.to(device), y.to(device)
        return in_memory(x[:80], y[:80], x[80:], y[80:], batch=self.batch, seed=seed, at_once=32)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """48 pictures of 8x8, cropped and mirrored in training as CIFAR's are."""

    batch: int = 16

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        generator = torch.Generator().manual_seed(4)
        x = torch.randint(256, (72, 3, 8, 8), dtype=torch.uint8, generator=generator)
        y = (x[:, 0].float().mean((1, 2)) > 127).long()
        x, y = x.to(device), y.to(device)
        return in_memory(
            x[:48], y[:48], x[48:], y[48:], batch=self.batch, seed=seed, classes=2, augment=RandomCrop(pad=2),
            prepare=normalised([0.5] * 3, [0.25] * 3, device),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Dropping(Architecture):
    """A network with dropout; no name of the registry is one this small."""

    name: str = "dropping"

    def build(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return nn.Sequential(nn.Linear(20, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.4), nn.Linear(24, 4))


def mlp(classes: int) -> Architecture:
    return Architecture(name="mlp", arguments={"sizes": [20, 24, classes]})


def convolutions(classes: int) -> Architecture:
    arguments = {"num_classes": classes, "widths": [8, 8], "hidden": [16], "size": 8, "norm": True}
    return Architecture(name="conv2", arguments=arguments)


TRAINING = Training(epochs=2, lr=0.3)
BASE = Recipe(name="base", data=Points(), network=mlp, training=TRAINING, stages=(*search(soft_iep(RATES)), Export()))
CASES: Mapping[str, Recipe] = {
    "soft iEP": BASE,
    "soft iEP zero": replace(BASE, stages=(*search(soft_iep_zero(RATES)), Export())),
    "soft iEP FT": replace(BASE, stages=(*search(soft_iep_ft(RATES)), Export())),
    "hard iEP": replace(BASE, stages=(*search(hard_iep(RATES)), Export())),
    "hard iEP FT": replace(BASE, stages=(*search(hard_iep_ft((*RATES, 0.1))), Export())),
    "hard iEP SRi, biases trained": replace(
        BASE,
        network=lambda classes: Dropping(),
        stages=search(hard_iep_sri(RATES)),
        conversion=Conversion(bias="train", norm="train", scores="kaiming_normal", magnitude="raw"),
    ),
    "dropout, a pinned layer": replace(
        BASE,
        network=lambda classes: Dropping(),
        stages=search(soft_iep(RATES)),
        conversion=Conversion(overrides={"4": 1.0}),
    ),
    "dense": replace(BASE, stages=(Train(length=2), Evaluate())),
    "augmented pictures, bfloat16": replace(
        BASE,
        data=Pictures(),
        network=convolutions,
        training=replace(TRAINING, precision="bfloat16"),
    ),
}


def placed(recipe: Recipe, folder: Path, **options: Any) -> Recipe:
    """`recipe` in `folder`, on the device that tests take."""
    return replace(recipe, run=RunOptions(folder=folder, device=str(DEVICE), quiet=True, **options))


class Killed(BaseException):
    """The run ends here, as if the process had been killed."""


@dataclass
class Moments:
    """Counts the places a run passes, and ends it at one."""

    at: int | None = None
    passed: int = 0
    names: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> None:
        self.passed += 1
        self.names.append(name)
        if self.passed == self.at:
            raise Killed(name)


@contextmanager
def watched(at: int | None = None) -> Iterator[Moments]:
    """Count the places that runs pass within the block; the `at`-th raises Killed."""
    moments = Moments(at)

    def around(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            moments(f"before {name}")
            result = function(*args, **kwargs)
            moments(f"after {name}")
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in PLACES:
            patch.setattr(owner, name, around(f"{owner.__name__}.{name}", getattr(owner, name)))
        yield moments


@contextmanager
def a_save_every(steps: int) -> Iterator[None]:
    """Within the block checkpoints fall due by counting: the clock that runs look at for them ticks once a look."""
    now = 0

    def tick() -> float:
        nonlocal now
        now += 1
        return float(now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.time, "monotonic", tick)
        yield


def left_by(folder: Path) -> dict[str, Any]:
    """What a finished run leaves that must not depend on whether it was stopped: its files, and its last state."""
    files = ["metrics.jsonl", "ranks.jsonl", "ticket.safetensors", *(f"masks/{p.name}" for p in folder.glob("masks/*"))]
    held: dict[str, Any] = {name: (folder / name).read_bytes() for name in files if (folder / name).exists()}
    summary = json.loads((folder / "summary.json").read_bytes())
    trained = any(json.loads(line)["event"] == "epoch" for line in held["metrics.jsonl"].splitlines())
    assert (summary.pop("seconds") > 0) == trained
    return held | {"state": last_state(folder), "summary": summary}


def last_state(folder: Path) -> dict[str, Any]:
    """What the newest checkpoint of `folder` holds."""
    payload = Checkpoints(folder / "checkpoints").newest(pytest.fail)
    assert payload is not None
    return read(payload)


def same(one: Any, other: Any) -> bool:
    """Whether two of `left_by` are equal to the bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
