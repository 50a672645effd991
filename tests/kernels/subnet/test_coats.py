"""Weights of several coats: how many select an edge, times theta0, in one rounding, on every path, to the bit."""

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

from supermask.kernels.base.keys import Threshold, score_keys
from supermask.kernels.base.theta import Theta
from supermask.kernels.packed_weight import packed_weight
from supermask.kernels.score_step import score_step
from supermask.kernels.score_step.op import NO_BRACKET
from supermask.kernels.select.op import select
from supermask.kernels.subnet.op import subnet
from tests.capabilities import kernels_fuse
from tests.devices import CPU, On, home
from tests.kernels.cases import DTYPES, SOURCES, Case, cases, plain_case, theta_of
from tests.kernels.paths import (
    PATHS,
    every_path,
    guarded,
    pack_plain,
    path,
    random_mask,
    random_reals,
    same,
    sizes,
    unpack_plain,
)

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


def every_form(call: Callable[[On], Any]) -> tuple[Any, ...]:
    """What `call` returns on every path, and from the plain statement that a compiler is shown on CPU."""
    with mock.patch("supermask.kernels.subnet.op._visible", return_value=True), guarded():
        traced = call(On(CPU))
    return *every_path(call), traced


def nested(case: Case, places: list[tuple[int, int]]) -> list[Case]:
    """The case with a threshold a coat, each at an edge (as a place in the layer) with a last tied one, the widest
    first."""
    keys = score_keys(case.scores, case.absolute).flatten().tolist()
    tied = [(place % len(keys), last % (len(keys) + 1) - 1) for place, last in places]
    return [replace(case, tied=edge, last=last) for edge, last in sorted(tied, key=lambda at: (keys[at[0]], -at[1]))]


def threshold_of(coats: list[Case]) -> Threshold:
    return Threshold(*(torch.cat(each) for each in zip(*(coat.threshold for coat in coats), strict=True)))


def run(case: Case, threshold: Threshold, **changes: Any) -> tuple[Tensor, Tensor]:
    given = {"survivors": case.survivors, "absolute": case.absolute, "dtype": case.dtype} | changes
    return subnet(given.pop("scores", case.scores), threshold, case.theta, **given)


PLACES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=2, max_size=5)


@settings(max_examples=50)
@given(case=cases(), places=PLACES)
def test_weights_count_the_coats(case: Case, places: list[tuple[int, int]]) -> None:
    coats = nested(case, places)
    chosen = torch.stack([coat.chosen_plain() for coat in coats])
    assert not (chosen[1:] & ~chosen[:-1]).any()
    count = chosen.sum(0)
    weight = torch.where(count > 0, case.theta_plain() * count, 0.0).to(case.dtype).view(case.scores.shape)
    mask = torch.stack([pack_plain(coat) for coat in chosen])

    def call(on: On) -> tuple[Tensor, ...]:
        ever = on(case.ever)
        found, packed = run(on(case), on(threshold_of(coats)), ever=ever)
        return found, packed, packed_weight(packed, case.scores.shape, on(case.theta), case.dtype), ever

    for found, packed, again, ever in every_form(call):
        assert same(packed, mask)
        assert same(found, weight)
        assert same(again, weight)
        if case.ever is not None:
            assert same(ever, case.ever | mask[0])


@settings(max_examples=10)
@given(case=cases(), place=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), coats=st.integers(2, 64))
def test_a_threshold_given_as_every_coat_gives_that_mask_in_each(
    case: Case, place: tuple[int, int], coats: int
) -> None:
    (one,) = nested(case, [place])
    threshold = Threshold(*(each.repeat(coats) for each in one.threshold))
    expected = pack_plain(one.chosen_plain()).expand(coats, -1, -1)
    for _, mask in every_form(lambda on: run(*on((case, threshold)))):
        assert same(mask, expected)


