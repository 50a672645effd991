"""Courses that are no cycles of edge-popup run like every other: recorded, killed, resumed to the bit, on two ranks."""

import math
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from supermask.data.base import Loaded
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import count_bits
from supermask.methods.cycles import Cycle, check_cycles
from supermask.methods.edge_popup import EP
from supermask.methods.iep import IEP
from supermask.methods.method import Method
from supermask.networks.convert import convert
from supermask.runs.options import Conversion, RecipeError
from supermask.runs.read import read_run
from supermask.runs.recipe import Recipe
from supermask.runs.session import Session
from supermask.runs.stages import search
from supermask.tickets.errors import TicketError
from supermask.tickets.save import save
from supermask.training.loop import Loop
from supermask.training.training import Training
from tests.ranks import free_port, meet, on_ranks
from tests.supermask.methods.courses import (
    Draws,
    Falling,
    Magnitudes,
    Moments,
    Shares,
    Tasks,
    Tuning,
)
from tests.supermask.runs.small_runs import (
    BASE,
    Dropping,
    Killed,
    Points,
    a_save_every,
    last_state,
    left_by,
    mlp,
    placed,
    same,
    watched,
)

CPU = torch.device("cpu")


def recipe(method: Method, *, exports: bool = True, **changes: Any) -> Recipe:
    stages = None if exports else search(method.phases())
    return replace(BASE, method=method, stages=stages, training=Training(epochs=3, lr=0.3), **changes)


COURSES: Mapping[str, Recipe] = {
    "weights under a mask": recipe(Tuning(remaining=0.3), exports=False),
    "tasks": recipe(Tasks(remaining=0.5), data=Shares(), exports=False),
    "magnitudes, rewound": recipe(Magnitudes(), exports=False),
    "weights, biases and norms under a mask": recipe(
        Tuning(remaining=0.3),
        exports=False,
        network=lambda classes: Dropping(),
        conversion=Conversion(bias="train", norm="train"),
    ),
    "fine-tuning at falling rates": recipe(Falling(given=(0.5, 0.3), lr="final")),
    "all layers together": recipe(EP(remaining=0.3, ranking="network")),
    "a loss without logits": recipe(Moments(remaining=0.5)),
    "several draws": recipe(Draws(remaining=0.5)),
}


