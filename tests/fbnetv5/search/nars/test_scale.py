import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from fbnetv5.search.nars.scale import Scale

SCORES = np.array([0.3, -2.0, 0.31, 0.3, -50.0])


def test_quantiles_are_those_of_the_ranks() -> None:
    quantiles = Scale.of(SCORES).to_quantiles(SCORES)
    assert quantiles == pytest.approx(norm.ppf((np.array([3.5, 2, 5, 3.5, 1]) - 0.5) / 5))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
def test_there_and_back(values: list[float]) -> None:
    scores = np.array(values)
    scale = Scale.of(scores)
    assert scale.to_scores(scale.to_quantiles(scores)) == pytest.approx(scores)


def test_scores_increase_with_quantiles_also_beyond_the_trainings() -> None:
    scores = Scale.of(SCORES).to_scores(np.linspace(-4, 4, 200).reshape(2, 100))
    assert (np.diff(scores.ravel()) > 0).all()
    assert scores.max() > SCORES.max()
    assert scores.min() < SCORES.min()


def test_equal_scores_have_one_quantile() -> None:
    scale = Scale.of(np.full(4, 0.25))
    assert scale.to_quantiles(np.full(4, 0.25)).tolist() == [0.0] * 4
    assert scale.to_scores(np.array([-1.0, 3.0])).tolist() == [0.25, 0.25]


def test_an_outlier_does_not_change_the_order_nor_crowd_the_others() -> None:
    scores = np.append(np.random.default_rng(0).normal(size=31), -1e4)
    quantiles = Scale.of(scores).to_quantiles(scores)
    assert spearmanr(quantiles, scores).statistic == pytest.approx(1.0)
    assert quantiles[:-1].std() > 0.9
