"""TensorBoard's own reader finds in the event files what the metrics hold."""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supermask.runs.options import RecipeError
from supermask.runs.read import read_metrics
from supermask.runs.recipe import Recipe
from supermask.runs.trackers import TensorBoard
from supermask.runs.validation import Validation
from tests.supermask.methods.courses import Draws
from tests.supermask.runs.small_runs import BASE, Killed, a_save_every, placed, watched
from tests.supermask.runs.test_validation import Held


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, (step, value) of each scalar under `folder`."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    files = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    (run,) = files.Runs()
    return {tag: [(e.step, e.value) for e in files.Scalars(run, tag)] for tag in files.Runs()[run]["scalars"]}


def expected(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    step, found = 0, defaultdict(list)
    for event in read_metrics(folder):
        step = event.get("step", step)
        groups = ("measures", "measures_recalibrated")
        measures = {f"{group}/{name}": value for group in groups for name, value in event.get(group, {}).items()}
        for name, value in {**event, **measures}.items():
            if isinstance(value, int | float) and name not in ("step", "epoch", "cycle"):
                found[f"{event['event']}/{name}"].append((step, pytest.approx(float(value), rel=1e-6)))
    return dict(found)


@pytest.mark.parametrize("option", [True, False], ids=["option", "hook"])
@pytest.mark.parametrize("resumed", [False, True])
def test_each_number_of_the_metrics_once_at_its_step(resumed: bool, option: bool, tmp_path: Path) -> None:
    def made() -> Recipe:
        return BASE if option else replace(BASE, hooks=(TensorBoard(),))

    if resumed:
        with watched(170), a_save_every(3), pytest.raises(Killed):
            placed(made(), tmp_path / "run", tensorboard=option, checkpoint_seconds=3).execute()
    placed(made(), tmp_path / "run", tensorboard=option, resume=resumed).execute()
    found = scalars(tmp_path / "run" / "tensorboard")
    assert found == expected(tmp_path / "run")
    assert [step for step, _ in found["epoch/loss"]] == [5, 10, 15, 20]
    assert {"cycle/dying", "evaluate/recalibrated", "export/bytes"} <= found.keys()


def test_what_a_method_measures_is_there(tmp_path: Path) -> None:
    made = replace(BASE, method=Draws(remaining=0.5), stages=None)
    placed(made, tmp_path / "run", tensorboard=True).execute()
    found = scalars(tmp_path / "run" / "tensorboard")
    assert found == expected(tmp_path / "run")
    assert {"evaluate/measures/spread", "export/measures/spread"} <= found.keys()


def test_without_the_package_the_run_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError, match=r'pip install "supermask\[tensorboard\]"'):
        placed(BASE, tmp_path / "run", tensorboard=True).execute()
    assert not list(tmp_path.iterdir())


def test_the_settings_are_there_as_text(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    placed(BASE, tmp_path / "run", tensorboard=True).execute()
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    (text,) = found.Tensors("settings/text_summary")
    assert "| training.lr | 0.3 |" in text.tensor_proto.string_val[0].decode()


def test_what_is_found_on_held_out_images_is_there(tmp_path: Path) -> None:
    recipe = replace(BASE, data=Held(), validation=Validation(every=2, pick="best"))
    placed(recipe, tmp_path / "run", tensorboard=True).execute()
    found = scalars(tmp_path / "run" / "tensorboard")
    assert found == expected(tmp_path / "run")
    assert [step for step, _ in found["epoch/validation"]] == [6, 12]
    assert len(found["cycle/validation"]) == 2
