"""Cycles: rates, what cannot follow what, and the published algorithms as lists."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask.methods import METHODS, iep
from supermask.methods.cycles import Cycle, down_to, shrinking
from supermask.methods.edge_popup import ep, ep_long
from supermask.methods.iep import hard_iep, soft_iep
from supermask.methods.rates import Rates

FIRST = Cycle(remaining=0.8)
SCORES = ("initial", "inherit", "fresh")


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
        ({"scores": "learned"}, "scores='learned'.*'fresh'"),
        ({"scores": "inherit_masked"}, "scores='inherit_masked': write scores='inherit', unselected='zero'"),
        ({"scores": "initial_masked"}, "scores='initial_masked': write scores='initial', unselected='zero'"),
        ({"unselected": "drop"}, "unselected='drop'.*'keep', 'zero'"),
        ({"lr": "rewound"}, "lr='rewound'.*'final'"),
        ({"space": "some"}, "space='some'.*'survivors'"),
        ({"length": -1}, "length=-1"),
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


TABLE_3 = {
    "hard iEP": ("inherit", "rewind", "survivors"),
    "hard iEP FT": ("inherit", "final", "survivors"),
    "hard iEP SRw": ("initial", "rewind", "survivors"),
    "hard iEP SRi": ("fresh", "rewind", "survivors"),
    "soft iEP": ("inherit", "rewind", "all"),
    "soft iEP FT": ("inherit", "final", "all"),
    "soft iEP zero": ("inherit", "rewind", "all", "zero"),
    "soft iEP SRw zero": ("initial", "rewind", "all", "zero"),
}


def rows_of(name: str, rates: tuple[float, ...]) -> tuple[Cycle, ...]:
    """The cycles of a method at these rates."""
    method = METHODS[name]
    assert isinstance(method, Rates)
    return replace(method, given=rates).phases()


def test_every_row_of_table_3_is_a_method() -> None:
    assert METHODS.keys() >= {*TABLE_3, "EP", "EP long"}


@pytest.mark.parametrize("name", TABLE_3)
def test_a_row_of_table_3(name: str) -> None:
    scores, lr, space, *zero = TABLE_3[name]
    rates = shrinking(0.2, 3)
    first, *later = rows_of(name, rates)
    assert first == Cycle(remaining=rates[0], scores="initial", lr="rewind", space="all", length=1)
    row: Any = {"scores": scores, "lr": lr, "space": space, "unselected": zero[0] if zero else "keep"}
    assert later == [Cycle(remaining=rate, **row) for rate in rates[1:]]
    assert rows_of(name, rates[:1]) == (first,)
    function = getattr(iep, name.lower().replace(" ", "_"))
    assert function(rates) == (first, *later)
    with pytest.raises(ValueError, match="no cycle"):
        function(())


def test_ep_with_the_compute_of_all_cycles() -> None:
    assert rows_of("EP long", shrinking(0.2, 3)) == (Cycle(remaining=0.8**3, length=3),)
    with pytest.raises(ValueError, match="no rate"):
        ep_long(())


@pytest.mark.parametrize("name", TABLE_3)
def test_methods_refuse_bad_rates(name: str) -> None:
    with pytest.raises(ValueError, match="remaining=0"):
        rows_of(name, (0.5, 0.0))


def test_rates_are_of_a_number_of_cycles_or_given() -> None:
    assert Rates(cycles=3).rates == Rates(cycles=3, p=0.2).rates == shrinking(0.2, 3)
    with pytest.raises(ValueError, match=r"p=0.2 and final=0.1"):
        Rates(cycles=4, p=0.2, final=0.1)
    assert Rates(cycles=4, final=0.1).rates == down_to(0.1, 4)
    assert Rates(cycles=4, final=0.1, given=(0.5,)).rates == (0.5,)
