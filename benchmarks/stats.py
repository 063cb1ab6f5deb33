"""The statistics that experiments report: differences with intervals, effect sizes, permutation tests and power.

Sources: BCa bootstrap intervals, Efron 1987 (doi 10.1080/01621459.1987.10478410); Hedges' g and its correction for
small samples, Hedges 1981 (doi 10.3102/10769986006002107), with the exact interval from the noncentral t distribution;
the interval of a share, Clopper and Pearson 1934 (doi 10.1093/biomet/26.4.404); the standard error of Spearman's
correlation, Bonett and Wright 2000 (doi 10.1007/BF02294183).

Not included: corrections for several tests at once. The file is not called statistics.py, which would hide Python's own
module of that name from the scripts of this folder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from export.errors import UserError

LEVEL = 0.95
"""Coverage of every interval."""
ALPHA = 0.05
POWER = 0.8
RESAMPLES = 19_999
"""A permutation test is exact if there are no more permutations than this."""
BATCH = 1000
"""Resamples in memory at a time."""
MAX_UNITS = 100_000
PERFECT = 1 - 1e-12
"""The largest correlation whose transform is certainly finite."""

Floats = NDArray[np.float64]
Values = Sequence[float] | Floats
Alternative = Literal["two-sided", "less", "greater"]
"""For two samples: "less" is the alternative that the first has the smaller mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its interval of coverage ``LEVEL``."""

    value: float
    low: float
    high: float


def mean_difference(first: Values, second: Values) -> Estimate:
    """Mean of ``first`` minus mean of ``second``, with a BCa bootstrap interval."""
    return _bootstrap((_array(first), _array(second)), _difference)


def mean(values: Values) -> Estimate:
    """Mean of the values, such as paired differences, with a BCa bootstrap interval."""
    return _bootstrap((_array(values),), np.mean)


def _bootstrap(samples: tuple[Floats, ...], statistic: Any) -> Estimate:
    value = float(statistic(*samples, axis=0))
    if all(np.ptp(sample) == 0 for sample in samples):
        return Estimate(value=value, low=value, high=value)  # every resample is the same, for which BCa has no interval
    interval = stats.bootstrap(
        samples,
        statistic,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=LEVEL,
        method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value=value, low=float(interval.low), high=float(interval.high))


def hedges_g(first: Values, second: Values) -> Estimate:
    """Difference of the means in units of the pooled standard deviation, corrected for small samples.

    Raises:
        UserError: fewer than four values in all, or none of the samples varies.
    """
    a, b = _array(first), _array(second)
    freedom = len(a) + len(b) - 2
    if freedom < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        raise UserError("an effect size needs at least four values in all, and a sample that varies")
    pooled = math.sqrt((np.square(a - a.mean()).sum() + np.square(b - b.mean()).sum()) / freedom)
    scale = math.sqrt(1 / len(a) + 1 / len(b))
    t = float(_difference(a, b, axis=0)) / pooled / scale
    unit = scale * correction(freedom)
    low, high = (_noncentrality(t, freedom, share) for share in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return Estimate(value=t * unit, low=low * unit, high=high * unit)


def correction(freedom: int) -> float:
    """Hedges' factor that makes the effect size unbiased, about ``1 - 3 / (4 freedom - 1)``."""
    logs = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)
    return float(math.exp(logs) / math.sqrt(freedom / 2))


def _noncentrality(t: float, freedom: int, share: float) -> float:
    """The noncentrality at which ``share`` of the t distribution lies below ``t``."""
    reach = 10 + 4 * abs(t)
    shift: float = optimize.brentq(lambda shift: _noncentral_t(t, freedom, shift) - share, t - reach, t + reach)
    return shift


def _noncentral_t(t: float, freedom: int, shift: float) -> float:
    """The share of the noncentral t distribution below ``t``; scipy's own is nan where it is all but 0 or 1."""
    share = float(stats.nct.cdf(t, freedom, shift) if t >= 0 else stats.nct.sf(-t, freedom, -shift))
    return float(shift < t) if math.isnan(share) else share


