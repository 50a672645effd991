"""The loop: its schedule, its reproducibility, and what it says when the loss breaks down."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from supermask.data.base import Loaded, Part, in_memory
from supermask.edges.in_model import searched_edges
from supermask.kernels.base.bits import popcount
from supermask.networks.convert import convert
from supermask.networks.rates import set_remaining
from supermask.training.loop import Loop
from supermask.training.non_finite import NonFiniteError, first_non_finite
from supermask.training.score_sgd import ScoreSGD
from supermask.training.training import Training
from tests.devices import CPU, DEVICE


def toy(seed: int = 0, device: torch.device = DEVICE) -> Loaded:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(96, 10, generator=generator)
    y = (x[:, 0] > 0).long()
    x, y = x.to(device), y.to(device)
    return in_memory(x, y, x, y, batch=32, seed=seed)


def loop(training: Training, loaded: Loaded | None = None, device: torch.device = DEVICE) -> Loop:
    model = convert(nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)), 0)
    return Loop(model=model.to(device), loaded=loaded or toy(device=device), training=training, device=device)


def test_cosine_is_constant_within_an_epoch_and_ends_above_zero() -> None:
    rates = Training(epochs=10, lr=0.3).rates()
    assert rates == [0.15 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(10)]
    assert rates[0] == 0.3
    assert rates[-1] > 0


def test_warm_up_reaches_the_rate_and_then_decays() -> None:
    rates = Training(epochs=8, lr=0.4, warmup=3).rates()
    assert rates[:3] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4])
    assert rates[3] == 0.4
    assert all(a > b for a, b in pairwise(rates[3:]))


def test_a_long_cycle_is_one_cosine() -> None:
    assert Training(epochs=4, lr=1).rates(3) == Training(epochs=12, lr=1).rates()


def test_a_tail_follows_a_cosine_over_the_other_epochs() -> None:
    """IteRand's schedule on ImageNet."""
    rates = Training(epochs=105, lr=0.1, warmup=5, tail=5).rates()
    assert rates[:100] == Training(epochs=100, lr=0.1, warmup=5).rates()
    assert rates[100:] == [1e-5] * 5
    assert Training(epochs=4, lr=1, tail=2, tail_lr=0.5).rates(2) == [*Training(epochs=6, lr=1).rates(), 0.5, 0.5]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 3, "warmup": 3}, "warmup=3"),
        ({"lr": math.nan}, "lr=nan"),
        ({"epochs": 3, "warmup": 1, "tail": 2}, "tail=2: expected 0 to 1"),
        ({"tail": -1}, "tail=-1"),
        ({"tail_lr": 0}, "tail_lr=0"),
        ({"tail_lr": 0.5}, "tail_lr=0.5 with tail=0, which does not read it: leave it out, or give the tail epochs"),
        ({"epochs": 4.5}, "epochs 4.5: expected an integer"),
        ({"epochs": 4, "warmup": 0.5}, "warmup 0.5: expected an integer"),
        ({"epochs": 4, "tail": 1.5}, "tail 1.5: expected an integer"),
    ],
)
def test_bad_training_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Training(**bad)


def test_epochs_are_python_s_integers() -> None:
    counted: Any = {"epochs": np.int64(4), "warmup": np.int64(1), "tail": np.int64(1)}
    training = Training(**counted)
    assert training == Training(epochs=4, warmup=1, tail=1)
    assert [type(getattr(training, name)) for name in counted] == [int, int, int]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_are_equal_to_the_bit_and_learn(precision: str) -> None:
    ends = []
    for _ in range(2):
        it = loop(Training(epochs=5, lr=0.3, precision=precision))
        optimiser = it.training.make_optimiser(it.model)
        results = [it.run_epoch(optimiser, lr) for lr in it.training.rates()]
        ends.append([edges.scores.detach() for edges in searched_edges(it.model).values()])
        assert results[-1].loss < results[0].loss
        assert it.step == 15
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_the_order_of_the_data_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> torch.Tensor:
        return torch.cat([x for x, _ in toy(seed).train(Part(epoch=epoch))])

    assert torch.equal(order(0, 3), order(0, 3))
    assert not torch.equal(order(0, 3), order(0, 4))
    assert not torch.equal(order(0, 3), order(1, 3))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    x, y = torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)
    for batch in (0, 6):
        with pytest.raises(ValueError, match=f"batch={batch}"):
            in_memory(x, y, x, y, batch=batch, seed=0)