@pytest.mark.parametrize("label", COURSES)
def test_killed_and_resumed_it_ends_the_same(label: str, tmp_path: Path) -> None:
    made, draw = COURSES[label], random.Random(label)
    with watched() as whole, a_save_every(3):
        placed(made, tmp_path / "whole", checkpoint_seconds=3).execute()
    for kill in range(4):
        moment = draw.randrange(1, whole.passed if kill == 0 else whole.passed // 4)
        with watched(moment), a_save_every(3), suppress(Killed):
            placed(made, tmp_path / "cut", checkpoint_seconds=3, resume=kill > 0).execute()
    placed(made, tmp_path / "cut", resume=True).execute()
    assert same(left_by(tmp_path / "cut"), left_by(tmp_path / "whole"))


@pytest.mark.parametrize("label", [label for label, made in COURSES.items() if len(made.cycles) > 1])
def test_killed_where_a_cycle_begins_it_ends_the_same(label: str, tmp_path: Path) -> None:
    """With all of the first cycle saved and nothing of the second, and with a little of the second."""
    made = COURSES[label]
    with watched() as whole, a_save_every(3):
        placed(made, tmp_path / "whole", checkpoint_seconds=3).execute()
    steps = [n for n, name in enumerate(whole.names, start=1) if name == "before Loop.take_step"]
    first = made.cycles[0].epochs(made.training.epochs) * 5
    for kill in (steps[first], steps[first + 7]):
        folder = tmp_path / f"cut{kill}"
        with watched(kill), a_save_every(3), suppress(Killed):
            placed(made, folder, checkpoint_seconds=3).execute()
        placed(made, folder, resume=True).execute()
        assert same(left_by(folder), left_by(tmp_path / "whole"))


def model_of(folder: Path, stage_epochs: int) -> dict[str, Tensor]:
    state = last_state(folder)
    assert state["loop"]["epoch"] == stage_epochs
    model: dict[str, Tensor] = state["model"]
    return model


def test_weights_are_trained_under_the_mask_that_was_found(tmp_path: Path) -> None:
    made = COURSES["weights under a mask"]
    placed(replace(made, stages=search(made.method.phases())[:2], method=EP(remaining=0.3)), tmp_path / "ep").execute()
    placed(made, tmp_path / "run").execute()
    before, after = model_of(tmp_path / "ep", 3), model_of(tmp_path / "run", 6)
    run = read_run(tmp_path / "run")
    assert [epoch.lr for epoch in run.epochs][3:] == [0.05] * 3, "the method's own schedule"
    for name in before:
        if name.endswith("scores"):
            assert torch.equal(before[name], after[name]), "the search is edge-popup's and its scores stay"
            weight = after[name.replace("scores", "weight")]
            assert len(weight.unique()) > 10, "the weights do not"
    assert run.cycles[1].kept == run.cycles[0].kept
    assert run.cycles[1].loss < run.cycles[0].loss


def test_weights_that_were_trained_are_in_no_ticket(tmp_path: Path) -> None:
    method = Tuning(remaining=0.3)
    model = convert(mlp(4).build(), 1, remaining=0.3, edges=method.edges)
    save(model, tmp_path / "searched.safetensors", architecture=mlp(4))
    method.optimiser(model, Training(), method.phases()[1])
    with pytest.raises(TicketError, match="its weights were trained"):
        save(model, tmp_path / "tuned.safetensors", architecture=mlp(4))
    assert not (tmp_path / "tuned.safetensors").exists()


def test_each_task_has_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    take = Loop.take_step

    def step(self: Loop, optimiser: Any, batch: Any, searching: Any) -> None:
        seen.append((self.epoch // 3, int((batch[0][:, self.epoch // 3] > 0).long().eq(batch[1]).all())))
        take(self, optimiser, batch, searching)

    opened: list[int] = []
    unwatched = Shares.open

    def watch(self: Shares, **given: Any) -> Loaded:
        opened.append(self.task)
        return unwatched(self, **given)

    monkeypatch.setattr(Loop, "take_step", step)
    monkeypatch.setattr(Shares, "open", watch)
    placed(COURSES["tasks"], tmp_path / "run").execute()
    assert seen == [(0, 1)] * 15 + [(1, 1)] * 9 + [(2, 1)] * 15
    assert opened == [0, 1, 2, 1, 2], "each is looked at before the run begins, and held while it is needed"
    assert len(read_run(tmp_path / "run").cycles) == 3


def test_a_plan_counts_the_steps_of_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    made = COURSES["tasks"]
    replace(made, run=replace(made.run, dry_run=True, device="cpu")).execute()
    assert "39 steps in all" in capsys.readouterr().out


def test_a_task_with_more_classes_than_the_network_is_refused(tmp_path: Path) -> None:
    class Wide(Tasks):
        def data(self, data: Any, cycle: Cycle) -> Any:
            return data if cycle.scores == "initial" else Points()

    made = replace(COURSES["tasks"], method=Wide(remaining=0.5))
    with pytest.raises(
        RecipeError, match=r"Points\(batch=16\) of a cycle has 4 classes: the network is made for the 2"
    ):
        placed(made, tmp_path / "run").execute()
    assert not (tmp_path / "run").exists()


def test_magnitudes_go_on_from_where_they_are_rewound_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Tensor]] = []
    batches: list[Tensor] = []
    take, begin = Loop.take_step, Magnitudes.begin

    def step(self: Loop, optimiser: Any, batch: Any, searching: Any) -> None:
        batches.append(batch[0])
        take(self, optimiser, batch, searching)

    def noted(self: Any, model: Any, *given: Any) -> None:
        begin(self, model, *given)
        begun.append({name: edges.scores.detach().clone() for name, edges in searched_edges(model).items()})

    monkeypatch.setattr(Loop, "take_step", step)
    monkeypatch.setattr(Magnitudes, "begin", noted)
    made = COURSES["magnitudes, rewound"]
    placed(made, tmp_path / "run").execute()
    run = read_run(tmp_path / "run")
    rates = made.training.rates()
    assert [epoch.lr for epoch in run.epochs] == [*rates, *rates[1:], *rates[1:]], "the schedule is rewound"
    dense, second, third = batches[5:15], batches[15:25], batches[25:35]
    for again in (second, third):
        assert all(torch.equal(one, other) for one, other in zip(dense, again, strict=True)), "the batches come again"
    state = model_of(tmp_path / "run", 7)
    for level in begun[1:]:
        assert all(torch.equal(state[f"{name}.edges.early"], scores) for name, scores in level.items())
    layers = [edges.count for edges in searched_edges(convert(mlp(4).build(), 0)).values()]
    assert [cycle.kept for cycle in run.cycles] == [sum(round(rate * n) for n in layers) for rate in (1, 0.8, 0.64)]
    masks = [load_file(tmp_path / "run" / "masks" / f"cycle-{number}.safetensors") for number in (1, 2, 3)]
    for wider, mask in pairwise(masks):
        assert all(not (mask[name] & ~wider[name]).any() for name in mask), "masks nest"
    shares = {name: count_bits(mask) / n for (name, mask), n in zip(masks[2].items(), layers, strict=True)}
    assert len(set(shares.values())) == len(layers), "all layers are ranked together"


def test_a_rewind_that_the_schedule_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="rewind_to=3: the cycle's schedule has epochs 0 to 2"):
        recipe(Magnitudes(rewind_to=3), exports=False)
    with pytest.raises(ValueError, match="rewind_to=1 with lr='final'"):
        Cycle(remaining=0.5, scores="inherit", lr="final", rewind_to=1)