def permutation_p(first: Values, second: Values, *, alternative: Alternative = "two-sided") -> float:
    """P-value of the difference of the means under random assignment of the values to the two samples."""
    return _permutation_p((_array(first), _array(second)), _difference, "independent", alternative)


def sign_flip_p(differences: Values, *, alternative: Alternative = "two-sided") -> float:
    """P-value of the mean of paired differences under random signs."""
    return _permutation_p((_array(differences),), np.mean, "samples", alternative)


def _permutation_p(samples: tuple[Floats, ...], statistic: Any, kind: str, alternative: Alternative) -> float:
    test = stats.permutation_test(
        samples,
        statistic,
        permutation_type=kind,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=BATCH,
        alternative=alternative,
        random_state=np.random.default_rng(0),
    )
    return float(test.pvalue)


def percentile(value: float, others: Values) -> Estimate:
    """The share of ``others`` below ``value``, ties counted half, 0..1; with the Clopper-Pearson interval."""
    below, count = _count_below(value, others), len(others)
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, below, count - below + 1) if below > 0 else 0.0
    high = stats.beta.ppf(1 - tail, below + 1, count - below) if below < count else 1.0
    return Estimate(value=below / count, low=float(low), high=float(high))


def rank_p(value: float, others: Values) -> float:
    """One-sided p-value of a value at least this high if it were drawn from the distribution of ``others``."""
    return (1 + int((_array(others) >= value).sum())) / (1 + len(others))


def same_distribution_p(first: Values, second: Values) -> float:
    """P-value of the two-sample Kolmogorov-Smirnov test.

    Its statistic is the largest distance between the percentiles of ``first`` among ``second`` and uniform ones. The
    one-sample test of those percentiles would neglect that ``second`` is a sample too.
    """
    return float(stats.ks_2samp(_array(first), _array(second)).pvalue)


def spearman(first: Values, second: Values) -> Estimate:
    """Rank correlation of paired values, with an interval from Fisher's transform.

    Raises:
        UserError: fewer than four pairs, or a constant side.
    """
    a, b = _array(first), _array(second)
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise UserError("a correlation needs at least four pairs, and both sides must vary")
    rho = float(stats.spearmanr(a, b).statistic)
    middle = math.atanh(min(max(rho, -PERFECT), PERFECT))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    return Estimate(value=rho, low=math.tanh(middle - half), high=math.tanh(middle + half))


def power(units: int, effect: float, *, sides: int = 2) -> float:
    """Probability that a t-test at level ``ALPHA`` finds an effect.

    Args:
        units: per group, at least 2.
        effect: difference of the means in standard deviations.
        sides: 1 for a test in the effect's direction, 2 for both.
    """
    freedom, shift = 2 * units - 2, abs(effect) * math.sqrt(units / 2)
    critical = float(stats.t.ppf(1 - ALPHA / sides, freedom))
    upper = 1 - _noncentral_t(critical, freedom, shift)
    return upper + _noncentral_t(-critical, freedom, shift) if sides == 2 else upper


def units_needed(effect: float, *, sides: int = 2) -> int | None:
    """Minimum number of units per group that find an effect with probability ``POWER``; None above ``MAX_UNITS``."""
    low, high = 1, 2
    while power(high, effect, sides=sides) < POWER:
        low, high = high, 2 * high
        if high > MAX_UNITS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(middle, effect, sides=sides) < POWER else (low, middle)
    return high


def detectable_effect(units: int, *, sides: int = 2) -> float:
    """The smallest effect that ``units`` per group, at least 2, find with probability ``POWER``."""
    effect: float = optimize.brentq(lambda effect: power(units, effect, sides=sides) - POWER, 1e-6, 50.0)
    return effect


def _array(values: Values) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _difference(first: Floats, second: Floats, axis: int) -> Floats:
    difference: Floats = first.mean(axis) - second.mean(axis)
    return difference


def _count_below(value: float, others: Values) -> float:
    array = _array(others)
    return float((array < value).sum() + (array == value).sum() / 2)
