"""Validation: evaluating more often changes no bit of training, and what is picked is what was best."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from supermask.data.base import Loaded, Part, in_memory
from supermask.data.digits import Digits
from supermask.edges.in_model import searched_edges
from supermask.methods.baselines import RandomMask, Shuffled
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP, hard_iep_ft, soft_iep
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.runs import validation
from supermask.runs.hook import Hook, Now
from supermask.runs.options import RecipeError
from supermask.runs.read import read_run
from supermask.runs.recipe import Recipe
from supermask.runs.records import Epoch
from supermask.runs.stages import Evaluate, Export, Train, search
from supermask.runs.validation import NEVER, Validation, Validator
from supermask.training.evaluate import accuracy
from supermask.training.loop import Loop
from supermask.training.training import Training
from tests.supermask.runs.small_runs import (
    BASE,
    RATES,
    Dropping,
    Killed,
    a_save_every,
    last_state,
    left_by,
    mlp,
    placed,
    same,
    watched,
)

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Held:
    """80 points of four classes, 30 of them held out; three batches an epoch."""

    batch: int = 16
    hold_out: int = 30

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        x = torch.randn(120, 20, generator=torch.Generator().manual_seed(3)).to(device)
        y = x[:, :4].argmax(1)
        return in_memory(
            x[:80], y[:80], x[80:], y[80:], batch=self.batch, seed=seed, at_once=32, hold_out=self.hold_out
        )  # fmt: skip


DROPPING = replace(
    BASE, data=Held(), network=lambda classes: Dropping(), stages=search(soft_iep(RATES)), training=Training(epochs=3)
)
PICKING = replace(BASE, data=Held(), training=Training(epochs=4, lr=2.0), validation=Validation(pick="best"))


def without_validation(left: Mapping[str, Any]) -> dict[str, Any]:
    """What a run leaves, but for what it found on held-out images."""
    lines = [json.loads(line) for line in left["metrics.jsonl"].splitlines()]
    lines = [{name: value for name, value in line.items() if name != "validation"} for line in lines]
    state = {name: value for name, value in left["state"].items() if name not in ("lengths", "validation")}
    state["results"] = [{**result, "validation": None} for result in state["results"]]
    kept = {name: value for name, value in left.items() if name not in ("metrics.jsonl", "summary", "state")}
    return kept | {"lines": lines, "state": state}


@pytest.mark.parametrize("recipe", [DROPPING, replace(BASE, data=Held()), replace(
    BASE, data=Held(), stages=(Train(), Evaluate()), network=lambda classes: Dropping()
)], ids=["dropout", "a ticket", "dense"])  # fmt: skip
def test_evaluating_more_often_changes_no_bit_of_training(recipe: Recipe, tmp_path: Path) -> None:
    found = []
    for every in (0, 1, 2):
        placed(replace(recipe, validation=Validation(every=every)), tmp_path / str(every)).execute()
        found.append(left_by(tmp_path / str(every)))
    assert found[0]["metrics.jsonl"] != found[1]["metrics.jsonl"]
    assert found[0]["state"]["optimiser"]["state"], "momentum is compared"
    for other in found[1:]:
        assert same(without_validation(found[0]), without_validation(other))


def test_digits_with_images_held_out_train_alike_however_often_they_are_evaluated(tmp_path: Path) -> None:
    def network(classes: int) -> Architecture:
        return Architecture(name="mlp", arguments={"sizes": [64, 32, classes]})

    recipe = Recipe(
        name="digits", data=Digits(hold_out=200), network=network, training=Training(epochs=2, lr=0.3),
        stages=(*search(soft_iep((0.3,))), Export()),
    )  # fmt: skip
    for every in (0, 1):
        placed(replace(recipe, validation=Validation(every=every)), tmp_path / str(every)).execute()
    never, always = (left_by(tmp_path / str(every)) for every in (0, 1))
    assert same(without_validation(never), without_validation(always))
    assert [epoch.step for epoch in read_run(tmp_path / "1").epochs] == [25, 50]


@pytest.mark.parametrize("every", [1, 2])
def test_a_run_killed_in_an_epoch_goes_on_to_the_bit(every: int, tmp_path: Path) -> None:
    recipe = replace(DROPPING, validation=Validation(every=every))
    with watched() as whole:
        placed(recipe, tmp_path / "whole").execute()
    steps = [number for number, name in enumerate(whole.names, start=1) if name == "after Loop.take_step"]
    for number in (steps[4], steps[8] + 3, steps[10]):  # in an epoch, as the last epoch of a cycle is evaluated
        folder = tmp_path / str(number)
        with watched(number), a_save_every(2), pytest.raises(Killed):
            placed(recipe, folder, checkpoint_seconds=2).execute()
        placed(recipe, folder, resume=True).execute()
        assert same(left_by(folder), left_by(tmp_path / "whole")), number


def accuracies(folder: Path) -> list[list[float | None]]:
    """Of each cycle, what each epoch had on the held-out images."""
    run = read_run(folder)
    return [[one.validation for one in run.epochs if one.cycle == cycle.cycle] for cycle in run.cycles]


@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3]), (7, [3]), (0, [])])
def test_every_nth_epoch_of_a_cycle_and_its_last_is_evaluated(every: int, due: list[int], tmp_path: Path) -> None:
    placed(replace(DROPPING, validation=Validation(every=every)), tmp_path / "run").execute()
    for cycle, found in zip(read_run(tmp_path / "run").cycles, accuracies(tmp_path / "run"), strict=True):
        assert [number for number, one in enumerate(found, start=1) if one is not None] == due
        assert (cycle.validation, cycle.picked) == (found[-1], None)


class Copies(Hook):
    """Keeps the network as each epoch leaves it."""

    changes_training = False

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}

    def end_epoch(self, now: Now, record: Epoch) -> None:
        self.states[now.epoch] = {name: value.clone() for name, value in now.model.state_dict().items()}


def test_a_cycle_ends_with_what_was_best_on_held_out_images(tmp_path: Path) -> None:
    copies = Copies()
    placed(replace(PICKING, stages=BASE.course[:1], hooks=(copies,)), tmp_path / "run").execute()
    (found,) = accuracies(tmp_path / "run")
    (cycle,) = read_run(tmp_path / "run").cycles
    assert cycle.validation == max(value for value in found if value is not None)
    assert cycle.picked == found.index(cycle.validation) + 1 < 4, "the last epoch would show nothing"
    left = last_state(tmp_path / "run")["model"]
    assert same(left, copies.states[cycle.picked])
    assert not same(left, copies.states[4])


def test_what_is_picked_is_what_is_tested_recorded_and_exported(tmp_path: Path) -> None:
    copies = Copies()
    recipe = replace(PICKING, stages=(*search(soft_iep((0.5,))), Export()), hooks=(copies,))
    result = placed(recipe, tmp_path / "run").execute()
    (cycle,), (ticket,) = result.cycles, result.tickets
    assert cycle.picked is not None
    model = convert(mlp(4).build(), 0, remaining=0.5)
    model.load_state_dict(copies.states[cycle.picked])
    loaded = Held().open(seed=0, device=torch.device("cpu"))
    assert loaded.held_out is not None
    assert accuracy(model, loaded.held_out(Part())) == cycle.validation
    assert accuracy(model, loaded.test(Part())) == cycle.accuracy
    assert ticket.same_logits
    masks = load_file(tmp_path / "run" / "masks" / "cycle-1.safetensors")
    assert all(torch.equal(masks[name], edges.mask()) for name, edges in searched_edges(model).items())


def test_of_equals_the_first_is_picked_and_each_cycle_picks_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.5, 0.7, 0.7, 0.1, 0.2])
    monkeypatch.setattr(validation, "accuracy_held_out", lambda loop: next(given))
    model = nn.Linear(1, 1)
    loop = Loop(model=model, loaded=BASE.data.open(seed=0, device=CPU), training=Training(epochs=3), device=CPU)
    validator = Validator(Validation(pick="best"))
    weights = []
    for epoch in (1, 2, 3, 1, 2):
        loop.epoch += 1
        nn.init.constant_(model.weight, loop.epoch)
        validator.after_epoch(loop, epoch, 3)
        if loop.epoch in (3, 5):
            weights.append((validator.end_cycle(model), model.weight.item()))
    assert weights == [((0.7, 2), 2.0), ((0.2, 5), 5.0)]


@pytest.mark.parametrize("cycles", [soft_iep(RATES), hard_iep_ft(RATES)], ids=["soft", "momentum goes on"])
def test_a_run_that_picks_goes_on_to_the_bit(cycles: Any, tmp_path: Path) -> None:
    recipe = replace(PICKING, stages=(*search(cycles), Export()))
    with watched() as whole:
        placed(recipe, tmp_path / "whole").execute()
    left = left_by(tmp_path / "whole")
    picked = [result["picked"] for result in left["state"]["results"]]
    assert picked[0] < 4 < picked[1], picked
    assert left["state"]["validation"] == {"last": None, "best": None}
    steps = [number for number, name in enumerate(whole.names, start=1) if name == "after Loop.take_step"]
    for number in (steps[10] + 1, steps[11] + 4, steps[-1] - 1, steps[-1] + 9):
        folder = tmp_path / str(number)
        with watched(number), a_save_every(2), pytest.raises(Killed):
            placed(recipe, folder, checkpoint_seconds=2).execute()
        placed(recipe, folder, resume=True).execute()
        assert same(left_by(folder), left), number


def test_without_held_out_images_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for data in (BASE.data, Held(hold_out=0), Digits()):
        with pytest.raises(RecipeError, match=rf"validation.every=2: {type(data).__name__} holds no .*data.hold_out"):
            placed(replace(BASE, data=data, validation=Validation(every=2)), tmp_path / "run").execute()
    assert not list(tmp_path.iterdir())


def test_data_of_a_cycle_hold_images_out_too(tmp_path: Path) -> None:
    class Elsewhere(IEP):
        def data(self, data: Any, cycle: Cycle) -> Any:
            return BASE.data

    recipe = replace(BASE, data=Held(), stages=None, method=Elsewhere(given=RATES), validation=Validation())
    with pytest.raises(RecipeError, match="Points holds no training images out"):
        placed(recipe, tmp_path / "run").execute()


def test_a_method_without_accuracy_has_nothing_to_go_by(tmp_path: Path) -> None:
    class Deaf(EP):
        def evaluate(self, model: nn.Module, accuracy: Any) -> dict[str, float]:
            return {"spread": 1.0}

    recipe = replace(BASE, data=Held(), stages=None, method=Deaf(remaining=0.5), validation=Validation())
    with pytest.raises(ValueError, match=r"Deaf.evaluate gave spread, and validation goes by accuracy"):
        placed(recipe, tmp_path / "run").execute()


@pytest.mark.parametrize(
    ("bad", "says"),
    [({"every": -1}, "every=-1"), ({"pick": "first"}, "pick='first'"), ({"every": 0, "pick": "best"}, "every=0")],
)
def test_bad_settings_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Validation(**bad)


def test_validation_is_part_of_what_a_run_is_and_none_leaves_its_text_alone() -> None:
    assert "validation" not in BASE.said()
    assert replace(BASE, validation=NEVER).said() == BASE.said()
    assert replace(BASE, data=Held(), validation=Validation()).said()["validation"] == {"every": 1, "pick": "last"}


def test_records_without_validation_are_written_as_before() -> None:
    epoch = Epoch(cycle=1, epoch=1, step=5, lr=0.1, loss=1.0, train_accuracy=0.5, remaining=0.5, dying=0.1)
    assert "validation" not in epoch.to_event()
    held = replace(epoch, validation=0.25)
    assert Epoch.from_event(held.to_event(), "here") == held


@dataclass(frozen=True, kw_only=True)
class OneSet(Held):
    """Tested on what is held out, so that both accuracies are one."""

    def open(self, *, seed: int, device: torch.device) -> Loaded:
        loaded = super().open(seed=seed, device=device)
        assert loaded.held_out
        return replace(loaded, test=loaded.held_out)


@pytest.mark.parametrize("pick", ["last", "best"])
def test_a_cycle_without_a_step_is_validated_as_it_begins(pick: Any, tmp_path: Path) -> None:
    """A random mask, and a mask whose edges are put elsewhere after a search, can be compared on held-out images."""
    for name, method in (("random", RandomMask(remaining=0.3)), ("shuffled", Shuffled(given=(0.3,)))):
        made = replace(PICKING, data=OneSet(), stages=None, method=method, validation=Validation(every=2, pick=pick))
        last = placed(made, tmp_path / name).execute().cycles[-1]
        assert last.validation == last.accuracy
        assert last.validation is not None
        assert last.picked is None
