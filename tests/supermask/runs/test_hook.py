"""Hooks of the user's: each place once, in order, also in a run that was killed; what they may change counts."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from supermask.edges.in_model import searched_edges
from supermask.methods.baselines import Shuffled
from supermask.methods.edge_popup import EP
from supermask.methods.iep import soft_iep
from supermask.networks.convert import convert
from supermask.runs.hook import Begun, Hook, Now
from supermask.runs.read import read_metrics
from supermask.runs.records import CycleResult
from supermask.runs.stages import Evaluate, Train, search
from supermask.training import captured
from supermask.training.captured import CaptureError
from tests.graphs import graphs  # noqa: F401
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
from tests.supermask.runs.some_hooks import Clipped, Diary, Drawing, Shrunk

DROPPING = replace(BASE, network=lambda classes: Dropping(), stages=search(soft_iep(RATES)))


def of_cycle(number: int, *, evaluated: bool = True) -> list[str]:
    """The calls of a cycle of two epochs of five steps."""
    found = []
    for epoch in (2 * number - 1, 2 * number):
        for step in range(5 * epoch - 5, 5 * epoch):
            found += [f"before {number} {epoch} {step}", f"backward {step}", f"after {step}"]
        found += ["log epoch", f"epoch {epoch}"]
    return [*found, "log cycle", *["log evaluate"] * evaluated, f"cycle {number} {evaluated}"]


def test_a_cycle_without_a_step_ends_too(tmp_path: Path) -> None:
    diary = Diary()
    made = replace(BASE, stages=None, method=Shuffled(given=(0.3,)), hooks=(diary,))
    placed(made, tmp_path / "run").execute()
    shuffled = ["log cycle", "log evaluate", "cycle 2 True"]
    assert diary.calls == ["begin base 0", *of_cycle(1), *shuffled, "log export", "log end", "end 2 1"]


def test_nothing_of_a_run_is_left_when_it_ended(tmp_path: Path) -> None:
    """Not for a collection to find: processes that decode its images wait as long as it is there."""
    models: list[weakref.ref[Any]] = []

    class Meets(Hook):
        def end_cycle(self, now: Now, record: CycleResult) -> None:
            models.append(weakref.ref(now.model))

    gc.collect()
    gc.disable()
    try:
        placed(replace(BASE, hooks=(Meets(),)), tmp_path / "run").execute()
        assert [model() for model in models] == [None, None]
    finally:
        gc.enable()


def test_each_place_once_in_order(tmp_path: Path) -> None:
    diary = Diary()
    placed(replace(BASE, hooks=(diary,)), tmp_path / "run").execute()
    expected = ["begin base 0", *of_cycle(1), *of_cycle(2), "log export", "log end", "end 2 1"]
    assert diary.calls == expected
    assert diary.closed == 1


@pytest.mark.parametrize("stages", [(Train(length=2),), (Train(), Evaluate(recalibrate=False), Evaluate())])
def test_a_cycle_ends_when_what_evaluates_it_is_done(stages: Any, tmp_path: Path) -> None:
    diary = Diary()
    placed(replace(BASE, stages=stages, hooks=(diary,)), tmp_path / "run").execute()
    ends = [call for call in diary.calls if call.startswith("cycle")]
    assert ends == [f"cycle 1 {len(stages) > 1}"]
    assert diary.calls[-3:] == [ends[0], "log end", "end 1 0"]


@pytest.mark.parametrize("at", [40, 83, 100, 133, 170, 190, 215])
def test_killed_and_resumed_each_is_called_once_for_what_the_run_goes_on_from(at: int, tmp_path: Path) -> None:
    recipe = replace(BASE, hooks=(Diary(),))
    with watched(at), a_save_every(3), pytest.raises(Killed):
        placed(recipe, tmp_path / "run", checkpoint_seconds=3).execute()
    assert recipe.hooks[0].closed == 1  # type: ignore[attr-defined]
    diary = Diary()
    placed(replace(BASE, hooks=(diary,)), tmp_path / "run", resume=True).execute()
    begun = [call for call in diary.calls if call.startswith("begin")]
    assert len(begun) == 2, "of the part before, and of this one"
    rest = [call for call in diary.calls if not call.startswith("begin")]
    assert rest == [*of_cycle(1), *of_cycle(2), "log export", "log end", "end 2 1"]


def test_an_ended_run_calls_none(tmp_path: Path) -> None:
    placed(BASE, tmp_path / "run").execute()
    diary = Diary()
    placed(replace(BASE, hooks=(diary,)), tmp_path / "run", resume=True).execute()
    assert diary.calls == []
    (tmp_path / "run" / "summary.json").unlink()
    placed(replace(BASE, hooks=(diary,)), tmp_path / "run", resume=True).execute()
    assert diary.calls == ["begin base 20", "end 2 1"]


def test_what_has_gone_before_is_told_at_the_begin(tmp_path: Path) -> None:
    seen: list[Begun] = []

    class Begins(Hook):
        def begin(self, run: Begun) -> None:
            seen.append(run)

    recipe = replace(BASE, hooks=[Begins()])  # a list will do
    with watched(150), a_save_every(3), pytest.raises(Killed):
        placed(recipe, tmp_path / "run", checkpoint_seconds=3).execute()
    placed(recipe, tmp_path / "run", resume=True).execute()
    first, second = seen
    assert (first.step, first.events, first.rank, first.ranks) == (0, [], 0, 1)
    assert second.step > 0
    assert second.events == read_metrics(tmp_path / "run")[: len(second.events)] != []
    assert second.settings["training"]["lr"] == 0.3
    assert second.folder == tmp_path / "run"


def test_gradients_are_changed_in_place(tmp_path: Path) -> None:
    seen: list[float] = []

    class Norms(Hook):
        changes_training = False

        def after_backward(self, now: Now) -> None:
            grads = [edges.scores.grad for edges in searched_edges(now.model).values()]
            assert not torch.is_grad_enabled()
            seen.append(float(torch.stack([grad.norm() for grad in grads]).norm()))

        def before_step(self, now: Now) -> None:
            assert all(edges.scores.grad is None for edges in searched_edges(now.model).values())

    one = replace(BASE, stages=BASE.course[:1], hooks=(Norms(), Clipped(), Norms()))
    placed(one, tmp_path / "run").execute()
    before, after = seen[::2], seen[1::2]
    assert min(before) > 1e-3
    assert after == [pytest.approx(1e-3, rel=1e-3)] * 10
    placed(replace(one, hooks=()), tmp_path / "plain").execute()
    assert not same(last_state(tmp_path / "run")["model"], last_state(tmp_path / "plain")["model"])


def test_gradients_of_scores_are_those_of_the_weights(tmp_path: Path) -> None:
    found: dict[str, Tensor] = {}

    class Compared(Hook):
        changes_training = False

        def after_backward(self, now: Now) -> None:
            if now.step == 0:
                found["own"] = searched_edges(now.model)["fc1"].scores.grad.clone()

    recipe = replace(BASE, stages=None, method=EP(remaining=0.5), hooks=(Compared(),))
    placed(recipe, tmp_path / "run").execute()
    found["fused"] = found.pop("own")

    class Whole(EP):
        whole_gradients = True

    placed(replace(recipe, method=Whole(remaining=0.5)), tmp_path / "whole").execute()
    weights = convert(mlp(4).build(), 0, remaining=1.0).fc1.weight.detach()  # of all edges, selected or not
    assert found["fused"].abs().max() > 0
    completed = found["fused"] * weights  # and the sign of the score, where edges are ranked by magnitude
    assert torch.allclose(found["own"].abs(), completed.abs(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("place", ["before_step", "after_step", "end_epoch", "end_cycle"])
def test_what_a_hook_changes_stays_and_a_killed_run_goes_on_to_the_bit(place: str, tmp_path: Path) -> None:
    recipe = replace(DROPPING, hooks=(Shrunk(at=place),))
    with watched() as passed:
        placed(recipe, tmp_path / "whole").execute()
    whole = left_by(tmp_path / "whole")
    placed(replace(DROPPING, hooks=()), tmp_path / "plain").execute()
    assert not same(whole["state"]["model"], last_state(tmp_path / "plain")["model"])
    for at in (passed.passed // 3, passed.passed // 2, passed.passed - 20):
        folder = tmp_path / str(at)
        with watched(at), a_save_every(3), pytest.raises(Killed):
            placed(recipe, folder, checkpoint_seconds=3).execute()
        placed(recipe, folder, resume=True).execute()
        assert same(left_by(folder), whole), at


def test_a_hook_that_only_looks_changes_no_bit_whatever_it_draws(tmp_path: Path) -> None:
    placed(DROPPING, tmp_path / "plain").execute()
    placed(replace(DROPPING, hooks=(Drawing(), Drawing())), tmp_path / "run").execute()
    assert same(left_by(tmp_path / "run"), left_by(tmp_path / "plain"))


def test_with_captured_steps_what_a_replay_would_not_call_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "can_capture", lambda device: True)
    recipe = replace(BASE, training=replace(BASE.training, capture=True))
    recipe.check_on(torch.device("cpu"))
    replace(recipe, hooks=(Shrunk(),)).check_on(torch.device("cpu"))
    with pytest.raises(CaptureError, match=r"Clipped.after_backward, which a replay would not call"):
        replace(recipe, hooks=(Shrunk(), Clipped())).check_on(torch.device("cpu"))


def test_a_captured_step_has_hooks_around_it(graphs: list[int], tmp_path: Path) -> None:  # noqa: F811
    one = replace(BASE, stages=BASE.course[:1], hooks=(Shrunk(at="after_step"),))
    placed(one, tmp_path / "plain").execute()
    placed(replace(one, training=replace(one.training, capture=True)), tmp_path / "run").execute()
    assert graphs
    assert same(last_state(tmp_path / "run")["model"], last_state(tmp_path / "plain")["model"])
