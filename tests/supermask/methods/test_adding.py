"""The method that docs/methods.md adds runs as it stands there, and holds to what holds of all methods."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from supermask import load, save
from supermask.edges.in_model import searched_edges
from supermask.edges.rules import Rule as NoRule
from supermask.edges.searched import SearchedEdges
from supermask.kernels.base.bits import unpack
from supermask.kernels.base.keys import Threshold
from supermask.reports.numbers import rank_table
from supermask.reports.page import write_report
from supermask.runs.identity import read_config
from supermask.runs.read import read_run
from supermask.training.training import Training
from tests.kernels.paths import path
from tests.places import ROOT
from tests.supermask.methods import test_every_method as every
from tests.supermask.runs.small_runs import BASE, Killed, a_save_every, left_by, mlp, placed, same, watched

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL)


def added() -> Any:
    """The page's method."""
    space: dict[str, Any] = {"__name__": "a_file_of_ones_own"}
    exec(BLOCKS[0], space)
    return space["Superposed"]()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec("\n".join(BLOCKS), {"__name__": "a_file_of_ones_own"})
    run = read_run(tmp_path / "runs" / "digits_superposed-1")
    assert run.cycles[-1].accuracy is not None
    assert run.cycles[-1].accuracy > 0.9
    assert 0.3 < run.cycles[-1].remaining < 0.7
    assert run.rates == (run.cycles[-1].remaining,)
    write_report(run.path, tmp_path / "report")
    table = rank_table(run)
    assert {row[-1] for row in table[1:]} == {100 * run.cycles[-1].remaining}
    assert replace(run, cycles=()).rates == (1.0,), "nobody knows yet"


def test_the_page_s_hook_forgets_unselected_scores() -> None:
    space: dict[str, Any] = {"__name__": "a_file_of_ones_own"}
    exec("\n".join([BLOCKS[0], BLOCKS[2]]), space)
    for edges in searched_edges(every.trained(space["Forgetful"](remaining=0.5), 5)).values():
        mask = unpack(edges.mask(), edges.cols).view(edges.shape)
        assert torch.equal(edges.scores != 0, mask)


def test_the_page_s_cycles_begin_with_the_scores_of_kept_edges_halved() -> None:
    space: dict[str, Any] = {"__name__": "a_file_of_ones_own"}
    exec("\n".join([BLOCKS[0], BLOCKS[2], BLOCKS[3]]), space)
    method = space["Halved"](given=(0.5, 0.3))
    model = every.trained(method)
    layers = list(searched_edges(model).values())
    before = [edges.scores.clone() for edges in layers]
    masks = [unpack(edges.mask(), edges.cols).view(edges.shape) for edges in layers]
    with torch.no_grad():  # as a run calls it
        method.begin(model, method.phases()[1], 2, {})
    for edges, scores, mask in zip(layers, before, masks, strict=True):
        assert torch.equal(edges.scores, torch.where(mask, scores / 2, scores))
        assert edges.remaining == pytest.approx(0.3, abs=0.01)


def test_the_page_s_phase_goes_on_at_a_tenth_and_resumes_so(tmp_path: Path) -> None:
    space: dict[str, Any] = {"__name__": "a_file_of_ones_own"}
    exec("\n".join([BLOCKS[0], BLOCKS[4]]), space)
    made = replace(BASE, method=space["Settled"](remaining=0.5), stages=None, training=Training(epochs=3, lr=0.3))
    with watched() as whole, a_save_every(1):
        placed(made, tmp_path / "whole", checkpoint_seconds=1).execute()
    rates = [epoch.lr for epoch in read_run(tmp_path / "whole").epochs]
    assert rates[3:] == [0.1 * rates[2]] * 3
    late = [n for n, name in enumerate(whole.names, start=1) if name == "before Loop.take_step"][-3]
    with watched(late), a_save_every(1), suppress(Killed):
        placed(made, tmp_path / "cut", checkpoint_seconds=1).execute()
    placed(made, tmp_path / "cut", resume=True).execute()
    assert same(left_by(tmp_path / "cut"), left_by(tmp_path / "whole"))
    config = read_config(tmp_path / "cut")
    assert config is not None
    assert "type" not in config["stages"][0]["cycle"]
    assert config["stages"][2]["cycle"]["type"] == "a_file_of_ones_own.Settling"


