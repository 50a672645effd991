"""Paired statistics: against SciPy, and against numbers worked by hand."""

import math
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from supermask.columns import NotInstalled
from supermask.reports.pairs import detectable, hedges, holm, sign_flip, signed_ranks, statistics

A = [0.93, 0.95, 0.90, 0.97, 0.94, 0.91, 0.96]
B = [0.90, 0.94, 0.91, 0.92, 0.95, 0.86, 0.88]
VALUES = st.lists(st.tuples(*[st.integers(0, 797)] * 2), min_size=2, max_size=9)


@given(VALUES)
def test_t_test_and_interval_are_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side) / 797 for side in zip(*pairs, strict=True))
    found = statistics(a, b)
    assert found["difference"] == pytest.approx(float((a - b).mean()))
    if np.ptp(np.subtract(*np.transpose(pairs))) == 0:
        assert found["deviation"] == 0
        known = not found["difference"]  # equal differences say nothing of a spread, unless all are zero
        assert (found["p"], found["low"], found["t"]) == (
            (1, 0, 0) if known else pytest.approx([math.nan] * 3, nan_ok=True)
        )
        return
    expected = stats.ttest_rel(a, b)
    assert (found["t"], found["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-12)


@given(VALUES)
def test_the_sign_flip_test_is_scipys_permutation_test(pairs: list[tuple[int, int]]) -> None:
    d = np.subtract(*np.transpose(pairs)) / 797
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True, alternative="two-sided"
    )
    assert sign_flip(d) == pytest.approx(expected.pvalue)


@given(st.permutations(range(1, 9)), st.integers(0, 255))
def test_signed_ranks_are_wilcoxons(sizes: list[int], signs: int) -> None:
    d = np.array([size * (1 if signs >> i & 1 else -1) for i, size in enumerate(sizes)]) / 797
    assert sign_flip(signed_ranks(d)) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_ties_share_their_mean_rank_and_zeros_have_none() -> None:
    assert signed_ranks(np.array([0.0, 0.2, -0.1, 0.1, -0.5])).tolist() == [3, -1.5, 1.5, -4]
    assert signed_ranks(np.array([0.3 - 0.2, 0.1, 0.9 - 0.8])).tolist() == [2, 2, 2], "equal but for rounding"
    assert sign_flip(signed_ranks(np.zeros(4))) == 1


def test_by_hand() -> None:
    # Differences 1, 2, 3, 4: of 16 signs two have a sum of 10 or more from zero.
    found = statistics([1, 2, 3, 4], [0, 0, 0, 0])
    assert found["p_exact"] == found["p_wilcoxon"] == found["least_p"] == 2 / 16
    assert found["difference"] == 2.5
    assert found["deviation"] == pytest.approx(math.sqrt(5 / 3))
    assert found["t"] == pytest.approx(2.5 / math.sqrt(5 / 12))
    # 3.182 is the 97.5 % quantile of Student's t with 3 degrees of freedom.
    assert found["high"] - 2.5 == pytest.approx(3.182446 * math.sqrt(5 / 12), rel=1e-6)
    # J(3) = G(1.5) / (sqrt(1.5) G(1)) = sqrt(pi) / 2 / sqrt(1.5)
    assert hedges(4) == pytest.approx(math.sqrt(math.pi) / 2 / math.sqrt(1.5))
    assert found["effect"] == pytest.approx(2.5 / math.sqrt(5 / 3) * hedges(4))
    # 1, 1, 1, -1: signs with a sum of 2 or more from zero are all but the six with a sum of 0.
    assert sign_flip(np.array([1.0, 1, 1, -1])) == 10 / 16
    assert statistics([1, 1, 1, 1, 1], [0, 0, 0, 0, 0.5])["p_exact"] == 2 / 32 == 0.0625


def test_rounding_does_not_part_equal_sums() -> None:
    d = np.array([0.1, 0.2, 0.3])  # 0.1 + 0.2 - 0.3 is 5.6e-17, and -0.1 - 0.2 + 0.3 is not the same distance from 0.3
    exact = np.mean([abs(a + 2 * b + 3 * c) >= 6 for a, b, c in product((1, -1), repeat=3)])
    assert sign_flip(d) == exact
    assert sign_flip(np.array([0.1, 0.2, -0.3])) == 1


def test_many_pairs_are_sampled_always_the_same_way() -> None:
    d = np.random.default_rng(5).normal(0.5, 1, 24)
    p = sign_flip(d)
    assert sign_flip(d) == p
    assert p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=0.2)
    least = 1 / 200_001  # never 0
    assert sign_flip(np.ones(30)) == least
    assert statistics(np.arange(30), -np.arange(30))["least_p"] == least
    assert statistics(np.arange(20), -np.arange(20))["least_p"] == 2**-19


def test_what_can_be_detected() -> None:
    # 80 % power by the non-central t distribution, which statistics books tabulate: 1.682 deviations for n = 5.
    assert detectable(5, stats) / math.sqrt(5) == pytest.approx(1.682, abs=1e-3)
    for n in (3, 10, 40):
        mean, limit = detectable(n, stats), stats.t.ppf(0.975, n - 1)
        power = stats.nct.sf(limit, n - 1, mean) + stats.nct.cdf(-limit, n - 1, mean)
        assert power == pytest.approx(0.8, abs=1e-5)
    found = statistics(A, B)
    assert found["detectable"] == pytest.approx(detectable(7, stats) * found["deviation"] / math.sqrt(7))


def test_hedges_factor_is_near_its_usual_approximation() -> None:
    assert [hedges(n) for n in (5, 10, 30)] == pytest.approx([1 - 3 / (4 * (n - 1) - 1) for n in (5, 10, 30)], rel=6e-3)
    assert math.isnan(hedges(2))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.6]) == [1, 1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([0.01, math.nan, 0.02]) == pytest.approx([0.03, math.nan, 0.04], nan_ok=True)


def test_the_same_run_twice_shows_nothing() -> None:
    found = statistics(A, A)
    assert (found["difference"], found["low"], found["high"], found["effect"]) == (0, 0, 0, 0)
    assert (found["p"], found["p_exact"], found["p_wilcoxon"]) == (1, 1, 1)


def test_without_scipy_the_error_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(NotInstalled, match=r'a paired test needs scipy: pip install "supermask\[frames\]"'):
        statistics(A, B)
