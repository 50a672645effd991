"""Recorders: fed once an epoch and once a cycle; what was seen survives a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from supermask.edges.in_model import searched_edges
from supermask.methods.cycles import Cycle
from supermask.networks.convert import convert
from supermask.runs import stages
from supermask.runs.folder import RunFolder
from supermask.runs.read import read_metrics
from supermask.runs.recorder import Recorder, SearchRecorder, Seen
from supermask.runs.stages import Search, Train
from supermask.training.loop import EpochResult
from supermask.training.measures import track
from tests.supermask.runs.test_stages import network, run, session

TRAINED = EpochResult(loss=0.5, accuracy=0.75)


@pytest.mark.parametrize(
    ("stage", "kind"), [(Search(cycle=Cycle(remaining=0.5)), "SearchRecorder"), (Train(), "Recorder")]
)
def test_a_recorder_is_told_of_each_epoch_and_of_the_end(
    stage: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    class Watched(getattr(stages, kind)):  # type: ignore[misc]
        def begin(self) -> None:
            told.append("begin")
            super().begin()

        def epoch(self, loop: Any, lr: float, trained: EpochResult, validation: float | None = None) -> Any:
            told.append((loop.epoch, lr))
            assert validation is None
            return super().epoch(loop, lr, trained, validation)

        def cycle(self, trained: EpochResult, chosen: Any = None) -> Any:
            told.append(trained)
            assert chosen == (None, None)
            return super().cycle(trained, chosen)

    monkeypatch.setattr(stages, kind, Watched)
    dense = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    state = session(network() if kind == "SearchRecorder" else dense, tmp_path, epochs=3)
    run(state, stage)
    rates = state.loop.training.rates()
    assert told == ["begin", *((number, lr) for number, lr in enumerate(rates, start=1)), state.done.trained]
    assert [result.cycle for result in state.done.results] == [1]


def test_a_process_that_writes_nothing_measures_the_same(tmp_path: Path) -> None:
    results = []
    for silent in (False, True):
        model = network()
        folder = RunFolder(tmp_path / f"{silent}", silent=silent)
        recorder = SearchRecorder(model, folder, 1, seed=3, seen=Seen(model), rate=0.5)
        recorder.begin()
        model.train()(torch.ones(2, 20))
        results.append(recorder.cycle(TRAINED))
    assert results[0] == results[1]
    assert not results[0].layers
    (event,) = read_metrics(tmp_path / "False")
    assert set(event["layers"]) == {"0", "3"}
    assert not (tmp_path / "True").exists()


def test_the_rate_of_a_network_whose_every_layer_is_pinned_is_what_it_keeps(tmp_path: Path) -> None:
    model = convert(nn.Sequential(nn.Linear(20, 30)), 0, overrides={"0": 0.25})
    recorder = SearchRecorder(model, RunFolder(tmp_path / "run"), 1, seed=0, seen=Seen(model), rate=0.5)
    recorder.begin()
    assert recorder.cycle(TRAINED).rate == 0.25


def test_what_was_seen_comes_back() -> None:
    model = network()
    seen = Seen(model)
    assert seen.state_dict() == {"ever": {}, "cumulative": {}}
    track(model)
    model.train()(torch.ones(2, 20))
    seen.cumulative.add(model)
    again = network()
    other = Seen(again)
    other.load_state_dict(seen.state_dict())
    for name, edges in searched_edges(again).items():
        ever = searched_edges(model)[name].ever
        assert ever is not None
        assert edges.ever is not None
        assert int(ever.count_nonzero()) > 0
        assert torch.equal(edges.ever, ever)
        assert torch.equal(other.cumulative.ever[name], ever)
    other.load_state_dict({"ever": {}, "cumulative": {}})
    assert all(edges.ever is None for edges in searched_edges(again).values())
    assert other.cumulative.ever == {}


def test_dense_training_keeps_every_edge(tmp_path: Path) -> None:
    result = Recorder(nn.Linear(20, 30), RunFolder(tmp_path / "run"), 2).cycle(TRAINED)
    assert (result.cycle, result.kept, result.edges, result.remaining, result.dying) == (2, 600, 600, 1.0, 0.0)
