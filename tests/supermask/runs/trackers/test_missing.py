"""Trackers whose package is not installed say so when they are made; none takes part in what a run is."""

import sys

import pytest

from supermask import trackers
from supermask.runs.hook import CHANGING, changes, overrides
from supermask.runs.options import RecipeError


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_package_is_asked_for_when_the_hook_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    kind = {"mlflow": trackers.MLflow, "wandb": trackers.WandB}[name]
    with pytest.raises(RecipeError, match=f"{name} is not installed: pip install {name}"):
        kind()


@pytest.mark.parametrize("kind", [trackers.MLflow, trackers.TensorBoard, trackers.WandB])
def test_trackers_only_look_and_one_process_tells(kind: type[trackers.TensorBoard]) -> None:
    assert not changes(kind)
    assert not any(overrides(kind, place) for place in CHANGING)
    assert kind.first_only
