"""Cycles: rates, what cannot follow what, and the published algorithms as lists."""

import itertools
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supermask.methods import METHODS
from supermask.methods.cycles import Cycle, check_cycles, cycle_fields, down_to, shrinking
from supermask.methods.edge_popup import ep
from supermask.methods.iep import hard_iep, soft_iep

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


def test_every_row_of_table_3_is_a_method() -> None:
    assert METHODS.keys() == {*TABLE_3, "EP long"}


@pytest.mark.parametrize("name", TABLE_3)
def test_a_row_of_table_3(name: str) -> None:
    scores, lr, space, *zero = TABLE_3[name]
    rates = shrinking(0.2, 3)
    first, *later = METHODS[name](rates)
    assert first == Cycle(remaining=rates[0], scores="initial", lr="rewind", space="all", length=1)
    row: Any = {"scores": scores, "lr": lr, "space": space, "unselected": zero[0] if zero else "keep"}
    assert later == [Cycle(remaining=rate, **row) for rate in rates[1:]]
    assert METHODS[name](rates[:1]) == (first,)


def test_ep_with_the_compute_of_all_cycles() -> None:
    assert METHODS["EP long"](shrinking(0.2, 3)) == (Cycle(remaining=0.8**3, length=3),)
    with pytest.raises(ValueError, match="no rate"):
        METHODS["EP long"](())


@pytest.mark.parametrize("name", TABLE_3)
def test_methods_refuse_no_rates_and_bad_ones(name: str) -> None:
    with pytest.raises(ValueError, match="no cycle"):
        METHODS[name](())
    with pytest.raises(ValueError, match="remaining=0"):
        METHODS[name]((0.5, 0.0))


DEGENERATE = {
    "inherit": None,
    "initial": "the initial scores over all edges, which is plain EP .*ep\\(0\\.5\\)",
    "fresh": "a fresh draw over all edges, which is plain EP .*ep\\(0\\.5\\) with other seeds",
}


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("lr", ["rewind", "final"])
@pytest.mark.parametrize("space", ["all", "survivors"])
@pytest.mark.parametrize("unselected", ["keep", "zero"])
def test_what_a_search_can_start_from_and_go_on_with(scores: Any, lr: Any, space: Any, unselected: Any) -> None:
    cycle = Cycle(remaining=0.5, scores=scores, lr=lr, space=space, unselected=unselected)
    if (scores, lr, space, unselected) == ("initial", "rewind", "all", "keep"):
        check_cycles([cycle])
    else:
        with pytest.raises(ValueError, match=r"cycle 1 .*no cycle before it.*initial, rewind and all"):
            check_cycles([cycle])
    reason = DEGENERATE[scores] if (space, unselected) == ("all", "keep") else None
    if (space, unselected) == ("survivors", "zero"):
        reason = "zeros for them change nothing; leave unselected='keep'"
    if not reason and lr == "final" and scores != "inherit":
        reason = f"lr='final' with scores='{scores}': .*write lr='rewind'"
    if reason:
        with pytest.raises(ValueError, match=f"^cycle 2 .*({reason})"):
            check_cycles([FIRST, cycle])
        with pytest.raises(ValueError, match=f"^cycle 3 .*({reason})"):
            check_cycles([FIRST, Cycle(remaining=0.6, scores="inherit"), cycle])
    else:
        check_cycles([FIRST, cycle])
        check_cycles([FIRST, cycle, cycle])


def test_a_cycle_in_words() -> None:
    """Tables and the names of grids' folders stay what they are."""
    inherited = Cycle(remaining=0.5, scores="inherit")
    assert inherited.start == "inherit"
    assert repr(inherited) == "Cycle(remaining=0.5, scores='inherit', lr='rewind', space='all', length=1)"
    zeroed = replace(inherited, unselected="zero")
    assert zeroed.start == "inherit_masked"
    assert replace(FIRST, unselected="zero").start == "initial_masked"
    assert eval(repr(zeroed), {"Cycle": Cycle}) == zeroed != inherited


@pytest.mark.parametrize("scores", ["inherit", "initial"])
def test_cycles_of_older_run_folders(scores: Any) -> None:
    cycle = Cycle(remaining=0.5, scores=scores, unselected="zero")
    older: dict[str, Any] = {"remaining": 0.5, "lr": "rewind", "space": "all", "length": 1}
    assert cycle_fields(older | {"scores": f"{scores}_masked"}) == cycle_fields(asdict(cycle)) == asdict(cycle)
    plain = Cycle(remaining=0.5, scores=scores)
    assert cycle_fields(older | {"scores": scores}) == cycle_fields(asdict(plain)) == asdict(plain)


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