def test_reducing_within_an_epoch_changes_nothing() -> None:
    ends = []
    for reduced in (False, True):
        it = loop(Training())
        ends.append(it.run_epoch(it.training.make_optimiser(it.model), 0.1, it.reduce if reduced else lambda: None))
    assert ends[0] == ends[1]


def test_a_state_of_one_process_s_share_is_refused() -> None:
    it = loop(Training())
    with pytest.raises(RuntimeError, match="1 steps are of this process alone: reduce before"):
        it.run_epoch(it.training.make_optimiser(it.model), 0.1, it.state_dict)


def test_the_optimiser_is_asked_what_a_step_runs_within() -> None:
    within: list[str] = []

    class Plain(torch.optim.SGD):
        @contextmanager
        def searching(self) -> Iterator[None]:
            within.append("in")
            yield
            within.append("out")

    it = loop(Training())
    it.run_epoch(Plain(it.model.parameters(), lr=0.1), 0.1)
    assert within == ["in", "out"] * 3


def test_a_rate_that_is_a_tensor_is_filled_in_place() -> None:
    ends = []
    for rate in (9.0, torch.tensor(9.0, device=DEVICE), torch.tensor([9.0], device=DEVICE)):
        it = loop(Training(epochs=3, lr=0.3))
        optimiser = ScoreSGD(it.model, lr=rate, momentum=0.9)
        for lr in it.training.rates():
            it.run_epoch(optimiser, lr)
            (group,) = optimiser.param_groups
            assert group["lr"] is rate if isinstance(rate, torch.Tensor) else group["lr"] == lr
            assert float(group["lr"]) == pytest.approx(lr)
        ends.append([edges.scores.detach() for edges in searched_edges(it.model).values()])
    for end in ends[1:]:
        assert all(map(torch.equal, ends[0], end))


def test_bad_data_stops_the_run_at_its_step() -> None:
    """On the CPU; a GPU's losses are looked at when an epoch ends."""
    loaded = toy(device=CPU)

    def poisoned(part: Part) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number, (x, y) in enumerate(loaded.train(part)):
            yield (x * math.nan if number == 1 else x), y

    bad = Loaded(classes=2, steps=3, train=poisoned, test=loaded.test, calibrate=loaded.calibrate)
    it = loop(Training(), bad, CPU)
    before = [edges.scores.detach().clone() for edges in searched_edges(it.model).values()]
    with pytest.raises(
        NonFiniteError, match=r"step 1 with loss nan; .* the input batch\. Try a lower learning rate than 0\.1"
    ):
        it.run_epoch(it.training.make_optimiser(it.model), 0.0)
    after = [edges.scores.detach() for edges in searched_edges(it.model).values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_layer_that_overflows_is_named() -> None:
    """On the CPU; on a GPU the step is taken before anyone looks."""
    it = loop(Training(), device=CPU)
    bad = Loaded(
        classes=2, steps=1, train=lambda _: iter([(torch.full((4, 10), 3e38), torch.zeros(4, dtype=torch.int64))]),
        test=it.loaded.test, calibrate=it.loaded.calibrate,
    )  # fmt: skip
    it.loaded = bad
    with pytest.raises(NonFiniteError, match=r"output of layer 0[. ]"):
        it.run_epoch(it.training.make_optimiser(it.model), 0.1)


def test_non_finite_scores_are_named() -> None:
    it = loop(Training())
    with torch.no_grad():
        searched_edges(it.model)["3"].scores[0, 0] = math.inf
    assert first_non_finite(it.model, torch.zeros(4, 10, device=DEVICE)) == "parameter 3.edges.scores"
    assert first_non_finite(nn.ReLU(), torch.zeros(1)) is None


@pytest.mark.slow
def test_a_compiled_run_makes_the_same_masks_and_compiles_once() -> None:
    ends = []
    for compiled in (False, True):
        it = loop(Training(epochs=3, lr=0.3, compile=compiled))
        optimiser = it.training.make_optimiser(it.model)
        it.run_epoch(optimiser, 0.3)
        with torch._dynamo.config.patch(error_on_recompile=True):
            set_remaining(it.model, 0.2)
            losses = [it.run_epoch(optimiser, lr).loss for lr in (0.2, 0.1)]
        ends.append((losses, [edges.mask() for edges in searched_edges(it.model).values()]))
    assert ends[1][0] == pytest.approx(ends[0][0], rel=1e-3)
    for eager, compiled in zip(ends[0][1], ends[1][1], strict=True):
        assert int(popcount(eager ^ compiled).sum()) <= 0.01 * int(popcount(eager).sum())
        assert torch.equal(popcount(eager).sum(), popcount(compiled).sum())
