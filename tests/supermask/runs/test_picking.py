"""A setting is picked by held-out images alone, over seeds, and only where the runs can be compared."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from supermask.runs.picking import PickError, pick
from supermask.runs.read import RunRecord, read_run
from tests.supermask.runs.run_folders import edit_config, write_run


def made(
    path: Path, lr: float, seed: int, validation: float | None, accuracy: float = 0.5, *, finished: bool = True
) -> RunRecord:
    """A run whose last cycle has these accuracies."""
    write_run(path, lr=lr, seed=seed, finished=finished)
    file = path / "metrics.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        last = event.get("cycle") == 3
        if event["event"] == "cycle" and validation is not None:
            event["validation"] = validation if last else 1.0 - validation
        if event["event"] == "evaluate" and last:
            event["accuracy"] = accuracy
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return read_run(path)


def runs(parent: Path, found: Sequence[tuple[float, int, float, float]]) -> list[RunRecord]:
    return [made(parent / f"{lr}-{seed}", lr, seed, held, tested) for lr, seed, held, tested in found]


def test_the_best_mean_on_held_out_images_is_picked_and_it_alone_reported(tmp_path: Path) -> None:
    given = [(0.1, 0, 0.9, 0.2), (0.3, 0, 0.7, 0.9), (0.1, 1, 0.5, 0.4), (0.3, 1, 0.75, 0.7), (0.5, 0, 0.1, 1.0)]
    found = pick(runs(tmp_path, [*given, (0.5, 1, 0.2, 1.0)]), by="training.lr")
    assert found.value == 0.3
    assert [run.seed for run in found.runs] == [0, 1]
    assert list(found.held_out) == [0.1, 0.3, 0.5]
    assert found.held_out[0.1] == pytest.approx((0.7, 0.2))
    assert found.accuracy == pytest.approx((0.8, 0.1))
    assert str(found) == (
        "training.lr 0.3, by accuracy on held-out images over 2 seeds (0.1: 70.0%, 0.3: 72.5%, 0.5: 15.0%)"
    )


def test_a_default_is_a_value_too(tmp_path: Path) -> None:
    """A configuration leaves out what has the default of a later setting."""
    found = runs(tmp_path, [(0.1, 0, 0.5, 0.5)])
    made(tmp_path / "adam", 0.1, 0, 0.7)
    config = json.loads((tmp_path / "adam" / "config.json").read_text())
    config["recipe"]["training"]["optimiser"] = "adam"
    (tmp_path / "adam" / "config.json").write_text(json.dumps(config))
    picked = pick([*found, read_run(tmp_path / "adam")], by="training.optimiser")
    assert (picked.value, list(picked.held_out)) == ("adam", ["sgd", "adam"])
    with pytest.raises(PickError, match=r"differ in more than validation\.every and seed"):
        pick([*found, read_run(tmp_path / "adam")], by="validation.every")


def test_of_equals_the_first_is_picked(tmp_path: Path) -> None:
    assert pick(runs(tmp_path, [(0.3, 0, 0.5, 0.1), (0.1, 0, 0.5, 0.9)]), by="training.lr").value == 0.3


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one, two, other = runs(tmp_path, [(0.1, 0, 0.5, 0.5), (0.3, 0, 0.6, 0.5), (0.3, 1, 0.6, 0.5)])
    unended = made(tmp_path / "unended", 0.5, 0, 0.5, finished=False)
    blind = made(tmp_path / "blind", 0.5, 0, None)
    edit_config(write_run(tmp_path / "more", lr=0.3), device="cuda")
    for found, by, says in (
        ([one, two, other], "training.lr", r"training.lr=0.1 has the seeds \[0\] and 0.3 has \[0, 1\]"),
        ([one, one], "training.lr", r"has the seeds \[0, 0\]: give each run once"),
        ([one, two], "lr", "has no setting 'lr': there is training.lr"),
        ([one, two], "training.epochs", "differ in more than training.epochs and seed .training.lr was 0.1, is 0.3"),
        ([one, unended], "training.lr", "unended did not come to its end"),
        ([one, blind], "training.lr", "blind has nothing of held-out images"),
        ([one, read_run(tmp_path / "more")], "training.lr", "differ in more than training.lr and seed"),
        ([], "training.lr", "no runs to pick over"),
    ):
        with pytest.raises(PickError, match=says):
            pick(found, by=by)


def test_accuracy_of_held_out_images_is_no_test(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    edit_config(path, data={"type": "Digits", "evaluate": "held_out", "hold_out": 5})
    found = made(tmp_path / "other", 0.3, 0, 0.5)
    picked = pick([found], by="training.lr")
    assert picked.accuracy[0] == 0.5
    edit_config(tmp_path / "other", data={"type": "Digits", "evaluate": "held_out", "hold_out": 5})
    with pytest.raises(PickError, match="was not evaluated on the test set"):
        _ = pick([read_run(tmp_path / "other")], by="training.lr").accuracy
