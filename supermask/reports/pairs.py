"""What n paired differences show: interval, tests, effect size, and what so few could have shown at best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermask.columns import package

LEVEL = 0.95
_POWER = 0.8
_MOST = 20  # pairs of which all 2^n signs are tried
_SAMPLES = 200_000
_COUNTS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two things that were measured with the same seeds, a minus b.

    Attributes:
        a, b: what they are called.
        measure: what was measured.
        seeds: of the pairs.
        mean_a, mean_b: means over the seeds.
        remaining_a, remaining_b: fraction kept, mean over the seeds; NaN where it is not known.
        difference: mean of the differences.
        deviation: their standard deviation, over n - 1.
        low, high: interval of the mean difference at 95 %, by Student's t.
        t, p: paired t test, two-sided; NaN, as the interval, the effect and what is detectable, where all differences
            are equal and not zero: they say nothing of a spread.
        p_exact: sign-flip test of the mean, two-sided, over all 2^n signs; of more than 20 pairs over 200,000 drawn.
        p_wilcoxon: likewise of signed ranks; zeros are left out, ties share their mean rank.
        effect: Cohen's d_z, the mean over the deviation, by Hedges' factor for small n; NaN for two pairs.
        least_p: the least p_exact that so many pairs, or signs drawn for them, can give.
        detectable: the mean difference that the t test at 5 % finds in 80 % of such experiments, at this deviation.
        p_holm, p_exact_holm: corrected for all comparisons that were made together, by Holm.
    """

    a: str
    b: str
    measure: str
    seeds: tuple[int, ...]
    mean_a: float
    mean_b: float
    remaining_a: float
    remaining_b: float
    difference: float
    deviation: float
    low: float
    high: float
    t: float
    p: float
    p_exact: float
    p_wilcoxon: float
    effect: float
    least_p: float
    detectable: float
    p_holm: float
    p_exact_holm: float

    @property
    def n(self) -> int:
        """How many pairs."""
        return len(self.seeds)

    def __str__(self) -> str:
        rates = ""
        if not math.isclose(self.remaining_a, self.remaining_b, rel_tol=0.02) and not math.isnan(self.remaining_a):
            rates = f" (at {100 * self.remaining_a:.3g} and {100 * self.remaining_b:.3g} % remaining)"
        count = _COUNTS[self.n] if self.n < len(_COUNTS) else str(self.n)
        least = f"{count.capitalize()} pairs: the sign-flip test cannot give less than {self.least_p:.3g}"
        said = f"{self.a} - {self.b}{rates}: {self.measure} {self.difference:+.4g}"
        if math.isnan(self.t):
            return (
                f"{said}, the same in every pair, so there is no interval and no t test; sign-flip test p = "
                f"{self.p_exact:.3g}. {least}."
            )
        return (
            f"{said}, 95 % interval {self.low:+.4g} to {self.high:+.4g}, t test p = {self.p:.3g}, sign-flip test p = "
            f"{self.p_exact:.3g}, effect {self.effect:.3g}. {least}; at this spread a difference of "
            f"{self.detectable:.3g} is found with 80 % power."
        )


def statistics(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """The numbers of `Paired` that two pairs or more give by themselves.

    Raises:
        NotInstalled: there is no SciPy.
    """
    distributions = package("scipy.stats", "a paired test")
    values = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    d = values[0] - values[1]
    n, mean, deviation = len(d), float(d.mean()), float(d.std(ddof=1))
    if np.allclose(d, mean, rtol=0, atol=1e-12 * float(np.abs(values).max())):
        deviation = 0.0  # but for rounding
    error = deviation / math.sqrt(n)
    if mean and not error:
        error = math.nan
    reach = float(distributions.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    t = mean / error if error else 0.0
    return {
        "mean_a": float(values[0].mean()),
        "mean_b": float(values[1].mean()),
        "difference": mean,
        "deviation": deviation,
        "low": mean - reach,
        "high": mean + reach,
        "t": t,
        "p": float(2 * distributions.t.sf(abs(t), n - 1)),
        "p_exact": sign_flip(d),
        "p_wilcoxon": sign_flip(signed_ranks(d)),
        "effect": t / math.sqrt(n) * hedges(n),
        "least_p": 2.0 ** (1 - n) if n <= _MOST else max(2.0 ** (1 - n), 1 / (_SAMPLES + 1)),
        "detectable": detectable(n, distributions) * error,
    }


def sign_flip(d: NDArray[np.float64]) -> float:
    """Two-sided p of the sum of `d`, were the sign of each as likely plus as minus: the share of signs whose sum is as
    far from zero, sums that are equal but for rounding among them."""
    observed, rounding = abs(float(d.sum())), 1e-12 * float(np.abs(d).sum())
    if len(d) <= _MOST:
        sums = np.zeros(1)
        for one in d:
            sums = np.concatenate([sums + one, sums - one])
        return float(np.mean(np.abs(sums) >= observed - rounding))
    signs = np.random.Generator(np.random.PCG64(0))  # the same for everyone who asks
    reached = 0
    for _ in range(0, _SAMPLES, 10_000):
        drawn = signs.integers(0, 2, size=(10_000, len(d)), dtype=np.int8)
        reached += int(np.sum(np.abs(d.sum() - 2 * (drawn @ d)) >= observed - rounding))
    return (reached + 1) / (_SAMPLES + 1)  # the signs that were observed are one of them


def signed_ranks(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each difference that is not zero its sign times the rank of its size; ties, but for rounding, share one."""
    d = d[d != 0]
    size = np.abs(d)
    near = 1e-12 * float(size.max(initial=0.0))
    below = (size[None, :] < size[:, None] - near).sum(axis=1)
    equal = (np.abs(size[None, :] - size[:, None]) <= near).sum(axis=1)
    return np.sign(d) * (below + (equal + 1) / 2)


def hedges(n: int) -> float:
    """What takes the bias out of d_z of n pairs: G(m / 2) / (sqrt(m / 2) G((m - 1) / 2)), m = n - 1 (Hedges 1981)."""
    m = n - 1
    if m < 2:
        return math.nan
    return math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)


def detectable(n: int, distributions: Any) -> float:
    """Mean difference, in standard errors, that a two-sided t test at 5 % of n pairs finds with 80 % power.

    The power is the mean, over the chi-square quantiles of the measured variance, of what a normal mean exceeds.
    """
    optimize = package("scipy.optimize", "a paired test")
    quantiles = (np.arange(4000) + 0.5) / 4000
    spread = np.sqrt(distributions.chi2.ppf(quantiles, n - 1) / (n - 1))
    limit = distributions.t.ppf((1 + LEVEL) / 2, n - 1) * spread

    def missing(mean: float) -> float:
        return float(np.mean(distributions.norm.sf(limit - mean) + distributions.norm.cdf(-limit - mean))) - _POWER

    return float(optimize.brentq(missing, 0.0, 10 * float(limit.max())))


def holm(p: Sequence[float]) -> list[float]:
    """Corrected for there being several: the probability that one of those or any smaller comes by chance is at most
    that (Holm 1979). One that is not known is NaN, and one of them."""
    corrected = [math.nan] * len(p)
    highest = 0.0
    known = [index for index in range(len(p)) if not math.isnan(p[index])]
    for place, index in enumerate(sorted(known, key=lambda index: p[index])):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = highest
    return corrected
