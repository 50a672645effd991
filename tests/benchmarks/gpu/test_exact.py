"""Comparisons with the CPU: that they pass, interpreted, and that they can fail."""

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import checks, exact
from benchmarks.gpu.errors import check_masked_mm, check_near, within
from benchmarks.gpu.exact import Case
from tests.benchmarks.gpu.wall import CPU, bench

pytestmark = pytest.mark.usefixtures("triton_device")


def _wrong(name: str, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    """`EXACT[name]` gives one wrong bit at one of its calls."""
    right, calls = exact.EXACT[name], list[Case]()

    def wrong(case: Case) -> list[Tensor]:
        found = right(case)
        calls.append(case)
        if len(calls) == when:
            bytes_ = found[-1].contiguous().view(torch.uint8).clone()
            bytes_.view(-1)[-1] ^= 1
            found[-1] = bytes_.view(found[-1].dtype)
        return found

    monkeypatch.setitem(exact.EXACT, name, wrong)


@pytest.mark.parametrize("name", exact.EXACT)
def test_one_wrong_bit_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(device=CPU, rows=2, cols=33)
    assert exact.differing(name, case) == []
    _wrong(name, monkeypatch, 2)
    (said,) = exact.differing(name, case)
    assert said.startswith(f"{name}, result ")
    assert "2 x 33, seed 0: 1 bytes differ from the CPU's, the first of element " in said


def test_a_wrong_bit_at_the_second_of_several_calls_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    _wrong("bits", monkeypatch, 3)
    (said,) = exact.differing("bits", Case(device=CPU, rows=2, cols=33), times=3)
    assert "call 2: 1 bytes differ" in said


def test_all_inputs_are_compared_whatever_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    _wrong("bits", monkeypatch, 2)
    sizes = checks.CheckSizes(inputs=3, shapes=((2, 33), (3, 5)))
    with pytest.raises(RuntimeError, match="1 of 3 inputs differ, 1 results: bits, result 2, 2 x 33, seed 0"):
        checks._exact(bench(), "bits", sizes)


def test_what_there_was_no_time_for_is_left_out() -> None:
    at_hand = bench()
    at_hand.until = 0.0
    sizes = checks.CheckSizes(
        inputs=3, shapes=((2, 33),), layers=((3, 33),), batches=(1, 2), channels=(2,), taps=((1, 1, 1), (3, 1, 2)),
        size=2,
    )  # fmt: skip
    said = {case.name: case.run(at_hand)["left out"] for case in checks.cases(sizes)}
    assert said.pop("masked_mm, 3 x 33, error") == "budget: 1 of 2 numbers of rows checked (--seconds, --match)"
    assert said.pop("masked_conv2d, 2 channels, error") == "budget: 1 of 2 windows checked (--seconds, --match)"
    assert set(said.values()) == {"budget: 1 of 3 inputs checked (--seconds, --match)"}


def test_inputs_are_the_same_everywhere_and_others_for_every_seed() -> None:
    cases = [Case(device=CPU, rows=40, cols=50, seed=seed) for seed in range(6)]
    drawn = [case.reals(40, 50) for case in cases]
    assert all(torch.equal(case.reals(40, 50), one) for case, one in zip(cases, drawn, strict=True))
    assert len({tuple(one[0].tolist()) for one in drawn}) == 6
    assert [len(one.unique()) < 1000 for one in drawn] == [True, False, False] * 2
    hard = cases[1].scores(40, 50)
    assert hard.isnan().any()
    assert hard.isinf().any()
    assert ((hard != 0) & (hard.abs() < 1e-38)).any()
    assert drawn[1].isfinite().all()
    assert (torch.signbit(drawn[1]) & (drawn[1] == 0)).any()


def test_what_nobody_writes_is_poison() -> None:
    with exact.poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty(3, dtype=torch.int32).eq(2**31 - 1).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_normal_numbers_may_be_apart_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(device=CPU, rows=3, cols=130)
    assert exact.normal_ulps(case) <= checks.ULPS
    right, calls = exact.normal, []

    def wrong(*place: int, **settings: object) -> Tensor:
        calls.append(place)
        found = right(*place, **settings)
        return found if len(calls) % 2 else torch.nextafter(found, torch.tensor(torch.inf)) * 1.0001

    monkeypatch.setattr(exact, "normal", wrong)
    with pytest.raises(RuntimeError, match="units in the last place from the CPU's numbers, 2 are allowed"):
        checks._normal(bench(), checks.CheckSizes(inputs=1, shapes=((3, 130),)))


def test_a_product_may_err_twice_as_much_as_pytorch() -> None:
    truth = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    theirs, found = truth.float() + 0.1, truth.float() + 0.19
    assert within("product", found, theirs, truth) == pytest.approx(1.9, rel=1e-5)
    for wrong in (truth.float() + 0.21, torch.full((3,), torch.nan)):
        with pytest.raises(RuntimeError, match="product errs by"):
            within("product", wrong, theirs, truth)
    check_near("product", theirs, truth, 0.1)
    with pytest.raises(RuntimeError, match=r"product differs from the product in float64 by 0\.046 of its norm"):
        check_near("product", theirs, truth)
    with pytest.raises(RuntimeError, match="differs"):
        check_near("product", torch.full((3,), torch.nan), truth)


def test_a_product_that_varies_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu import errors

    right, calls = errors.masked_mm, []

    def wrong(*given: Tensor) -> Tensor:
        calls.append(given)
        return right(*given) * (1 + (len(calls) == 3))

    monkeypatch.setattr(errors, "masked_mm", wrong)
    with pytest.raises(RuntimeError, match="gives other bits when it is called again"):
        check_masked_mm(Case(device=CPU, rows=3, cols=33), torch.float32, 2)