@settings(max_examples=20)
@given(
    rows=sizes([1, 31, 33], [300]),
    cols=sizes([31, 128, 129], [640]),
    absolute=st.booleans(),
    data=st.integers(0, 2**31),
    rates=st.lists(st.floats(0.01, 1), min_size=2, max_size=5),
    pruned=st.booleans(),
)
def test_exactly_the_kept_of_each_coat_are_selected(
    *, rows: int, cols: int, absolute: bool, data: int, rates: list[float], pruned: bool
) -> None:
    """With the thresholds that select finds, and m is on average the sum of the rates."""
    scores = random_reals((rows, cols), data, special=0.5)
    survivors = pack_plain(random_mask(rows, cols, 0.6, data)) if pruned else None
    available = rows * cols if survivors is None else int(unpack_plain(survivors, cols).sum())
    kept = sorted((max(1, round(rate * available)) for rate in rates), reverse=True)
    theta = theta_of(rows, cols, "seed", constant=1.0)

    found = select([scores], torch.tensor([kept]), [survivors], absolute)
    given = scores, Threshold(*(each[0] for each in found)), theta
    for weight, mask in every_form(lambda on: subnet(*on(given), survivors=on(survivors), absolute=absolute)):
        assert [int(unpack_plain(coat, cols).sum()) for coat in mask] == [min(count, available) for count in kept]
        assert int(weight.abs().sum()) == sum(min(count, available) for count in kept)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_unselected_edges_weigh_plus_zero(source: str, dtype: torch.dtype) -> None:
    case = plain_case(33, 129, theta=theta_of(33, 129, source), dtype=dtype)
    coats = nested(case, [(7, 8), (900, 4000), (44, 20)])
    unselected = ~coats[0].chosen_plain()
    assert (case.theta_plain()[unselected] < 0).any(), "the case has no minus to drop"
    for weight, _ in every_form(lambda on: run(*on((case, threshold_of(coats))))):
        assert not weight[unselected].any()
        assert not weight[unselected].signbit().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_products_round_once_to_the_nearest_and_ties_to_even(dtype: torch.dtype) -> None:
    """Halfway and next to it, where what stays is even and odd, at the ends of binades and of what each dtype has."""
    ends = [0x3F7F0000, 0x3F800000, 0x3FFF0000, 0x387F0000, 0x33000000, 0x007F0000, 0, 0x477F0000, 0x7EFF0000]
    cut = torch.arange(0, 1 << 16, 1 << 12)[:, None] + torch.tensor([0, 1, (1 << 12) - 1])
    bits = (torch.tensor(ends)[:, None] + cut.flatten()).int().flatten()
    base = torch.cat([bits.view(torch.float32), -bits.view(torch.float32), torch.tensor([torch.nan, torch.inf])])
    case = plain_case(1, len(base), scores=torch.ones(1, len(base)), survivors=None, dtype=dtype)
    case = replace(case, theta=case.theta._replace(base=base[None]))
    for coats in (2, 3):
        every = Threshold(torch.zeros(coats, dtype=torch.int32), torch.full((coats,), len(base) - 1))
        for weight, _ in every_form(lambda on, every=every: run(*on((case, every)))):
            assert same(weight, (base * coats).to(dtype)[None])


@settings(max_examples=30)
@given(case=cases(), places=PLACES, data=st.integers(0, 2**31), special=st.sampled_from([0.0, 0.3]))
def test_gradient_sums_the_coats(case: Case, places: list[tuple[int, int]], data: int, special: float) -> None:
    """dL/ds = N * dL/dw * theta0 * sign(s), of every edge, in or out of the coats."""
    coats = len(places)
    grad_weight = random_reals(tuple(case.scores.shape), data, special).to(case.dtype)
    grad = grad_weight.float().view(case.rows, case.cols) * (case.theta_plain() * coats)
    if case.absolute:
        grad = grad * torch.where(case.scores < 0, -1.0, 1.0).view(case.rows, case.cols)
    expected = torch.where(case.alive_plain(), grad, 0.0).view(case.scores.shape)
    threshold = threshold_of(nested(case, places))

    def call(on: On) -> Tensor:
        scores = on(case.scores).requires_grad_()
        weight, mask = run(*on((case, threshold)), scores=scores, gradient=on(case.theta).scaled(coats))
        assert not mask.requires_grad
        weight.backward(on(grad_weight))
        return scores.grad

    for found in every_form(call):
        assert same(found, expected)


@pytest.mark.parametrize("real", [("normal", 0.1), ("uniform", 0.3)], ids=lambda real: real[0])
def test_real_draws_scale_in_one_rounding(real: tuple[str, float]) -> None:
    case = plain_case()
    theta = case.theta._replace(real=real)
    drawn = theta.made(5, 131, torch.device("cpu")).base
    scaled = theta.scaled(3)
    assert scaled.real == real
    assert same(scaled.made(5, 131, torch.device("cpu")).base, drawn * 3)
    threshold = threshold_of(nested(case, [(7, 8), (300, 44)]))

    def call(on: On) -> tuple[Tensor, Tensor]:
        scores = on(case.scores).requires_grad_()
        weight, _ = run(*on((replace(case, theta=theta), threshold)), scores=scores, gradient=on(scaled))
        weight.sum().backward()
        return weight.detach(), scores.grad

    expected = torch.where(case.alive_plain(), drawn * 3 * torch.where(case.scores < 0, -1.0, 1.0), 0.0)
    weights = [run(replace(case, theta=theta._replace(real=None, base=drawn)), threshold)[0]]
    for weight, grad in every_form(call):
        assert same(grad, expected)
        assert same(weight, weights[0])