def test_what_a_method_measures_is_in_the_record(tmp_path: Path) -> None:
    for label in ("a loss without logits", "several draws"):
        result = placed(COURSES[label], tmp_path / label).execute()
        (cycle,) = read_run(tmp_path / label).cycles
        assert (cycle.measures, cycle.accuracy) == (result.cycles[0].measures, result.cycles[0].accuracy)
        if label == "several draws":
            assert cycle.accuracy is not None
            assert cycle.train_accuracy is not None
            assert set(cycle.measures) == {"spread"}
            assert cycle.measures["spread"] > 0
            assert result.tickets[0].accuracy is not None
        else:
            assert cycle.accuracy is cycle.train_accuracy is result.tickets[0].accuracy is None
            assert set(cycle.measures) == {"variance"}
            assert '"train_accuracy": null' in (tmp_path / label / "metrics.jsonl").read_text()


def test_a_measure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    class Wordy(EP):
        def evaluate(self, model: Any, accuracy: Any) -> Any:
            return {"accuracy": "good"}

    with pytest.raises(TypeError, match=r"Wordy.evaluate gave .*expected numbers by name"):
        placed(recipe(Wordy(remaining=0.5)), tmp_path / "run").execute()


def test_a_schedule_of_another_length_is_refused() -> None:
    class Short(EP):
        def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[float]:
            return [0.1]

    with pytest.raises(ValueError, match=r"Short.schedule gave 1 learning rates for the 3 epochs"):
        recipe(Short(remaining=0.5))


# Of all that is different between processes: what is trained, whose data, which batches, who ranks, who measures.
ALIKE = [
    "weights, biases and norms under a mask", "tasks", "magnitudes, rewound", "all layers together", "several draws"
]  # fmt: skip


def test_two_processes_take_a_course_alike(tmp_path: Path) -> None:
    on_ranks(_rank, str(tmp_path), [free_port() for _ in ALIKE])
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert list(one) == ALIKE
    assert same(one, other)
    for label in ALIKE:
        made = COURSES[label]
        run = read_run(tmp_path / label)
        assert len(run.cycles) == len(made.cycles)
        assert [epoch.lr for epoch in run.epochs] == rates_of(made)


