"""The learning rate of ScoreSGD: a float, or a tensor that steps read where it lies and that nothing replaces."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supermask import ScoreSGD
from supermask.training import score_sgd
from tests.devices import DEVICE
from tests.supermask.training.test_score_sgd import batches, fused_step, groups, network, plain_step

RATES = (0.5, 0.1, 3e-3, 0.0, 1 / 3)
TRAINED: dict[str, Any] = {"bias": "train", "norm": "train"}  # beside the scores


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def set_rates(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("fused", [None, True])
def test_a_tensor_changed_in_place_is_its_float_to_the_bit(
    kernels: str, shape: tuple[int, ...], momentum: float, fused: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERMASK_KERNELS", kernels)
    lr = torch.full(shape, 9.0, device=DEVICE)
    ours, floats, theirs = network(**TRAINED), network(**TRAINED), network(**TRAINED)
    own = ScoreSGD(ours, lr=lr, momentum=momentum, weight_decay=1e-3)
    own.param_groups[1]["fused"] = fused
    floating = ScoreSGD(floats, lr=9.0, momentum=momentum, weight_decay=1e-3)
    other = torch.optim.SGD(groups(theirs, 1e-3), lr=9.0, momentum=momentum)
    for rate, batch in zip(RATES, batches(5), strict=True):
        lr.fill_(rate)
        set_rates(floating, rate)
        set_rates(other, rate)
        fused_step(ours, own, batch)
        fused_step(floats, floating, batch)
        plain_step(theirs, other, batch)
        assert equal(ours, floats)
        assert equal(ours, theirs)
    assert all(group["lr"] is lr for group in own.param_groups)


def test_outside_of_searching_a_tensor_does_too() -> None:
    ours, theirs = network(**TRAINED), network(**TRAINED)
    lr = torch.tensor(0.5, device=DEVICE)
    own, other = ScoreSGD(ours, lr=lr, momentum=0.9), torch.optim.SGD(groups(theirs, 0.0), lr=0.5, momentum=0.9)
    for batch in batches(2):
        plain_step(ours, own, batch)
        plain_step(theirs, other, batch)
    assert equal(ours, theirs)


def rates_given(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The rates that steps are called with."""
    given: list[Tensor] = []
    step = score_sgd.score_step

    def spy(*args: Any, lr: Tensor, **settings: Any) -> Any:
        given.append(lr)
        return step(*args, lr=lr, **settings)

    monkeypatch.setattr(score_sgd, "score_step", spy)
    return given


def test_a_float_goes_through_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    given = rates_given(monkeypatch)
    model = network()
    optimiser = ScoreSGD(model, lr=0.5)
    for rate, batch in zip(RATES, batches(5), strict=True):
        set_rates(optimiser, rate)
        fused_step(model, optimiser, batch)
        assert float(given[-1]) == float(torch.tensor(rate))
        assert optimiser.param_groups[0]["lr"] == rate
    assert len({id(tensor) for tensor in given}) == 1


def test_a_tensor_is_given_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given = rates_given(monkeypatch)
    model, lr = network(), torch.tensor(0.5, device=DEVICE)
    fused_step(model, ScoreSGD(model, lr=lr), *batches(1))
    assert [tensor is lr for tensor in given] == [True]


def test_a_scheduler_changes_it_in_place() -> None:
    ours, theirs, lr = network(), network(), torch.tensor(0.5, device=DEVICE)
    own, other = ScoreSGD(ours, lr=lr), ScoreSGD(theirs, lr=0.5)
    schedules = [torch.optim.lr_scheduler.StepLR(each, 1, gamma=0.5) for each in (own, other)]
    for batch in batches(3):
        fused_step(ours, own, batch)
        fused_step(theirs, other, batch)
        for schedule in schedules:
            schedule.step()
    assert own.param_groups[0]["lr"] is lr
    assert float(lr) == 0.0625
    assert equal(ours, theirs)


@pytest.mark.parametrize("saved", ["float", "tensor"])
@pytest.mark.parametrize("held", ["float", "tensor"])
def test_a_loaded_rate_has_the_value_saved_and_the_kind_held(held: str, saved: str) -> None:
    ours, theirs = network(**TRAINED), network(**TRAINED)
    first, second, third = batches(3)
    other = torch.optim.SGD(
        groups(theirs, 0.0), lr=torch.tensor(0.25, device=DEVICE) if saved == "tensor" else 0.25, momentum=0.9
    )
    plain_step(theirs, other, first)
    ours.load_state_dict(theirs.state_dict())
    lr = torch.tensor([9.0], device=DEVICE) if held == "tensor" else 9.0
    own = ScoreSGD(ours, lr=lr, momentum=0.9)
    own.load_state_dict(copy.deepcopy(other.state_dict()))
    for group in own.param_groups:
        assert float(group["lr"]) == 0.25
        assert group["lr"] is lr if isinstance(lr, Tensor) else isinstance(group["lr"], float)
    fused_step(ours, own, second)
    plain_step(theirs, other, second)
    assert equal(ours, theirs)
    other.load_state_dict(copy.deepcopy(own.state_dict()))
    fused_step(ours, own, third)
    plain_step(theirs, other, third)
    assert equal(ours, theirs)


