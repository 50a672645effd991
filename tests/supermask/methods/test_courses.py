"""Courses that are no cycles of edge-popup run like every other: recorded, killed, resumed to the bit, on two ranks."""

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor

from supermask.data.base import Loaded
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import count_bits
from supermask.methods.cycles import Cycle
from supermask.methods.edge_popup import EP
from supermask.methods.method import Method
from supermask.networks.convert import convert
from supermask.runs.options import RecipeError
from supermask.runs.read import read_run
from supermask.runs.recipe import Recipe
from supermask.runs.stages import search
from supermask.tickets.errors import TicketError
from supermask.tickets.save import save
from supermask.training.loop import Loop
from supermask.training.parallel import Group
from supermask.training.training import Training
from tests.supermask.methods.courses import Draws, Everywhere, Magnitudes, Moments, Shares, Tasks, TunedEdges, Tuning
from tests.supermask.runs.small_runs import (
    BASE,
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
    stages = () if exports else search(method.phases())
    return replace(BASE, method=method, stages=stages, training=Training(epochs=3, lr=0.3), **changes)


COURSES: Mapping[str, Recipe] = {
    "weights under a mask": recipe(Tuning(remaining=0.3), exports=False),
    "tasks": recipe(Tasks(remaining=0.5), data=Shares(), exports=False),
    "magnitudes, rewound": recipe(Magnitudes(), exports=False),
    "all layers together": recipe(Everywhere(remaining=0.3)),
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
            assert '"train_accuracy"' not in (tmp_path / label / "metrics.jsonl").read_text()


def test_a_measure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    class Wordy(EP):
        def evaluate(self, model: Any, accuracy: Any) -> Any:
            return {"accuracy": "good"}

    with pytest.raises(TypeError, match=r"Wordy.evaluate gave .*expected numbers by name"):
        placed(recipe(Wordy(remaining=0.5)), tmp_path / "run").execute()


def test_a_schedule_of_another_length_is_refused() -> None:
    class Short(EP):
        def schedule(self, training: Training, cycle: Cycle, last: float) -> list[float]:
            return [0.1]

    with pytest.raises(ValueError, match=r"Short.schedule gave 1 learning rates for the 3 epochs"):
        recipe(Short(remaining=0.5))


def test_two_ranks_train_the_same_weights_under_the_mask(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert same(one, other)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ranks = Group(rank=rank, ranks=2, control=dist.new_group(backend="gloo"))
    method = Tuning(remaining=0.3)
    model = convert(mlp(4).build(), 5, remaining=0.3, edges=method.edges)
    loaded = Points().open(seed=0, device=CPU)
    loop = Loop(model=model, loaded=loaded, training=Training(), device=CPU, hooks=method, group=ranks)
    for number, cycle in enumerate(method.phases(), 1):
        method.begin(model, cycle, number, {})
        loop.run_epoch(method.optimiser(model, loop.training, cycle), 0.1)
    weights = {}
    for name, edges in searched_edges(model).items():
        assert isinstance(edges, TunedEdges)
        weights[name] = edges.weight.detach()
        assert len(weights[name].unique()) > 10
    torch.save(weights, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
