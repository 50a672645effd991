"""subnet equals three lines of PyTorch to the bit on every path, and its gradient is the straight-through one."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from supermask.kernels.base.keys import NAN_KEY, REMOVED_KEY, Threshold
from supermask.kernels.base.theta import Theta
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet
from tests.devices import CPU, On
from tests.kernels.cases import DTYPES, SOURCES, Case, cases, plain_case, theta_of
from tests.kernels.paths import (
    PATHS,
    SPECIAL,
    every_path,
    guarded,
    pack_plain,
    path,
    random_mask,
    random_reals,
    random_words,
    same,
    sizes,
    unpack_plain,
)
from tests.kernels.shares import shared_out


def every_form(call: Callable[[On], Any]) -> tuple[Any, ...]:
    """What `call` returns on every path, and from the plain statement that a compiler is shown on CPU."""
    # Private: where torch.compiler.is_compiling, which it asks, is patched itself, dynamo goes on believing the patch.
    with mock.patch("supermask.kernels.subnet.op._visible", return_value=True), guarded():
        traced = call(On(CPU))
    return *every_path(call), traced


@shared_out(DTYPES, 100, case=cases())
def test_weights_and_mask_are_the_plain_statement(case: Case, dtype: torch.dtype) -> None:
    case = replace(case, dtype=dtype)
    chosen = case.chosen_plain()
    weight = torch.where(chosen, case.theta_plain(), 0.0).to(case.dtype).view(case.scores.shape)
    mask = pack_plain(chosen)

    def run(on: On) -> tuple[Tensor, Tensor, Tensor | None]:
        ever = on(case.ever)
        return *on(case).run(ever=ever), ever

    for found, packed, ever in every_form(run):
        assert same(found, weight)
        assert same(packed, mask)
        if case.ever is not None:
            assert same(ever, case.ever | mask)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@shared_out(DTYPES, 100, case=cases(), data=st.integers(0, 2**31), special=st.sampled_from([0.0, 0.3]))
def test_gradient_is_straight_through(case: Case, data: int, special: float, dtype: torch.dtype) -> None:
    case = replace(case, dtype=dtype)
    grad_weight = random_reals(tuple(case.scores.shape), data, special).to(case.dtype)
    grad = grad_weight.float().view(case.rows, case.cols) * case.theta_plain()
    if case.absolute:
        grad = grad * torch.where(case.scores < 0, -1.0, 1.0).view(case.rows, case.cols)
    expected = torch.where(case.alive_plain(), grad, 0.0).view(case.scores.shape)

    def run(on: On) -> Tensor:
        scores = on(case.scores).requires_grad_()
        weight, mask = on(case).run(scores)
        assert not mask.requires_grad
        weight.backward(on(grad_weight))
        return scores.grad

    for found in every_form(run):
        assert same(found, expected)


@settings(max_examples=15)
@given(
    rows=sizes([1, 31, 33], [300]),
    cols=sizes([31, 128, 129], [640]),
    absolute=st.booleans(),
    data=st.integers(0, 2**31),
    rate=st.floats(0.01, 1),
    pruned=st.booleans(),
)
def test_exactly_the_kept_are_selected(
    *, rows: int, cols: int, absolute: bool, data: int, rate: float, pruned: bool
) -> None:
    """With the threshold that select finds, ties and NaN and all."""
    scores = random_reals((rows, cols), data, special=0.5)
    survivors = pack_plain(random_mask(rows, cols, 0.6, data)) if pruned else None
    available = rows * cols if survivors is None else int(unpack_plain(survivors, cols).sum())
    kept = max(1, round(rate * available))
    threshold = select([scores], torch.tensor([kept]), [survivors], absolute)
    theta = theta_of(rows, cols, "seed")
    given = scores, threshold, theta
    for weight, mask in every_form(lambda on: subnet(*on(given), survivors=on(survivors), absolute=absolute)):
        assert int(unpack_plain(mask, cols).sum()) == min(kept, available)
        assert int((weight != 0).sum()) == min(kept, available)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("tied", range(len(SPECIAL)), ids=[str(value) for value in SPECIAL])
def test_a_threshold_at_each_special_value_cuts_its_ties(tied: int, absolute: bool) -> None:
    """Half of the edges that rank as it does, +0.0 and -0.0 alike, and all NaN, are selected."""
    scores = torch.tensor(SPECIAL).repeat(4).view(2, -1)
    theta = theta_of(2, scores.shape[1], "signs")
    case = plain_case(
        scores=scores, tied=tied, last=2 * len(SPECIAL) - 1, theta=theta, survivors=None, absolute=absolute
    )
    chosen = case.chosen_plain()
    assert chosen[0, tied] != chosen[1, tied]
    for _, mask in every_form(lambda on: on(case).run()):
        assert same(mask, pack_plain(chosen))


@pytest.mark.parametrize("tau", [NAN_KEY, REMOVED_KEY])
def test_a_threshold_below_every_number_selects_every_survivor(tau: int) -> None:
    """What select gives where there are fewer survivors than kept; NaN survivors too."""
    case = plain_case(scores=random_reals((5, 131), 1, special=0.5))
    threshold = Threshold(torch.tensor([tau], dtype=torch.int32), torch.tensor([5 * 131 - 1]))
    given = case.scores, threshold, case.theta
    for _, mask in every_form(lambda on: subnet(*on(given), survivors=on(case.survivors))):
        assert same(mask, case.survivors)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("last", [1 << 40, -(1 << 40)])
def test_a_last_tied_edge_far_from_the_layer(last: int, absolute: bool) -> None:
    """All ties are selected, or none: what kernels count in 32 bits is clamped."""
    case = plain_case(scores=torch.full((5, 131), 0.5), last=last, absolute=absolute)
    for weight, mask in every_path(lambda on: on(case).run()):
        chosen = case.chosen_plain()
        assert torch.equal(unpack_plain(mask, 131), chosen)
        assert torch.equal(weight, torch.where(chosen, case.theta_plain(), 0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_unselected_edges_weigh_plus_zero(source: str, dtype: torch.dtype) -> None:
    case = plain_case(33, 129, theta=theta_of(33, 129, source), dtype=dtype)
    unselected = ~case.chosen_plain()
    assert (case.theta_plain()[unselected] < 0).any(), "the case has no minus to drop"
    for weight, _ in every_form(lambda on: on(case).run()):
        assert not weight[unselected].any()
        assert not weight[unselected].signbit().any()


def test_ever_gathers_the_masks_of_all_calls() -> None:
    every = [plain_case(absolute=absolute, tied=tied, last=tied) for absolute in (True, False) for tied in (0, 77, 400)]
    selected = torch.stack([case.chosen_plain() for case in every]).any(0)
    assert not selected.all(), "the case has nothing to leave out"

    def run(on: On) -> Tensor:
        ever = on(torch.zeros(5, 8, dtype=torch.int32))
        for case in every:
            on(case).run(ever=ever)
        return ever

    for ever in every_form(run):
        assert same(ever, pack_plain(selected))


@pytest.mark.parametrize("absolute", [True, False])
def test_a_score_of_zero_moves_with_sign_plus_one(absolute: bool) -> None:
    scores = torch.tensor([[0.0, -0.0, math.nan, 1e-45, -1e-45, -math.inf]])
    signs = torch.zeros(1, 4, dtype=torch.int32)
    case = plain_case(1, 6, scores=scores, tied=0, survivors=None, absolute=absolute)
    case = replace(case, theta=case.theta._replace(signs=signs, constant=torch.tensor([2.0])))
    expected = torch.tensor([[2.0, 2.0, 2.0, 2.0, -2.0, -2.0]]) if absolute else torch.full((1, 6), 2.0)

    def run(on: On) -> Tensor:
        moved = on(scores).requires_grad_()
        on(case).run(moved)[0].sum().backward()
        return moved.grad

    for grad in every_form(run):
        assert same(grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_removed_edges_get_zero_gradient_whatever_comes_in(value: float, dtype: torch.dtype) -> None:
    case = plain_case(dtype=dtype)
    removed = ~case.alive_plain()
    grad_weight = torch.full((5, 131), value, dtype=dtype)
    given = grad_weight, case.scores, *case.ops_args()
    for grad in every_form(lambda on: torch.ops.supermask.subnet_backward(*on(given))):
        assert removed.any()
        assert same(grad[removed], torch.zeros(int(removed.sum())))
        assert not grad[~removed].isfinite().any()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("absolute", [True, False])
def test_backward_is_the_derivative_of_the_surrogate(absolute: bool, source: str) -> None:
    """In float64, of w = theta0 * abs(s) or theta0 * s: gradcheck proves the derivative, and the op has its bits."""
    rows, cols = 3, 37
    case = plain_case(rows, cols, theta=theta_of(rows, cols, source), absolute=absolute, survivors=None)
    theta = case.theta_plain().double()
    generator = torch.Generator().manual_seed(9)
    scores = torch.randn(rows, cols, dtype=torch.float64, generator=generator)
    scores = torch.where(scores.abs() < 0.01, 0.5, scores).requires_grad_()
    grad_weight = torch.randn(rows, cols, dtype=torch.float64, generator=generator)

    def surrogate(scores: Tensor) -> Tensor:
        return theta * (scores.abs() if absolute else scores)

    assert torch.autograd.gradcheck(surrogate, scores)
    (expected,) = torch.autograd.grad(surrogate(scores), scores, grad_weight)
    assert expected.abs().min() > 0
    with path("torch"):
        found = torch.ops.supermask.subnet_backward(grad_weight, scores.detach(), *case.ops_args())
    assert same(found, expected)


def test_gradient_of_a_strided_tensor() -> None:
    case = plain_case(33, 65)
    grad_weight = random_reals((65, 33), 4).t()
    given = grad_weight, case.scores, *case.ops_args()
    results = every_form(lambda on: torch.ops.supermask.subnet_backward(*on(given)))
    expected = torch.ops.supermask.subnet_backward(grad_weight.contiguous(), case.scores, *case.ops_args())
    for found in results:
        assert same(found, expected)


def test_only_the_scores_have_a_gradient(on: On) -> None:
    case = on(plain_case())
    constant = case.theta.constant.clone().requires_grad_()
    scores = case.scores.clone().requires_grad_()
    weight, _ = replace(case, theta=case.theta._replace(constant=constant)).run(scores)
    weight.sum().backward()
    assert scores.grad is not None
    assert constant.grad is None


def tracked(case: Case) -> Callable[..., tuple[Tensor, Tensor]]:
    """subnet of one case as a function of its tensors, as a training step would call it."""

    def call(scores: Tensor, tau: Tensor, last_tied: Tensor, ever: Tensor) -> tuple[Tensor, Tensor]:
        return subnet(
            scores * 1,
            Threshold(tau, last_tied),
            case.theta,
            survivors=case.survivors,
            absolute=case.absolute,
            dtype=case.dtype,
            ever=ever,
        )

    return call


def forward_and_backward(call: Callable[..., tuple[Tensor, Tensor]], case: Case) -> tuple[Tensor, ...]:
    scores = case.scores.clone().requires_grad_()
    ever = random_words(case.rows, case.cols, 8).to(scores.device)
    weight, mask = call(scores, *case.threshold, ever)
    weight.backward(random_reals(tuple(case.scores.shape), 9).to(weight))
    return weight, mask, ever, scores.grad


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("source", SOURCES)
def test_compiled_equals_eager(source: str, absolute: bool, on: On) -> None:
    dtype = torch.float32 if absolute else torch.bfloat16
    case = on(plain_case(theta=theta_of(5, 131, source), absolute=absolute, dtype=dtype))
    expected = forward_and_backward(tracked(case), case)
    compiled = torch.compile(tracked(case), fullgraph=True, backend="aot_eager")
    for found, wanted in zip(forward_and_backward(compiled, case), expected, strict=True):
        assert same(found, wanted)


@pytest.mark.slow
def test_inductor_equals_eager(on: On) -> None:
    case = on(plain_case(67, 257, scores=random_reals((67, 257), 1, special=0.2), theta=theta_of(67, 257, "signs")))
    expected = forward_and_backward(tracked(case), case)
    compiled = torch.compile(tracked(case), fullgraph=True)
    for found, wanted in zip(forward_and_backward(compiled, case), expected, strict=True):
        assert same(found, wanted)


CHECKED = [
    plain_case(theta=theta_of(5, 131, "seed"), dtype=torch.bfloat16, ever=torch.zeros(5, 8, dtype=torch.int32)),
    plain_case(theta=theta_of(5, 131, "signs"), survivors=None, absolute=False),
    plain_case(scores=random_reals((5, 131, 1), 1), theta=theta_of(5, 131, "base"), dtype=torch.float64),
]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("case", CHECKED, ids=["seed", "signs", "base"])
def test_opcheck(case: Case, name: str) -> None:
    forward = (case.scores, *case.threshold, *case.ops_args(), case.dtype, case.ever)
    backward = (torch.ones_like(case.scores, dtype=case.dtype), case.scores, *case.ops_args())
    with path(name) as on:
        torch.library.opcheck(torch.ops.supermask.subnet, on(forward))
        torch.library.opcheck(torch.ops.supermask.subnet_backward, on(backward))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_traces_for_a_gpu(source: str, dtype: torch.dtype) -> None:
    shape, rows, cols = (6, 5, 3, 3), 6, 45
    with FakeTensorMode():
        words = torch.ones(rows, 4, dtype=torch.int32, device="cuda")
        theta = Theta(
            seed=1,
            layer=0,
            generation=0,
            constant=torch.ones(1, device="cuda"),
            signs=words if source == "signs" else None,
            base=torch.ones(rows, cols, device="cuda") if source == "base" else None,
        )
        scores = torch.ones(shape, device="cuda", requires_grad=True)
        tau = torch.ones(1, dtype=torch.int32, device="cuda")
        last_tied = torch.ones(1, dtype=torch.int64, device="cuda")
        weight, mask = subnet(scores, Threshold(tau, last_tied), theta, survivors=words, dtype=dtype, ever=words)
        # The engine would ask the driver for the device; its node does not.
        grad = weight.grad_fn.apply(torch.ones_like(weight), None)[0]
        op = torch.ops.supermask.subnet_backward(weight, scores.detach(), words, *theta.schema(), True)
    assert (tuple(weight.shape), weight.dtype, weight.device.type) == (shape, dtype, "cuda")
    assert (tuple(mask.shape), mask.dtype, mask.device.type) == ((rows, 4), torch.int32, "cuda")
    assert not mask.requires_grad
    for gradient in (grad, op):
        assert (tuple(gradient.shape), gradient.dtype, gradient.device.type) == (shape, torch.float32, "cuda")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32], ids=str)
def test_scores_of_another_dtype_are_refused(dtype: torch.dtype) -> None:
    case = plain_case()
    with pytest.raises(TypeError, match=f"scores are {dtype}: .*float32"):
        case.run(case.scores.to(dtype))


def test_strided_scores_are_refused() -> None:
    case = plain_case(5, 131)
    with pytest.raises(ValueError, match=r"scores of shape \(5, 131\) have strides \(1, 5\)"):
        case.run(random_reals((131, 5), 1).t())


@pytest.mark.parametrize("words", [(5, 4), (5, 12), (4, 8), (6, 8), (1, 8), (40,)], ids=str)
@pytest.mark.parametrize("argument", ["survivors", "ever", "theta.signs"])
def test_packed_bits_of_another_layer_are_refused(argument: str, words: tuple[int, ...]) -> None:
    case = plain_case(5, 131)
    bits = torch.zeros(words, dtype=torch.int32)
    with pytest.raises(ValueError, match=rf"{argument} .*{words[0]}"):
        run_with(case, argument, bits)


@pytest.mark.parametrize("argument", ["survivors", "ever", "theta.signs"])
def test_packed_bits_of_another_dtype_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} is torch.int64"):
        run_with(plain_case(5, 131), argument, torch.zeros(5, 8, dtype=torch.int64))


@pytest.mark.parametrize("argument", ["survivors", "ever", "theta.signs"])
def test_strided_packed_bits_are_refused(argument: str) -> None:
    """A kernel would read them as if they were contiguous."""
    with pytest.raises(ValueError, match=rf"{argument} .*strides \(1, 5\)"):
        run_with(plain_case(5, 131), argument, random_words(8, 5, 3)[:, :1].repeat(1, 5).t())


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (torch.zeros(5, 130), r"\(5, 130\)"),
        (torch.zeros(4, 131), r"\(4, 131\)"),
        (torch.zeros(1, 131), r"\(1, 131\)"),
        (torch.zeros(131), r"\(131,\)"),
        (torch.zeros(131, 5).t(), r"strides \(1, 5\)"),
        (torch.zeros(5, 131, dtype=torch.float64), "torch.float64"),
        (torch.zeros(5, 131, dtype=torch.bfloat16), "torch.bfloat16"),
    ],
    ids=lambda value: f"{value.dtype} {tuple(value.shape)} {value.stride()}" if isinstance(value, Tensor) else "",
)
def test_a_base_of_another_layer_is_refused(base: Tensor, said: str) -> None:
    case = plain_case(5, 131)
    with pytest.raises((TypeError, ValueError), match=rf"theta\.base .*{said}"):
        replace(case, theta=case.theta._replace(base=base)).run()


def run_with(case: Case, argument: str, bits: Tensor) -> tuple[Tensor, Tensor]:
    if argument == "ever":
        return case.run(ever=bits)
    if argument == "survivors":
        return replace(case, survivors=bits).run()
    return replace(case, theta=case.theta._replace(signs=bits)).run()
