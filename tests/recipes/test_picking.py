"""Grids pick a learning rate for each row by held-out images, and show what was picked alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from supermask.recipes._grid import DENSE, TABLE_3, experiments, run
from supermask.recipes._picking import PickingGrid, held_out
from supermask.runs.read import RunRecord, read_run
from tests.supermask.runs.run_folders import write_run

ROWS = TABLE_3["EP"], TABLE_3["soft iEP"]
GRID = PickingGrid(lrs=(0.1, 0.3), hold_out=200, seeds=2)


def made(path: Path, seed: int, found: Sequence[float | None]) -> RunRecord:
    """A run whose cycles have these accuracies on held-out images; None of one that takes no step."""
    write_run(path, seed=seed, rates=[0.5, 0.25, 0.125][: len(found)])
    given, lines = iter(found), []
    for line in (path / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "cycle":
            accuracy = next(given)
            event |= {"loss": None, "train_accuracy": None} if accuracy is None else {"validation": accuracy}
        lines.append(event)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(path)


def test_each_row_has_its_own_by_the_mean_over_rates_and_seeds(tmp_path: Path) -> None:
    accuracies = {
        "EP, lr 0.1": [[0.9], [0.2], [0.9], [0.2]],
        "EP, lr 0.3": [[0.5], [0.7], [0.6], [0.7]],
        "soft iEP, lr 0.1": [[0.5, 0.9], [0.5, 0.9]],
        "soft iEP, lr 0.3": [[0.6, 0.6], [0.9, 0.5]],
    }
    found = {
        label: [
            made(tmp_path / label / str(number), number // (len(runs) // 2), values)
            for number, values in enumerate(runs)
        ]
        for label, runs in accuracies.items()
    }
    picked = GRID.picked(ROWS, found)
    assert {label: name for label, (name, _) in picked.items()} == {
        "EP": "EP, lr 0.3",
        "soft iEP": "soft iEP, lr 0.1",
    }
    assert picked["EP"][1] == found["EP, lr 0.3"]
    assert held_out(found["EP, lr 0.3"]) == pytest.approx((0.625, 0.025))
    with pytest.raises(ValueError, match="has nothing of held-out images"):
        held_out([read_run(write_run(tmp_path / "blind"))])


def test_cycles_without_a_step_are_left_out(tmp_path: Path) -> None:
    """As the last one of a shuffled mask."""
    assert held_out([made(tmp_path / "shuffled", 0, [0.4, 0.8, None])])[0] == pytest.approx(0.6)
    with pytest.raises(ValueError, match="has nothing of held-out images"):
        held_out([made(tmp_path / "random", 0, [None])])


def test_runs_are_validated_on_held_out_images_and_nothing_else_is_another_run(tmp_path: Path) -> None:
    grid = replace(GRID, lrs=(0.03, 0.3), seeds=1, epochs=1, cycles=1, folder=tmp_path, device="cpu", workers=1)
    found = grid.picked([TABLE_3["EP"]], run(grid, grid.experiments([TABLE_3["EP"]]), Console(quiet=True)))
    ((name, (one,)),) = found.values()
    assert len(list(tmp_path.iterdir())) == 2
    best = max((read_run(path) for path in tmp_path.iterdir()), key=lambda other: other.cycles[-1].validation or 0)
    assert (one.path, name) == (best.path, f"EP, lr {best.config['training']['lr']:g}")
    assert one.config["data"]["hold_out"] == 200
    assert one.epochs[-1].step == 25


def test_grids_that_pick_nothing_have_the_runs_they_had(tmp_path: Path) -> None:
    grid = PickingGrid(folder=tmp_path, device="cpu")
    before = [one.job(grid, 0).folder for one in experiments(grid.setting(), (*ROWS, DENSE))]
    assert [one.job(grid, 0).folder for one in grid.experiments((*ROWS, DENSE))] == before
    tried = [one.job(grid, 0).folder for one in replace(GRID, folder=tmp_path, device="cpu").experiments(ROWS)]
    assert len(set(tried)) == len(tried)
    assert not set(tried) & set(before)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"lrs": (0.1,)}, "give both, or neither"),
        ({"hold_out": 5}, "give both, or neither"),
        ({"lrs": (0.1, 0.1), "hold_out": 5}, "name each learning rate once"),
        ({"lrs": (0.1,), "hold_out": 5, "lr": 0.2}, "lr=0.2 and lrs="),
    ],
)
def test_what_contradicts_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PickingGrid(**bad)


def test_a_part_of_an_image_is_not_held_out() -> None:
    with pytest.raises(ValueError, match=r"hold_out=0.5: of digits a number of images"):
        replace(GRID, hold_out=0.5).setting()
    assert replace(GRID, data="imagenet", hold_out=0.5).setting().data.hold_out == 0.5  # type: ignore[attr-defined]
