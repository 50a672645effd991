"""Cycles: rates, what cannot follow what, and the published algorithms as lists."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask.cycles import Cycle, check_cycles, down_to, ep, hard_iep, shrinking, soft_iep

FIRST = Cycle(remaining=0.8)
SCORES = ("initial", "inherit", "fresh", "inherit_masked", "initial_masked")


def test_shrinking_rates_are_those_of_the_paper() -> None:
    rates = shrinking(0.2, 15)
    assert rates[:3] == (0.8, pytest.approx(0.64), pytest.approx(0.512))
    assert len(rates) == 15
    assert round(rates[-1], 3) == 0.035


def test_rates_down_to_the_imagenet_ones() -> None:
    assert down_to(0.3, 3) == pytest.approx((0.66943, 0.44814, 0.3), abs=1e-5)
    assert down_to(0.3, 1) == (0.3,)
    assert down_to(1.0, 2) == (1.0, 1.0)


@given(rate=st.floats(0.01, 0.99), cycles=st.integers(1, 20))
def test_rates_are_powers(rate: float, cycles: int) -> None:
    for rates, ratio in ((shrinking(rate, cycles), 1 - rate), (down_to(rate, cycles), rate ** (1 / cycles))):
        assert len(rates) == cycles
        assert rates[0] == pytest.approx(ratio)
        for before, after in itertools.pairwise(rates):
            assert 0 < after < before
            assert after / before == pytest.approx(ratio)
    assert down_to(rate, cycles)[-1] == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("p", [0, 1, -0.2, 1.2, math.nan])
def test_a_shrinkage_rate_is_strictly_between_none_and_all(p: float) -> None:
    with pytest.raises(ValueError, match=f"p={p}"):
        shrinking(p, 3)


@pytest.mark.parametrize("final", [0, 1.1, -0.2, math.nan])
def test_a_final_rate_is_a_fraction(final: float) -> None:
    with pytest.raises(ValueError, match=f"remaining={final}"):
        down_to(final, 3)


@pytest.mark.parametrize("cycles", [0, -1])
def test_at_least_one_cycle(cycles: int) -> None:
    for rates in (shrinking, down_to):
        with pytest.raises(ValueError, match=f"cycles={cycles}"):
            rates(0.5, cycles)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"remaining": 0}, "remaining=0"),
        ({"remaining": 1.01}, r"remaining=1\.01"),
        ({"remaining": math.nan}, "remaining=nan"),
        ({"scores": "learned"}, "scores='learned'.*'inherit_masked'"),
        ({"lr": "rewound"}, "lr='rewound'.*'final'"),
        ({"space": "some"}, "space='some'.*'survivors'"),
        ({"length": 0}, "length=0"),
    ],
)
def test_bad_cycles(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cycle(**{"remaining": 0.5, **bad})


def test_cycles_are_fixed_and_named() -> None:
    with pytest.raises(AttributeError):
        FIRST.remaining = 0.5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Cycle(0.5)  # type: ignore[misc]


def test_the_published_algorithms() -> None:
    assert ep(0.3) == (Cycle(remaining=0.3, scores="initial", lr="rewind", space="all", length=1),)
    assert ep(0.3, length=15) == (Cycle(remaining=0.3, length=15),)
    rates = (0.8, 0.64, 0.512)
    first = Cycle(remaining=0.8, scores="initial", lr="rewind", space="all", length=1)
    hard, soft = hard_iep(rates), soft_iep(rates)
    assert hard[0] == soft[0] == first
    assert hard[1:] == tuple(Cycle(remaining=r, scores="inherit", lr="rewind", space="survivors") for r in rates[1:])
    assert soft[1:] == tuple(Cycle(remaining=r, scores="inherit", lr="rewind", space="all") for r in rates[1:])


@pytest.mark.parametrize("method", [hard_iep, soft_iep])
def test_methods_refuse_no_rates_and_bad_ones(method: Any) -> None:
    with pytest.raises(ValueError, match="no cycle"):
        method(())
    with pytest.raises(ValueError, match="remaining=0"):
        method((0.5, 0.0))


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("lr", ["rewind", "final"])
@pytest.mark.parametrize("space", ["all", "survivors"])
def test_what_a_search_can_start_from_and_go_on_with(scores: Any, lr: Any, space: Any) -> None:
    cycle = Cycle(remaining=0.5, scores=scores, lr=lr, space=space)
    if (scores, lr, space) == ("initial", "rewind", "all"):
        check_cycles([cycle])
    else:
        with pytest.raises(ValueError, match=r"cycle 1 .*no cycle before it.*initial, rewind and all"):
            check_cycles([cycle])
    if (scores, space) == ("initial", "all"):
        with pytest.raises(ValueError, match=r"cycle 2 .*plain EP .*ep\(0\.5\)"):
            check_cycles([FIRST, cycle])
        with pytest.raises(ValueError, match=r"cycle 3 .*plain EP"):
            check_cycles([FIRST, Cycle(remaining=0.6, scores="inherit"), cycle])
    else:
        check_cycles([FIRST, cycle])
        check_cycles([FIRST, cycle, cycle])


def test_hard_pruning_cannot_grow() -> None:
    def cycle(remaining: float, space: Any = "survivors") -> Cycle:
        return Cycle(remaining=remaining, scores="inherit", space=space)

    check_cycles([FIRST, cycle(0.5), cycle(0.5), cycle(0.2)])
    with pytest.raises(ValueError, match=r"cycle 3 keeps 0\.6 .*leaves the 0\.5 of cycle 2.*go down"):
        check_cycles([FIRST, cycle(0.5), cycle(0.6)])
    with pytest.raises(ValueError, match=r"cycle 2 keeps 0\.9 .*leaves the 0\.8 of cycle 1"):
        check_cycles([FIRST, cycle(0.9)])
    check_cycles([FIRST, cycle(0.5), cycle(0.9, "all")])
    with pytest.raises(ValueError, match="cycle 2"):
        hard_iep((0.5, 0.6))
    assert [c.remaining for c in soft_iep((0.5, 0.6))] == [0.5, 0.6]


def test_no_cycles_at_all() -> None:
    with pytest.raises(ValueError, match="no cycle"):
        check_cycles([])