def test_a_gradient_of_its_own_kind() -> None:
    """As a binarised layer has it: forward a constant, backward the real weights it stands for."""
    base = random_reals((5, 131), 3)
    case = plain_case(survivors=None)
    expected = torch.where(case.scores < 0, -base, base)

    def call(on: On) -> tuple[Tensor, Tensor]:
        scores = on(case.scores).requires_grad_()
        gradient = on(case.theta._replace(base=base))
        weight, _ = run(*on((case, case.threshold)), scores=scores, gradient=gradient)
        weight.sum().backward()
        return weight.detach(), scores.grad

    for weight, grad in every_form(call):
        assert same(weight, torch.where(case.chosen_plain(), case.theta_plain(), 0.0))
        assert same(grad, expected)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_step_with_the_same_theta_is_the_same(source: str, name: str) -> None:
    plain = plain_case(theta=theta_of(5, 131, source))
    # By a power of two the product is exact, so that a multiply-add that rounds twice gives the same.
    lr = 0.1 if kernels_fuse() else 0.25
    with path(name) as on, guarded():
        case, incoming = on((plain, random_reals((5, 131), 8)))
        threshold = on(threshold_of(nested(plain, [(7, 8), (300, 44), (100, 500)])))
        gradient = case.theta.scaled(3)
        grads = []
        for straight_through in (True, False):
            scores = on(case.scores).requires_grad_()
            weight, _ = run(case, threshold, scores=scores, gradient=gradient, straight_through=straight_through)
            weight.backward(incoming)
            grads.append(home(scores.grad))
        assert same(grads[1], home(incoming))
        stepped, kept, brackets = on((plain.scores, torch.tensor([200]), torch.tensor([NO_BRACKET]).int()))
        score_step([stepped], [on(grads[1])], [None], [case.survivors], [gradient], kept, brackets, lr=lr)
    assert same(home(stepped), plain.scores.add(grads[0], alpha=-lr))
    assert not torch.equal(home(stepped), plain.scores)


def tracked(case: Case) -> Callable[..., tuple[Tensor, Tensor]]:
    def call(scores: Tensor, tau: Tensor, last_tied: Tensor, ever: Tensor) -> tuple[Tensor, Tensor]:
        return run(case, Threshold(tau, last_tied), scores=scores * 1, ever=ever, gradient=case.theta.scaled(3))

    return call


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", SOURCES)
def test_compiled_equals_eager(source: str, backend: str, on: On) -> None:
    dtype = torch.float32 if source == "seed" else torch.bfloat16
    case = plain_case(theta=theta_of(5, 131, source), dtype=dtype)
    case, coats = on((case, threshold_of(nested(case, [(7, 8), (300, 44), (100, 500)]))))
    found = []
    for call in (tracked(case), torch.compile(tracked(case), fullgraph=True, backend=backend)):
        scores, ever = case.scores.clone().requires_grad_(), on(torch.zeros(5, 8, dtype=torch.int32))
        weight, mask = call(scores, *coats, ever)
        weight.backward(random_reals((5, 131), 9).to(weight))
        found.append((weight, mask, ever, scores.grad))
    for one, other in zip(*found, strict=True):
        assert same(one, other)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("source", SOURCES)
def test_opcheck(source: str, name: str) -> None:
    case = plain_case(theta=theta_of(5, 131, source), dtype=torch.bfloat16, ever=torch.zeros(5, 8, dtype=torch.int32))
    coats = threshold_of(nested(case, [(7, 8), (300, 44), (100, 500)]))
    with path(name) as on:
        arguments = case.scores, *coats, *case.ops_args(), case.dtype, case.ever
        torch.library.opcheck(torch.ops.supermask.subnet, on(arguments))


def test_traces_for_a_gpu() -> None:
    with FakeTensorMode():
        theta = Theta(seed=1, layer=0, generation=0, constant=torch.ones(1, device="cuda"))
        coats = Threshold(*(torch.ones(3, dtype=dtype, device="cuda") for dtype in (torch.int32, torch.int64)))
        weight, mask = subnet(torch.ones(6, 5, 3, 3, device="cuda"), coats, theta, dtype=torch.bfloat16)
    assert (tuple(weight.shape), weight.dtype) == ((6, 5, 3, 3), torch.bfloat16)
    assert (tuple(mask.shape), mask.dtype) == ((3, 6, 4), torch.int32)


@pytest.mark.parametrize(
    ("tau", "last_tied", "error", "said"),
    [
        (torch.ones(2), torch.ones(2, dtype=torch.int64), TypeError, "tau is torch.float32: expected torch.int32"),
        (torch.ones(2).int(), torch.ones(2).int(), TypeError, "last_tied is torch.int32: expected torch.int64"),
        (torch.ones(2).int(), torch.ones(3).long(), ValueError, r"\(2,\), threshold.last_tied \(3,\)"),
        (torch.ones(2, 2).int(), torch.ones(2, 2).long(), ValueError, r"\(2, 2\).*\[coats\]"),
        (torch.ones(0).int(), torch.ones(0).long(), ValueError, r"\(0,\).*\[coats\]"),
        (torch.ones(65).int(), torch.ones(65).long(), ValueError, r"\(65,\).*64 coats"),
    ],
)
def test_other_thresholds_are_refused(tau: Tensor, last_tied: Tensor, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(plain_case(), Threshold(tau, last_tied))


@pytest.mark.parametrize("field", ["signs", "base"])
def test_a_gradient_of_another_layer_is_refused(field: str) -> None:
    case = plain_case()
    other = case.theta._replace(**{field: torch.zeros(5, 130, dtype=torch.int32 if field == "signs" else None)})
    with pytest.raises(ValueError, match=rf"gradient\.{field} .*\(5, 130\)"):
        run(case, case.threshold, gradient=other)