def _rank(rank: int, folder: str, ports: list[int]) -> None:
    found: dict[str, Any] = {}
    end = Session.end_stage

    def noted(self: Session, stages: int) -> None:
        end(self, stages)
        state = self.model.state_dict()
        found[label] = {name: value for name, value in state.items() if "running" not in name}

    Session.end_stage = noted  # type: ignore[method-assign]
    for label, port in zip(ALIKE, ports, strict=True):
        meet(rank, port)
        placed(COURSES[label], Path(folder) / label).execute()
    torch.save(found, f"{folder}/{rank}.pt")


def rates_of(made: Recipe) -> list[float]:
    """The learning rate of each epoch, as the method has it of the one before."""
    rates: list[float] = []
    for cycle in made.cycles:
        rates += made.method.schedule(made.training, cycle, rates[-1] if rates else None)
    return rates


class LooksAround(EP):
    """Notes how `evaluate` finds the network and torch."""

    seen: ClassVar[list[tuple[bool, float]]] = []

    def evaluate(self, model: nn.Module, accuracy: Any) -> dict[str, float]:
        self.seen.append((model.training, float(torch.rand(()))))
        return {"accuracy": accuracy()}


def test_a_network_is_measured_in_eval_mode_with_numbers_of_its_own(tmp_path: Path) -> None:
    made = recipe(LooksAround(remaining=0.5), network=lambda classes: Dropping(), exports=False)
    before = torch.get_rng_state()
    for name in ("one", "other"):
        torch.rand(3)
        placed(made, tmp_path / name).execute()
    torch.set_rng_state(before)
    modes, numbers = zip(*LooksAround.seen, strict=True)
    assert modes == (False,) * 4, "with the statistics of training and recalibrated, in both runs"
    assert numbers[:2] == numbers[2:]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"perplexity": math.inf}, "evaluate gave perplexity = inf: a record holds finite numbers"),
        ({3: 1.0}, "evaluate gave 3: 1.0: expected numbers by name"),
        ([0.5], r"evaluate gave \[0.5\]: expected numbers by name"),
    ],
)
def test_what_is_no_finite_number_by_name_is_refused(given: Any, says: str, tmp_path: Path) -> None:
    class Odd(EP):
        def evaluate(self, model: Any, accuracy: Any) -> Any:
            return given

    with pytest.raises((TypeError, ValueError), match=says):
        placed(recipe(Odd(remaining=0.5)), tmp_path / "run").execute()


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1])
def test_a_rate_that_is_none_is_refused_before_anything_begins(rate: float) -> None:
    class Off(EP):
        def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[float]:
            return [0.1, rate, 0.1]

    with pytest.raises(ValueError, match=f"Off.schedule gave the learning rate {rate} in Cycle"):
        recipe(Off(remaining=0.5))


def test_a_rate_of_zero_is_the_last_one_too(tmp_path: Path) -> None:
    class Stopped(IEP):
        def schedule(self, training: Training, cycle: Cycle, last: float | None) -> list[float]:
            return [0.1, 0.1, 0.0] if cycle.lr == "rewind" else super().schedule(training, cycle, last)

    placed(recipe(Stopped(given=(0.5, 0.3), lr="final")), tmp_path / "run").execute()
    assert [epoch.lr for epoch in read_run(tmp_path / "run").epochs] == [0.1, 0.1, 0.0, 0.0, 0.0, 0.0]


def test_a_recipe_s_stages_are_its_method_s_unless_given() -> None:
    made = recipe(EP(remaining=0.5))
    other = replace(made, method=IEP(given=(0.5, 0.3)))
    assert made.stages is other.stages is None
    assert [cycle.remaining for cycle in made.cycles] == [0.5]
    assert [cycle.remaining for cycle in other.cycles] == [0.5, 0.3]
    with pytest.raises(ValueError, match="no cycle: a search has at least one"):
        replace(made, stages=())
    with pytest.raises(ValueError, match="Method has no cycles of its own: give a recipe stages=, or a method="):
        replace(made, method=Method())


def test_the_first_cycle_rewinds_to_nothing() -> None:
    with pytest.raises(ValueError, match=r"cycle 1 is .*rewind_to=2.*with the first epoch of the schedule"):
        check_cycles([Cycle(remaining=0.5, rewind_to=2)])
