"""Hooks are called once each, at their place, with the number of their step; what they return counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask.data.base import Batch
from supermask.edges.in_model import searched_edges
from supermask.methods.edge_popup import EP
from supermask.networks.convert import convert
from supermask.training.hooks import Hooks
from supermask.training.loop import Loop
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training
from tests.supermask.runs.small_runs import Points, mlp

CPU = torch.device("cpu")


class Noting(Hooks):
    """Writes down each call, with what it sees of the network at that moment."""

    whole_gradients = False

    def __init__(self, taken: frozenset[int] = frozenset()) -> None:
        self.calls: list[tuple[str, int]] = []
        self.taken = taken
        self.scores: dict[tuple[str, int], Tensor] = {}
        self.graded: dict[tuple[str, int], bool] = {}
        self.labels: list[Tensor] = []

    def note(self, name: str, number: int, model: nn.Module) -> None:
        self.calls.append((name, number))
        scores = next(iter(searched_edges(model).values())).scores
        self.scores[name, number] = scores.detach().clone()
        self.graded[name, number] = scores.grad is not None

    def before_step(self, model: nn.Module, step: int) -> None:
        self.note("before", step, model)

    def loss(
        self, model: nn.Module, network: Callable[[Tensor], Tensor], batch: Batch, label_smoothing: float
    ) -> tuple[Tensor, Tensor | None]:
        self.note("loss", len(self.labels), model)
        self.labels.append(batch[1])
        loss, logits = super().loss(model, network, batch, label_smoothing)
        return 3 * loss, logits

    def step(self, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> bool:
        self.note("step", step, model)
        return step in self.taken

    def after_step(self, model: nn.Module, step: int) -> None:
        self.note("after", step, model)

    def end_epoch(self, model: nn.Module, epoch: int) -> None:
        self.note("end", epoch, model)


def loop_of(hooks: Hooks, label_smoothing: float = 0.0) -> tuple[Loop, torch.optim.SGD]:
    model = convert(mlp(4).build(), 1, remaining=0.5)
    training = Training(epochs=2, lr=0.3, label_smoothing=label_smoothing)
    loaded = Points().open(seed=0, device=CPU)
    return Loop(model=model, loaded=loaded, training=training, device=CPU, hooks=hooks), training.make_optimiser(model)


def test_each_is_called_once_at_its_place() -> None:
    hooks = Noting()
    loop, optimiser = loop_of(hooks)
    results = [loop.run_epoch(optimiser, 0.3) for _ in range(2)]
    one_step = ("before", "loss", "step", "after")
    expected = [(name, step) for step in range(5) for name in one_step] + [("end", 1)]
    expected += [(name, step) for step in range(5, 10) for name in one_step] + [("end", 2)]
    assert hooks.calls == expected
    assert results[0].loss > 2.0, "three times the cross-entropy of four classes"
    assert len(hooks.labels) == 10


def test_what_each_sees() -> None:
    hooks = Noting()
    loop, optimiser = loop_of(hooks)
    loop.run_epoch(optimiser, 0.3)
    for step in range(5):
        before, after = hooks.scores["before", step], hooks.scores["after", step]
        assert torch.equal(before, hooks.scores["loss", step])
        assert torch.equal(before, hooks.scores["step", step]), "step is asked before the optimiser"
        assert not torch.equal(before, after), "after_step sees the update"
        assert step == 0 or torch.equal(before, hooks.scores["after", step - 1])
        assert [hooks.graded[name, step] for name in ("before", "loss", "step", "after")] == [False, False, True, False]
    assert torch.equal(hooks.scores["end", 1], hooks.scores["after", 4])


def test_a_step_taken_is_not_taken_by_the_optimiser() -> None:
    hooks = Noting(taken=frozenset({2, 4}))
    loop, optimiser = loop_of(hooks)
    loop.run_epoch(optimiser, 0.3)
    still = [torch.equal(hooks.scores["before", step], hooks.scores["after", step]) for step in range(5)]
    assert still == [False, False, True, False, True]
    assert loop.step == 5


def test_an_epoch_that_goes_on_after_a_stop_calls_what_is_left() -> None:
    hooks = Noting()
    loop, optimiser = loop_of(hooks)

    class Stopped(Exception):
        pass

    def stop() -> None:
        if loop.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        loop.run_epoch(optimiser, 0.3, stop)
    loop.run_epoch(optimiser, 0.3)
    names = [number for name, number in hooks.calls if name == "after"]
    assert names == [0, 1, 2, 3, 4]
    assert [number for name, number in hooks.calls if name == "end"] == [1]


def test_the_loss_is_smoothed_as_training_says() -> None:
    plain, smooth = Hooks(), Hooks()
    first = loop_of(plain)[0]
    batch = next(first.loaded.train(first.group.part(0, 0)))
    for hooks, smoothing in ((plain, 0.0), (smooth, 0.3)):
        model = convert(mlp(4).build(), 1, remaining=0.5)
        loss, logits = hooks.loss(model, model, batch, smoothing)
        assert logits is not None
        assert torch.equal(loss, F.cross_entropy(logits, batch[1], label_smoothing=smoothing))


@pytest.mark.parametrize("reads", [False, True])
def test_a_loss_that_reads_scores_gets_all_of_its_gradient(reads: bool) -> None:
    class Penalised(Hooks):
        whole_gradients = reads

        def loss(self, model: nn.Module, *given: Any) -> tuple[Tensor, Tensor | None]:
            loss, logits = super().loss(model, *given)
            return loss + 0.01 * sum(edges.scores.square().sum() for edges in searched_edges(model).values()), logits

    loop, optimiser = loop_of(Penalised())
    assert isinstance(optimiser, ScoreSGD)
    loop.run_epoch(optimiser, 0.3)
    other, _ = loop_of(Penalised())
    plain = torch.optim.SGD(other.model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
    other.run_epoch(plain, 0.3)
    equal = [torch.equal(a, b) for a, b in zip(loop.model.parameters(), other.model.parameters(), strict=True)]
    assert all(equal) == reads


def test_a_hook_that_nothing_would_call_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"Late.before_steps may be meant to be the hook before_step,"):

        class Late(Hooks):
            def before_steps(self, model: nn.Module, step: int) -> None:
                """Close to a hook."""

    class Own(Hooks):
        def restart(self) -> None:
            """Close to none."""


@pytest.mark.parametrize("name", ["loss", "step"])
def test_an_own_loss_or_step_says_which_gradients_it_needs(name: str) -> None:
    body = {name: lambda self, *given: None}
    with pytest.raises(TypeError, match="Mute has its own loss or step and does not say whole_gradients"):
        type("Mute", (Hooks,), body)
    said = type("Said", (Hooks,), {**body, "whole_gradients": True})
    with pytest.raises(TypeError, match="Heir has its own"):  # what the base needs says nothing of another loss
        type("Heir", (said,), body)


def test_a_loss_that_is_no_pair_is_told_what_is_wanted() -> None:
    class Single(Hooks):
        whole_gradients = False

        def loss(self, model: nn.Module, network: Any, batch: Batch, label_smoothing: float) -> Any:
            return network(batch[0]).square().mean()

    loop, optimiser = loop_of(Single())
    with pytest.raises(TypeError, match=r"Single.loss gave Tensor: expected a pair, the loss and the logits"):
        loop.run_epoch(optimiser, 0.3)


def test_a_loss_without_logits_counts_no_accuracy() -> None:
    class Bare(Hooks):
        whole_gradients = False

        def loss(self, model: nn.Module, network: Any, batch: Batch, label_smoothing: float) -> tuple[Tensor, None]:
            return network(batch[0]).square().mean(), None

    loop, optimiser = loop_of(Bare())
    result = loop.run_epoch(optimiser, 0.3)
    assert result.accuracy is None
    assert result.loss > 0


def test_where_a_loss_comes_from_says_which_gradients_it_needs() -> None:
    def body(**said: bool) -> dict[str, Any]:
        return {"loss": lambda self, *given: None, **said}

    mixin = type("Mixin", (), body())
    with pytest.raises(TypeError, match="Mixed has its own loss"):
        type("Mixed", (mixin, Hooks), {})
    assert type("Mixed", (mixin, Hooks), {"whole_gradients": True}).whole_gradients
    reads = type("Reads", (Hooks,), body(whole_gradients=True))
    steps = type("Steps", (Hooks,), {"step": lambda self, *given: False, "whole_gradients": False})
    for bases in ((reads, steps), (steps, reads)):
        with pytest.raises(TypeError, match="Both has its own loss"):
            type("Both", bases, {})
    assert type("Heir", (reads,), {}).whole_gradients


def test_helpers_are_free_to_be_called_what_they_are() -> None:
    named = ("score", "rate", "cycle", "begins_with", "evaluation_set")
    type("Free", (EP,), {name: lambda self: None for name in named})
    for name, hook in (
        ("optimizer", "optimiser"),
        ("end_epochs", "end_epoch"),
        ("evaluated", "evaluate"),
        ("after_epoch", "end_epoch"),
    ):
        with pytest.raises(TypeError, match=f"{name} may be meant to be the hook {hook},"):
            type("Late", (EP,), {name: lambda self: None})


def test_what_can_be_replayed_is_said_by_whoever_wrote_it() -> None:
    class Mixin:
        whole_gradients = False

        def loss(self, *given: Any) -> Any:
            return given

    class Said(Mixin):
        replayable = True

        def loss(self, *given: Any) -> Any:
            return given

    class Own(Hooks):
        whole_gradients = False

        def step(self, *given: Any) -> bool:
            return False

    class Mixed(Mixin, Hooks):
        whole_gradients = False

    class MixedAndSaid(Said, Hooks):
        whole_gradients = False

    class SaidOfAnother(Own, MixedAndSaid):
        whole_gradients = False

    assert [made.replayable for made in (Hooks, Own, Mixed, MixedAndSaid, SaidOfAnother)] == [
        True, False, False, True, False
    ]  # fmt: skip
