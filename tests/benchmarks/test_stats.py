"""The statistics against closed formulas, enumeration, published tables and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks import stats
from export.errors import UserError

A, B = [1.0, 2.0, 4.0, 3.5], [3.0, 5.0, 6.0, 4.5, 7.0]


def test_the_difference_of_means_has_about_the_interval_of_a_t_test_on_many_normal_values() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(1.0, 1.0, 400), rng.normal(0.0, 2.0, 300)
    estimate = stats.mean_difference(first, second)
    truth = scipy_stats.ttest_ind(first, second, equal_var=False)
    assert estimate.value == pytest.approx(first.mean() - second.mean())
    interval = truth.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_a_mean_has_about_the_interval_of_a_t_test_on_many_normal_values() -> None:
    values = np.random.default_rng(7).normal(1.0, 2.0, 300)
    estimate, interval = stats.mean(values), scipy_stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_the_difference_of_constants_is_certain() -> None:
    estimate = stats.mean_difference([2.0, 2.0], [1.0, 1.0, 1.0])
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_hedges_g_is_the_corrected_difference_in_pooled_deviations() -> None:
    estimate = stats.hedges_g(A, B)
    pooled = math.sqrt((3 * np.var(A, ddof=1) + 4 * np.var(B, ddof=1)) / 7)
    d = (np.mean(A) - np.mean(B)) / pooled
    assert estimate.value == pytest.approx(d * math.gamma(3.5) / (math.sqrt(3.5) * math.gamma(3.0)))
    assert estimate.value == pytest.approx(d * (1 - 3 / (4 * 7 - 1)), rel=2e-3)  # Hedges' own approximation
    assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_hedges_g_ends_where_the_t_statistic_is_at_its_quantiles() -> None:
    estimate, t = stats.hedges_g(A, B), float(scipy_stats.ttest_ind(A, B).statistic)
    for bound, share in ((estimate.low, 0.975), (estimate.high, 0.025)):
        shift = bound / stats.correction(7) / math.sqrt(1 / 4 + 1 / 5)
        assert scipy_stats.nct.sf(-t, 7, -shift) == pytest.approx(share)


@pytest.mark.parametrize("difference", [1.0, 2.0, 4.0, 7.0, -7.0, 30.0])
def test_the_interval_of_a_large_effect_contains_it(difference: float) -> None:
    rng = np.random.default_rng(1)
    estimate = stats.hedges_g(rng.normal(difference, 1, 10), rng.normal(0, 1, 15))
    assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_hedges_g_covers_the_true_effect_as_often_as_it_should() -> None:
    rng = np.random.default_rng(2)
    intervals = [stats.hedges_g(rng.normal(0.8, 1, 6), rng.normal(0, 1, 9)) for _ in range(500)]
    truth = 0.8 * stats.correction(13)  # the interval is scaled by the correction, as g is
    assert np.mean([interval.low < truth < interval.high for interval in intervals]) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_an_effect_size_needs_values_that_vary(first: list[float], second: list[float]) -> None:
    with pytest.raises(UserError, match="effect size"):
        stats.hedges_g(first, second)


def test_a_small_permutation_test_is_the_enumeration_of_all_assignments() -> None:
    everyone, observed = np.array(A + B), np.mean(A) - np.mean(B)
    differences = []
    for chosen in itertools.combinations(range(9), 4):
        inside = np.isin(np.arange(9), chosen)
        differences.append(everyone[inside].mean() - everyone[~inside].mean())
    less = float(np.mean(np.array(differences) <= observed + 1e-12))
    assert stats.permutation_p(A, B, alternative="less") == pytest.approx(less)
    assert stats.permutation_p(B, A, alternative="greater") == pytest.approx(less)
    assert stats.permutation_p(A, B) == pytest.approx(2 * less)


def test_a_small_sign_flip_test_is_the_enumeration_of_all_signs() -> None:
    differences = np.array([0.5, -0.2, 0.9, 1.4, 0.1])
    means = [np.mean(differences * signs) for signs in itertools.product((-1, 1), repeat=5)]
    greater = float(np.mean(np.array(means) >= differences.mean() - 1e-12))
    assert stats.sign_flip_p(differences, alternative="greater") == pytest.approx(greater)
    assert stats.sign_flip_p(-differences, alternative="less") == pytest.approx(greater)


def test_p_values_are_uniform_where_there_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 999)
    rng = np.random.default_rng(3)
    two = [stats.permutation_p(rng.normal(size=8), rng.normal(size=8)) for _ in range(200)]
    one = [stats.permutation_p(rng.normal(size=8), rng.normal(size=8), alternative="less") for _ in range(200)]
    signs = [stats.sign_flip_p(rng.normal(size=20)) for _ in range(200)]
    ranks = [stats.rank_p(rng.normal(), rng.normal(size=99)) for _ in range(200)]
    for p_values in (two, one, signs, ranks):
        assert scipy_stats.kstest(p_values, "uniform").pvalue > 0.01


def test_the_percentile_has_the_interval_of_a_binomial_share() -> None:
    estimate = stats.percentile(7.5, range(10))
    interval = scipy_stats.binomtest(8, 10).proportion_ci(method="exact")
    assert estimate.value == 0.8
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert stats.percentile(3.0, range(7)).value == 0.5  # the tie counts half
    assert stats.percentile(-1.0, range(7)).low == 0.0
    assert stats.percentile(9.0, range(7)).high == 1.0


def test_the_p_value_of_a_rank_counts_the_value_itself() -> None:
    assert stats.rank_p(100.0, range(64)) == pytest.approx(1 / 65)
    assert stats.rank_p(-1.0, range(64)) == 1.0


def test_samples_of_two_distributions_are_detected() -> None:
    rng = np.random.default_rng(4)
    assert stats.same_distribution_p(rng.normal(size=40), rng.normal(size=64)) > 0.05
    assert stats.same_distribution_p(rng.normal(size=40), rng.normal(1.5, 1, size=64)) < 1e-4


def test_spearman_is_the_correlation_of_ranks_and_its_interval_covers() -> None:
    first, second = [1.0, 5.0, 2.0, 9.0, 7.0], [2.0, 1.0, 3.0, 50.0, 6.0]
    ranks = [np.argsort(np.argsort(values)).tolist() for values in (first, second)]
    assert stats.spearman(first, second).value == pytest.approx(np.corrcoef(ranks[0], ranks[1])[0, 1])
    rng = np.random.default_rng(5)
    truth = 6 / math.pi * math.asin(0.6 / 2)  # of a normal pair whose correlation is .6
    covered = 0
    for _ in range(300):
        x, noise = rng.normal(size=(2, 30))
        estimate = stats.spearman(x, 0.6 * x + 0.8 * noise)
        covered += estimate.low < truth < estimate.high
    assert covered / 300 == pytest.approx(0.95, abs=0.04)
    assert stats.spearman(range(5), range(5)).low == pytest.approx(1.0)
    with pytest.raises(UserError, match="correlation"):
        stats.spearman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("effect", "sides", "units"), [(0.2, 2, 394), (0.5, 2, 64), (0.8, 2, 26), (0.5, 1, 51)])
def test_the_units_needed_are_those_of_published_tables(effect: float, sides: int, units: int) -> None:
    assert stats.units_needed(effect, sides=sides) == units  # Cohen 1988, tables 2.4.1; G*Power 3
    assert stats.detectable_effect(units, sides=sides) <= effect < stats.detectable_effect(units - 1, sides=sides)


def test_power_is_how_often_a_test_finds_the_effect() -> None:
    rng = np.random.default_rng(6)
    drawn = rng.normal(size=(2, 2000, 10))
    significant = scipy_stats.ttest_ind(drawn[0] + 1.2, drawn[1], axis=1).pvalue < stats.ALPHA
    assert stats.power(10, 1.2) == pytest.approx(significant.mean(), abs=0.03)


def test_a_negligible_effect_needs_more_than_the_maximum_units() -> None:
    assert stats.units_needed(1e-4) is None
