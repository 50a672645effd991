"""Stages: what a cycle starts from, and what it leaves."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from supermask.data.base import in_memory
from supermask.edges.draws import Magnitude
from supermask.edges.in_model import searched_edges
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import popcount, unpack
from supermask.methods.cycles import Cycle, Scores, Space, Unselected
from supermask.methods.edge_popup import ep
from supermask.methods.iep import hard_iep, hard_iep_ft, hard_iep_sri, hard_iep_srw, soft_iep
from supermask.methods.method import EDGE_POPUP
from supermask.networks.architecture import Architecture
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.runs.checkpoint import Checkpoints
from supermask.runs.folder import RunFolder
from supermask.runs.progress import RunProgress
from supermask.runs.read import read_metrics
from supermask.runs.session import Session
from supermask.runs.stages import Evaluate, Search, Stage
from supermask.training.evaluate import batch_norms
from supermask.training.loop import Loop
from supermask.training.traces import histogram
from supermask.training.training import Training, unsearched


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 4))
    return convert(model, 5, remaining=0.5)


def disturbed() -> nn.Module:
    """A network as a cycle at 50 % leaves it: other scores, batch-norm statistics of its own."""
    model = network()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for edges in searched_edges(model).values():
            edges.scores.copy_(torch.randn(edges.shape, generator=generator))
        for norm in batch_norms(model):
            norm.running_mean.fill_(3.0)
    return model


def scores(model: nn.Module) -> torch.Tensor:
    return torch.cat([edges.scores.detach().flatten() for edges in searched_edges(model).values()])


def mask(model: nn.Module) -> torch.Tensor:
    layers: list[SearchedEdges] = list(searched_edges(model).values())
    return torch.cat([unpack(edges.mask(), edges.cols).flatten() for edges in layers])


@pytest.mark.parametrize("start", ["inherit", "initial"])
@pytest.mark.parametrize("unselected", ["keep", "zero"])
@pytest.mark.parametrize("space", ["all", "survivors"])
def test_a_cycle_starts_from_the_scores_and_space_it_names(start: Scores, unselected: Unselected, space: Space) -> None:
    model = disturbed()
    learned, kept, initial = scores(model), mask(model), scores(network())
    EDGE_POPUP.begin(model, Cycle(remaining=0.25, scores=start, space=space, unselected=unselected), 2, {})
    expected = learned if start == "inherit" else initial
    assert torch.equal(scores(model), torch.where(kept, expected, 0) if unselected == "zero" else expected)
    assert int(mask(model).sum()) == 150 + 30
    assert not (mask(model) & ~kept).any() if space == "survivors" else True
    survivors = [edges.survivors for edges in searched_edges(model).values()]
    if space == "survivors":
        assert sum(int(popcount(words).sum()) for words in survivors if words is not None) == int(kept.sum())
    else:
        assert survivors == [None, None]
    statistics = batch_norms(model)[0].running_mean
    assert torch.equal(statistics, torch.full((30,), 3.0 if start == "inherit" else 0.0))


def test_fresh_scores_are_another_draw_each_cycle() -> None:
    draws = []
    for number in (2, 3):
        model = disturbed()
        EDGE_POPUP.begin(model, Cycle(remaining=0.25, scores="fresh", space="survivors"), number, {})
        draws.append(scores(model))
        for norm in batch_norms(model):
            assert norm.running_mean.abs().max() == 0
    assert not torch.equal(*draws)
    assert not torch.equal(draws[0], scores(network()))


def test_space_all_gives_removed_edges_back() -> None:
    model = disturbed()
    EDGE_POPUP.begin(model, Cycle(remaining=0.25, scores="inherit", space="survivors"), 2, {})
    EDGE_POPUP.begin(model, Cycle(remaining=0.5, scores="inherit", space="all"), 3, {})
    assert int(mask(model).sum()) == 360
    assert all(edges.survivors is None for edges in searched_edges(model).values())


def session(model: nn.Module, tmp_path: Path, epochs: int, momentum: float = 0.9, inputs: int = 20) -> Session:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, inputs, generator=generator)
    y = x[:, :4].argmax(1)
    loaded = in_memory(x, y, x, y, batch=16, seed=0)
    training = Training(epochs=epochs, lr=0.2 if momentum else 2.0, momentum=momentum)
    return Session(
        model=model,
        architecture=Architecture(name="mlp", arguments={"sizes": [20, 30, 4]}),
        loop=Loop(model=model, loaded=loaded, training=training, device=torch.device("cpu")),
        folder=RunFolder(tmp_path / "run"),
        progress=RunProgress(1, 1, Console(quiet=True)),
        checkpoints=Checkpoints(tmp_path / "run" / "checkpoints"),
    )


def run(state: Session, *stages: Stage) -> None:
    for stage in stages:
        stage.run(state)
        state.end_stage(stages=100)


@pytest.mark.parametrize("method", [hard_iep, soft_iep])
def test_kept_counts_follow_the_absolute_rate_and_hard_masks_nest(method: object, tmp_path: Path) -> None:
    state = session(network(), tmp_path, epochs=4)
    masks = []
    for cycle in method((0.5, 0.25, 0.1)):  # type: ignore[operator]
        run(state, Search(cycle=cycle), Evaluate())
        masks.append(mask(state.model))
    assert [int(m.sum()) for m in masks] == [360, 180, 72]
    nested = all(not (after & ~before).any() for before, after in pairwise(masks))
    assert nested == (method is hard_iep)
    ratios = [result.dying for result in state.done.results]
    assert all(ratio <= 1 - result.remaining for ratio, result in zip(ratios, state.done.results, strict=True))
    assert all(result.dying_cumulative <= result.dying for result in state.done.results)
    events = read_metrics(state.folder.path)
    assert [event["event"] for event in events] == (["epoch"] * 4 + ["cycle", "evaluate"]) * 3
    by_cycle = [[e["dying"] for e in events if e["event"] == "epoch" and e["cycle"] == c] for c in (1, 2, 3)]
    assert all(list(d) == sorted(d, reverse=True) for d in by_cycle)
    assert [d[-1] for d in by_cycle] == ratios


def test_final_stays_at_the_last_rate_applied_and_keeps_the_momentum(tmp_path: Path) -> None:
    state = session(network(), tmp_path, epochs=3)
    run(state, Search(cycle=Cycle(remaining=0.5)))
    last = state.done.lr
    optimiser = state.optimiser
    assert last == state.loop.training.rates()[-1] > 0
    run(state, Search(cycle=Cycle(remaining=0.25, scores="inherit", lr="final")))
    assert state.optimiser is optimiser
    rates = [event["lr"] for event in read_metrics(state.folder.path) if event["event"] == "epoch"]
    assert rates[3:] == [last] * 3
    run(state, Search(cycle=Cycle(remaining=0.125, scores="inherit")))
    assert state.optimiser is not optimiser


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("scores", ["inherit", "initial"])
def test_a_zeroed_edge_can_be_selected_again(scores: Scores, momentum: float, tmp_path: Path) -> None:
    """Without momentum too, where only the gradient of |s| at 0 can move it."""
    state = session(network(), tmp_path, epochs=10, momentum=momentum)
    run(state, Search(cycle=Cycle(remaining=0.5)))
    zeroed = ~mask(state.model)
    run(state, Search(cycle=Cycle(remaining=0.4, scores=scores, unselected="zero")))
    ever = torch.cat([unpack(e.ever, e.cols).flatten() for e in searched_edges(state.model).values()])
    assert (ever & zeroed).any()


def test_a_removed_edge_cannot(tmp_path: Path) -> None:
    state = session(network(), tmp_path, epochs=10)
    run(state, Search(cycle=Cycle(remaining=0.5)))
    removed = ~mask(state.model)
    run(state, Search(cycle=Cycle(remaining=0.4, scores="inherit", space="survivors")))
    ever = torch.cat([unpack(e.ever, e.cols).flatten() for e in searched_edges(state.model).values()])
    assert ever.any()
    assert not (ever & removed).any()


@pytest.mark.parametrize("method", [hard_iep, hard_iep_ft, hard_iep_srw, hard_iep_sri])
@settings(max_examples=8)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::supermask.SparseLayerWarning")
def test_hard_masks_nest_at_any_rates_in_any_network(
    method: Callable[[Sequence[float]], tuple[Cycle, ...]],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rates = sorted(data.draw(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=4)), reverse=True)
    sizes = data.draw(st.lists(st.sampled_from([1, 3, 31, 33, 65]), min_size=1, max_size=2))
    inputs, kind = data.draw(st.sampled_from([5, 32, 33])), data.draw(st.sampled_from(get_args(Magnitude)))
    dense = Architecture(name="mlp", arguments={"sizes": [inputs, *sizes, 4]}).build()
    model = convert(dense, data.draw(st.integers(0, 99)), magnitude=kind)
    state = session(model, tmp_path_factory.mktemp("nest"), epochs=1, inputs=inputs)
    before = torch.ones_like(mask(model))
    for cycle in method(rates):
        run(state, Search(cycle=cycle))
        after = mask(model)
        assert int(after.sum()) == sum(max(1, round(cycle.remaining * e.count)) for e in searched_edges(model).values())
        assert not (after & ~before).any()
        before = after


def test_what_a_search_leaves_in_the_folder(tmp_path: Path) -> None:
    state = session(network(), tmp_path, epochs=3)
    run(state, Search(cycle=Cycle(remaining=0.5)), Search(cycle=Cycle(remaining=0.25, scores="inherit")))
    layers = searched_edges(state.model)
    held = load_file(tmp_path / "run" / "masks" / "cycle-2.safetensors")
    assert held.keys() == layers.keys()
    assert all(torch.equal(held[name], edges.mask()) for name, edges in layers.items())
    with safe_open(tmp_path / "run" / "masks" / "cycle-1.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["shapes"]) == {name: list(edges.shape) for name, edges in layers.items()}
        assert len(file.metadata()) == 1, "several are written in an order that differs"
    cycle = [event for event in read_metrics(tmp_path / "run") if event["event"] == "cycle"][-1]
    for name, edges in layers.items():
        found = cycle["layers"][name]
        assert (found["edges"], found["kept"]) == (edges.count, int(edges.kept))
        assert found["ever"] == int(popcount(edges.ever).sum())
        assert found["scores"] == histogram(edges)
    first, *ranks = [json.loads(line) for line in (tmp_path / "run" / "ranks.jsonl").read_text().splitlines()]
    assert first["event"] == "edges"
    assert [(line["cycle"], line["epoch"]) for line in ranks] == [
        (1, 0),
        *((1, n) for n in (1, 2, 3)),
        (2, 4),
        (2, 5),
        (2, 6),
    ]
    names = list(layers)
    masks = [unpack(layers[name].mask(), layers[name].cols).flatten() for name in names]
    assert ranks[-1]["selected"] == [int(masks[layer][place]) for layer, place in first["edges"]]
    times = [json.loads(line) for line in (tmp_path / "run" / "times.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in times] == [1, 2, 3, 4, 5, 6]
    assert all(line["seconds"] > 0 and 0 <= line["data_wait"] <= 1 for line in times)


def test_a_pinned_layer_keeps_its_rate_through_cycles() -> None:
    model = convert(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4)), 0, overrides={"2": 1.0})
    set_remaining(model, 0.2)
    EDGE_POPUP.begin(model, Cycle(remaining=0.1, scores="inherit", space="survivors"), 2, {})
    assert [edges.remaining for edges in searched_edges(model).values()] == [0.1, 1.0]


def test_ep_long_takes_the_epochs_of_its_length(tmp_path: Path) -> None:
    state = session(network(), tmp_path, epochs=2)
    (cycle,) = ep(0.3, length=3)
    run(state, Search(cycle=cycle))
    assert state.loop.epoch == 6


def test_trained_biases_and_norms_start_again_with_the_scores() -> None:
    dense = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 4))
    model = convert(dense, 5, bias="train", norm="train")
    initial = {name: p.detach().clone() for name, p in unsearched(model).items()}
    assert sorted(initial) == ["0.bias", "1.bias", "1.weight", "3.bias"]
    for scores, carries in (("inherit", True), ("fresh", False)):
        with torch.no_grad():
            for name in initial:
                model.get_parameter(name).add_(7.0)
        learned = {name: model.get_parameter(name).detach().clone() for name in initial}
        EDGE_POPUP.begin(model, Cycle(remaining=0.4, scores=scores, space="survivors"), 2, initial)
        for name, value in (learned if carries else initial).items():
            assert torch.equal(model.get_parameter(name), value)
    decays = [group["weight_decay"] for group in Training(weight_decay=0.5).make_optimiser(model).param_groups]
    assert decays == [0.5, 0.0]