def test_the_page_s_loss_and_measure(tmp_path: Path) -> None:
    space: dict[str, Any] = {"__name__": "a_file_of_ones_own"}
    exec("\n".join([BLOCKS[0], BLOCKS[2], BLOCKS[6]]), space)
    largest = {}
    for penalty in (0.0, 0.1):
        method = space["Penalised"](remaining=0.5, penalty=penalty)
        result = placed(replace(BASE, method=method, stages=None), tmp_path / str(penalty)).execute()
        assert result.tickets[0].accuracy is not None
        largest[penalty] = read_run(tmp_path / str(penalty)).cycles[-1].measures["largest"]
    assert 0 < largest[0.1] < largest[0.0], "the penalty reaches the scores"


def test_a_method_in_a_loop_of_one_s_own_draws_again() -> None:
    space: dict[str, Any] = {"__name__": "a_file_of_ones_own"}
    exec("\n".join(["import torch", BLOCKS[5]]), space)
    (edges,) = searched_edges(space["network"]).values()
    assert edges.flips is not None
    assert edges.flips.any()


def test_a_rule_that_gives_nonsense_is_told_so() -> None:
    class Typo(NoRule):
        def thresholds(self, layers: Any) -> Any:
            return [Threshold(edges.score, edges.kept) for edges in layers]

    class Nothing(NoRule):
        def thresholds(self, layers: Any) -> Any:
            return None

    class TwoCoats(NoRule):
        def thresholds(self, layers: Any) -> Any:
            return [Threshold(torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)) for _ in layers]

    for rule, error, says in (
        (Typo(), RuntimeError, "Typo failed: .*no attribute 'score'"),
        (Nothing(), TypeError, "Nothing.thresholds gave None: expected a list"),
        (TwoCoats(), ValueError, r"thresholds of \[2\] coats: expected, of these layers, \[1\]"),
    ):
        with pytest.raises(error, match=says):
            _ = SearchedEdges((3, 5), seed=0, rule=rule).selected


def test_it_is_some_thirty_lines() -> None:
    assert len(BLOCKS[0].strip().splitlines()) <= 32


def test_it_selects_what_is_not_negative_and_its_gradient_is_dense(tmp_path: Path) -> None:
    model = every.trained(added())
    for edges in searched_edges(model).values():
        with torch.no_grad():
            edges.scores.view(-1)[:2] = torch.tensor([0.0, -0.0])
        assert torch.equal(unpack(edges.mask(), edges.cols), edges.scores.reshape(edges.rows, -1) >= 0)
        assert edges.selected == int((edges.scores >= 0).sum())
        weight = edges(torch.float32)
        weight.sum().backward()
        theta = edges.theta().where(torch.ones(edges.rows, edges.cols, dtype=torch.bool), torch.float32)
        assert torch.equal(edges.scores.grad, theta.view(edges.shape))


def test_its_ticket_and_interpreted_kernels_agree_to_the_bit(tmp_path: Path) -> None:
    found = {}
    for name in ("torch", "triton"):
        with path(name):
            found[name] = every.state(every.trained(added(), 3))
    assert same(found["torch"], found["triton"])
    model = every.trained(added()).eval()
    save(model, tmp_path / "t.safetensors", architecture=mlp(4))
    inputs = torch.randn(5, 20)
    assert torch.equal(load(tmp_path / "t.safetensors", weights="cached")(inputs), model(inputs))


def test_a_state_of_another_rule_is_refused() -> None:
    other = every.network(every.SHORT["IteRand"]).state_dict()
    with pytest.raises(RuntimeError, match="the state dict is of edges with"):
        every.network(added()).load_state_dict(other)


def test_killed_and_resumed_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(every.SHORT, "added", added())  # type: ignore[arg-type]
    every.test_killed_and_resumed_it_ends_the_same("added", tmp_path)