def test_a_saved_state_may_be_of_another_device() -> None:
    """Whose rate the tensor held takes the value of, since torch leaves rates where they were saved."""
    model, lr = network(), torch.tensor(9.0, device=DEVICE)
    optimiser = ScoreSGD(model, lr=lr)
    state = ScoreSGD(network(), lr=0.1).state_dict()
    state["param_groups"][0]["lr"] = torch.tensor([0.25], dtype=torch.float64)
    optimiser.load_state_dict(state)
    assert float(lr) == 0.25
    fused_step(model, optimiser, *batches(1))


def test_several_rates_do_not_go_into_one_tensor() -> None:
    model, lr = network(**TRAINED), torch.tensor(9.0, device=DEVICE)
    optimiser = ScoreSGD(model, lr=lr)
    state = ScoreSGD(network(**TRAINED), lr=0.5).state_dict()
    state["param_groups"][1]["lr"] = 0.25
    with pytest.raises(ValueError, match=r"rates \[0\.5, 0\.25\] for groups that share one tensor"):
        optimiser.load_state_dict(state)
    assert [float(group["lr"]) for group in optimiser.param_groups] == [9.0, 9.0]
    optimiser.param_groups[1]["lr"] = lr.clone()
    optimiser.load_state_dict(state)
    assert [float(group["lr"]) for group in optimiser.param_groups] == [0.5, 0.25]
    assert optimiser.param_groups[0]["lr"] is lr
    floating = ScoreSGD(network(**TRAINED), lr=9.0)
    floating.load_state_dict(state)
    assert [group["lr"] for group in floating.param_groups] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("lr", "error", "said"),
    [
        (-0.1, ValueError, r"lr=-0\.1: expected none below 0"),
        (torch.tensor(0.1, dtype=torch.float64), TypeError, "lr is torch.float64: expected torch.float32"),
        (torch.tensor([0.1, 0.2]), ValueError, r"lr has shape \(2,\)"),
    ],
)
def test_a_step_at_what_is_no_rate_is_refused(lr: float | Tensor, error: type[Exception], said: str) -> None:
    model = network()
    optimiser = ScoreSGD(model, lr=0.1)
    before = [parameter.clone() for parameter in model.parameters()]
    optimiser.param_groups[0]["lr"] = lr
    (x, y), *_ = batches(1)
    with optimiser.searching():
        F.cross_entropy(model(x), y).backward()
    with pytest.raises(error, match=said):
        optimiser.step()
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("lr", [torch.tensor(-0.1), torch.tensor([-0.1]), torch.tensor([0.1, 0.2])])
def test_what_torch_refuses_at_the_beginning_is_refused(lr: Tensor) -> None:
    with pytest.raises(ValueError, match=r"Invalid learning rate|1-element"):
        ScoreSGD(network(), lr=lr)


@pytest.mark.parametrize("loads", [False, True])
def test_what_a_captured_step_reads_stays_where_it_is(loads: bool) -> None:
    model = network(**TRAINED)
    own = ScoreSGD(model, lr=0.1, momentum=0.9)
    own.param_groups[1]["fused"] = True
    one, other, third = batches(3)
    fused_step(model, own, one)
    saved, scores = copy.deepcopy(own.state_dict()), copy.deepcopy(model.state_dict())
    saved["param_groups"][1]["fused"] = None
    fused_step(model, own, other)
    held = [slots["momentum_buffer"] for slots in own.state.values()]
    if loads:
        model.load_state_dict(scores)
        own.load_state_dict(saved)
        assert all(one is slots["momentum_buffer"] for one, slots in zip(held, own.state.values(), strict=True))
        assert own.param_groups[1]["fused"] is True
        for momentum, slots in zip(held, saved["state"].values(), strict=True):
            assert torch.equal(momentum, slots["momentum_buffer"])
        fused_step(model, own, other)  # again, from there
    fused_step(model, own, third)
    expected, plain = network(**TRAINED), [one, other, third]
    stepping = ScoreSGD(expected, lr=0.1, momentum=0.9)
    for batch in plain:
        fused_step(expected, stepping, batch)
    assert equal(model, expected)
