"""The learning rate of score_step: a tensor read where the step runs, or a float of which one is made."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.launch import launcher, start
from supermask.kernels.base.theta import Theta
from supermask.kernels.score_step.op import NO_BRACKET, score_step
from tests.devices import On, home
from tests.kernels.cases import theta_of
from tests.kernels.paths import PATHS, guarded, path, same
from tests.kernels.score_step.steps import COLS, ROWS, SIZES, Rule, arguments, spread

RATES = (0.1, 3e-5, 0.0, 1 / 3, 1e-40, 0.5 + 2**-30)  # all but 0 are rounded to float32
RULES = (
    Rule(),
    Rule(momentum=0.9, weight_decay=1e-3),
    Rule(momentum=0.9, weight_decay=0.1, nesterov=True, absolute=False),
)


def stepped(rates: list[float | Tensor], rule: Rule, name: str) -> list[Tensor]:
    """Scores, momentum and thresholds after a step at each of `rates`."""
    with path(name) as on:
        scores, momentum = on((spread(), torch.full(SIZES, -0.0)))
    found: list[Tensor] = []
    brackets = on(torch.tensor([NO_BRACKET], dtype=torch.int32))
    for step, lr in enumerate(rates):
        momenta = [momentum if rule.momentum else None]
        with path(name), guarded():
            given: dict[str, Any] = {"momenta": momenta, "brackets": brackets, "lr": on(lr)}
            threshold = arguments(scores, on(spread(step)), rule=rule, **given)()
        found += home([scores.clone(), momentum.clone(), *threshold])
    return found


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("form", "rule"), [*zip(["[]", "[1]", "parameter", "view"], (*RULES, RULES[1]), strict=True)])
def test_a_tensor_is_its_float_to_the_bit(form: str, rule: Rule, name: str) -> None:
    def tensor(rate: float) -> Tensor:
        if form == "view":
            return torch.tensor([9.0, rate, 9.0])[1]
        made = torch.tensor(rate if form == "[]" else [rate])
        return made if form != "parameter" else torch.nn.Parameter(made)

    found, expected = stepped([tensor(rate) for rate in RATES], rule, name), stepped(list(RATES), rule, name)
    assert all(map(same, found, expected))
    assert not torch.equal(found[-4], spread())


@pytest.mark.parametrize("name", PATHS)
def test_a_rate_changed_in_place_is_that_of_the_next_step(name: str) -> None:
    with path(name) as on:
        lr, scores, expected = on((torch.zeros(()), spread(), spread()))
    for step, rate in enumerate(RATES):
        lr.fill_(rate)
        for stepped_scores, given in ((scores, lr), (expected, rate)):
            with path(name):
                arguments(stepped_scores, on(spread(step)), lr=given)()
        assert same(home(scores), home(expected))
        assert float(lr) == float(torch.tensor(rate))


def test_the_kernel_is_given_the_tensor_itself(on_triton: On) -> None:
    lr, scores, grad = on_triton((torch.tensor(0.1), spread(), spread()))
    addresses = []

    def spy(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        if kernel.__name__ == "_score_step_kernel":
            addresses.append([arg.data_ptr() for arg in args if isinstance(arg, Tensor)])
        start(kernel, grid, args, meta)

    with launcher(spy):
        arguments(scores, grad, lr=lr)()
    assert [lr.data_ptr() in each for each in addresses] == [True]


def on_a_gpu(lr: Any) -> Any:
    """A call for a GPU that is not there, whose tensors have no values to look at."""
    cuda: dict[str, Any] = {"device": "cuda"}
    scores, kept = torch.ones(SIZES, **cuda), torch.ones(1, dtype=torch.int64, **cuda)
    brackets, theta = torch.zeros(1, 2, dtype=torch.int32, **cuda), Theta(1, 0, 0, torch.ones(1, **cuda))
    return score_step([scores], [scores + 1], [None], [None], [theta], kept, brackets, lr=lr)


def test_the_host_does_not_look_at_a_tensor() -> None:
    with FakeTensorMode():
        for lr in (torch.ones((), device="cuda"), torch.ones(1, device="cuda"), 0.1):
            tau, last_tied = on_a_gpu(lr)
            assert tau.device.type == last_tied.device.type == "cuda"


@pytest.mark.parametrize("name", PATHS)
def test_compiled_it_is_read_at_every_call(name: str) -> None:
    with path(name) as on:
        theta, kept, grad = on((theta_of(ROWS, COLS, "signs"), torch.tensor([100]), spread(1)))

    def step(scores: Tensor, grad: Tensor, brackets: Tensor, lr: float | Tensor) -> Tensor:
        tau, last_tied = score_step([scores], [grad], [None], [None], [theta], kept, brackets, lr=lr)
        return tau + last_tied

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    lr, brackets = on((torch.zeros(()), torch.tensor([NO_BRACKET], dtype=torch.int32)))
    scores, expected = on((spread(), spread()))
    with path(name):
        compiled(*on((spread(), spread())), brackets.clone(), lr)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for rate in RATES:
                found = compiled(scores, grad, brackets.clone(), lr.fill_(rate))
                assert torch.equal(found, step(expected, grad, brackets.clone(), rate))
                assert same(home(scores), home(expected))


@pytest.mark.parametrize(
    ("lr", "error", "said"),
    [
        (torch.tensor(0.1, dtype=torch.float64), TypeError, r"lr is torch.float64: expected torch.float32"),
        (torch.tensor(1), TypeError, r"lr is torch.int64: expected torch.float32"),
        (torch.ones(2), ValueError, r"lr has shape \(2,\).*expected contiguous \(1,\) on cpu"),
        (torch.ones(0), ValueError, r"lr has shape \(0,\).*expected contiguous \(1,\) on cpu"),
        (torch.ones(1, 1), ValueError, r"lr has shape \(1, 1\).*expected contiguous \(1,\) on cpu"),
        (torch.ones((), device="meta"), ValueError, r"lr has shape \(\).*on meta.*on cpu"),
    ],
)
def test_what_is_no_rate_is_refused_before_anything_changes(lr: Tensor, error: type[Exception], said: str) -> None:
    scores = spread()
    with pytest.raises(error, match=said):
        arguments(scores, spread(1), lr=lr)()
    assert torch.equal(scores, spread())


def test_a_rate_on_the_host_is_refused_for_a_gpu() -> None:
    with FakeTensorMode(), pytest.raises(ValueError, match=r"lr has shape \(\).*on cpu.*on cuda"):
        on_a_gpu(torch.ones(()))
