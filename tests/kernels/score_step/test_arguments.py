"""What score_step is given, and cannot take, is named; counts that a GPU cannot look at do no harm."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.theta import Theta
from supermask.kernels.select.op import select
from tests.devices import home
from tests.kernels.cases import theta_of
from tests.kernels.paths import path
from tests.kernels.score_step.steps import EDGES, arguments, spread, steered, steps_of

ROWS, COLS = SIZES = 3, 128


@pytest.mark.parametrize("kept", [-5, 0, EDGES + 1, 10**6])
def test_unchecked_counts_stay_inside_the_layer(kept: int) -> None:
    """A GPU does not look at `kept`; what is out of range must still give what the select gives."""
    layer, rule, grads = steered([spread()] * 3, absolute=True, kept=kept)
    with path("triton") as on:
        expected = home(select(on([spread()]), on(torch.tensor([kept])), [None]))
    for _, tau, last_tied, _ in steps_of([layer], rule, grads, "triton"):
        assert torch.equal(tau, expected[0])
        assert torch.equal(last_tied, expected[1])


@pytest.mark.parametrize("name", ["torch", "native"])
def test_a_count_out_of_range_is_named_before_anything_changes(name: str) -> None:
    layer, rule, grads = steered([spread(), spread() + 1], absolute=True, kept=EDGES + 1)
    before = layer.scores.clone()
    with path(name), pytest.raises(ValueError, match=rf"layer 0: kept is {EDGES + 1}.*1 to {EDGES}"):
        arguments(layer.scores, grads[0][0], kept=torch.tensor([EDGES + 1]), rule=rule)()
    assert torch.equal(layer.scores, before)


def test_columns_beyond_32_bits_are_refused() -> None:
    with FakeTensorMode():
        scores = torch.ones(1, 2**31)
        changes: dict[str, Any] = {
            "kept": torch.ones(1, dtype=torch.int64),
            "brackets": torch.ones(1, 2, dtype=torch.int32),
        }
        with pytest.raises(ValueError, match=r"layer 0: 2147483648 columns"):
            arguments(scores, scores, thetas=[Theta(0, 0, 0, torch.ones(1))], **changes)()


ONES = torch.ones(SIZES)


@pytest.mark.parametrize(
    ("scores", "grad", "changes", "error", "said"),
    [
        (ONES.double(), ONES, {}, TypeError, r"layer 0.*float64.*float32"),
        (ONES.t(), ONES.t(), {}, ValueError, r"layer 0.*\(1, 128\).*contiguous"),
        (ONES, ONES.double(), {}, TypeError, r"layer 0: the gradient is torch.float64"),
        (ONES, ONES.view(128, 3), {}, ValueError, r"layer 0: the gradient has shape \(128, 3\).*\(3, 128\)"),
        (ONES, ONES.view(128, 3).t(), {}, ValueError, r"layer 0: the gradient.*strides \(1, 3\).*contiguous"),
        (ONES, ONES.to("meta"), {}, ValueError, r"layer 0: the gradient.*meta.*cpu"),
        (ONES, ONES, {"momentum": 0.9}, ValueError, r"layer 0: momentum is 0.9 and its buffer None"),
        (ONES, ONES, {"momenta": [ONES]}, ValueError, r"layer 0: momentum is 0.0 and its buffer given"),
        (ONES, ONES, {"momentum": 0.9, "momenta": [ONES.half()]}, TypeError, r"layer 0: the momentum is torch.float16"),
        (ONES, ONES, {"momenta": []}, ValueError, r"1 layers of scores.*'momenta': 0"),
        (ONES, ONES, {"kept": torch.tensor([1, 2])}, ValueError, r"1 layers of scores.*'kept': 2"),
        (ONES, ONES, {"kept": torch.tensor([1.0])}, TypeError, r"kept is torch.float32.*int64"),
        (ONES, ONES, {"brackets": torch.zeros(1, 2)}, TypeError, r"brackets is torch.float32.*int32"),
        (ONES, ONES, {"brackets": torch.zeros(2, 2).int()}, ValueError, r"brackets has shape \(2, 2\).*\(1, 2\)"),
        (ONES, ONES, {"survivors": [torch.zeros(ROWS, 8).int()]}, ValueError, r"layer 0: survivors.*\(3, 8\)"),
        (ONES, ONES, {"thetas": [theta_of(ROWS, 129, "base")]}, ValueError, r"theta.base.*\(3, 129\)"),
        (
            ONES,
            ONES,
            {"thetas": [theta_of(ROWS, 4, "seed")._replace(real=("normal", 1.0))]},
            ValueError,
            r"normal.*base",
        ),
        (ONES, ONES, {"thetas": [Theta(0, 0, 0, torch.ones(2))]}, ValueError, r"theta.constant has shape \(2,\)"),
        (ONES, ONES, {"lr": -0.1}, ValueError, r"'lr': -0.1.*below 0"),
        (ONES, ONES, {"weight_decay": -1.0}, ValueError, r"'weight_decay': -1.0.*below 0"),
        (ONES, ONES, {"nesterov": True}, ValueError, r"nesterov True.*momentum"),
    ],
)
def test_bad_input_is_named(
    scores: Tensor, grad: Tensor, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        arguments(scores, grad, **changes)()
