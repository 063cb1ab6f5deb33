import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from fbnetv5.search.nars.predictor import Ensemble
from fbnetv5.search.nars.quality import cross_validate, rank_correlations, root_mean_square, stop_step
from fbnetv5.search.nars.scale import Scale
from fbnetv5.spaces.space import Choices
from tests.fbnetv5.search.nars.conftest import IDENTITY, PAIRS, draw


class Line(Ensemble):
    """Members that predict the first choice of a pair, and this plus a constant."""

    difference = 0.0

    def quantiles(self, choices: Choices) -> NDArray[np.float64]:
        first = choices[:, 0].astype(np.float64)
        return np.stack([first - self.difference, first + self.difference])


class Disagreeing(Line):
    difference = 0.5


class Constant(Line):
    """Predicts the median of its trainings, whatever the pair."""

    def quantiles(self, choices: Choices) -> NDArray[np.float64]:
        return np.zeros((2, len(choices)))


def pairs_of(values: NDArray[np.float64]) -> Choices:
    return np.stack([values, values], axis=1).astype(np.int64)


def fitted(kind: type[Ensemble]) -> Ensemble:
    return kind(pairs=PAIRS, members=(), scale=IDENTITY)


def test_errors_and_spread_are_those_of_the_held_out_trainings() -> None:
    values = np.arange(12.0)
    scores = values + np.tile([-1.0, 1.0], 6)
    quality = cross_validate(lambda pairs, of: fitted(Disagreeing), pairs_of(values), scores, seed=0)
    assert quality.trainings == 12
    assert quality.mean_absolute_error == pytest.approx(1.0)
    assert quality.spread_factor == pytest.approx(1.0 / 0.5)
    assert quality.coverage == 0.0
    assert quality.tau == pytest.approx(kendalltau(values, scores).statistic, abs=0.05)  # medians of folds differ


def test_the_spread_of_members_that_agree_has_no_factor() -> None:
    values = np.arange(6.0)
    quality = cross_validate(lambda pairs, of: fitted(Line), pairs_of(values), values + 1, seed=0)
    assert (quality.spread_factor, quality.coverage) == (0.0, 0.0)
    assert quality.tau == pytest.approx(1.0)
    exact = cross_validate(lambda pairs, of: fitted(Line), pairs_of(values), values, seed=0)
    assert (exact.spread_factor, exact.coverage, exact.mean_absolute_error) == (0.0, 1.0, 0.0)


def test_no_training_is_predicted_by_an_ensemble_that_was_fitted_to_it() -> None:
    values = np.arange(11.0)
    held_out: list[float] = []

    def fit(pairs: Choices, scores: NDArray[np.float64]) -> Ensemble:
        assert (pairs[:, 0] == scores).all()
        held_out.extend(set(values) - set(scores))
        return fitted(Line)

    cross_validate(fit, pairs_of(values), values, seed=3)
    assert sorted(held_out) == values.tolist()


def test_equal_scores_have_no_tau() -> None:
    quality = cross_validate(lambda pairs, of: fitted(Line), pairs_of(np.arange(4.0)), np.zeros(4), seed=0)
    assert quality.tau == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_predictor_that_knows_nothing_has_no_tau(seed: int) -> None:
    def fit(pairs: Choices, scores: NDArray[np.float64]) -> Ensemble:
        return Constant(pairs=PAIRS, members=(), scale=Scale.of(scores))

    scores = np.random.default_rng(seed).random(7)
    assert abs(cross_validate(fit, pairs_of(np.arange(7.0)), scores, seed=seed).tau) < 0.01


def test_rank_correlations_are_those_of_scipy() -> None:
    curves = np.random.default_rng(0).random((9, 5))
    correlations = rank_correlations(curves)
    assert correlations == pytest.approx([spearmanr(curves[:, k], curves[:, -1]).statistic for k in range(5)])
    assert correlations[-1] == pytest.approx(1.0)
    assert rank_correlations(np.zeros((4, 2))) == [0.0, 0.0]


LAST = np.arange(8.0)
REVERSED = LAST[::-1]
NEARLY = np.array([0.0, 1, 2, 3, 4, 5, 7, 6])  # correlation .976
CURVES = {
    "final from the start": ([LAST, LAST, LAST, LAST], 10),
    "final from the second on": ([REVERSED, NEARLY, LAST, LAST], 20),
    "final by chance at first": ([LAST, REVERSED, LAST, LAST], 30),
    "never before the last": ([REVERSED, REVERSED, REVERSED, LAST], 40),
    "all equal at first": ([np.zeros(8), np.zeros(8), NEARLY, LAST], 30),
    "all equal at last": ([LAST, LAST, LAST, np.zeros(8)], 40),
}


@pytest.mark.parametrize(("columns", "step"), CURVES.values(), ids=CURVES)
def test_trainings_stop_where_their_ranking_is_final(columns: list[NDArray[np.float64]], step: int) -> None:
    assert stop_step((10, 20, 30, 40), np.stack(columns, axis=1), 0.92) == step


def test_a_threshold_of_one_never_stops() -> None:
    assert stop_step((10, 20), np.stack([LAST, LAST], axis=1), 1.0) == 20


def test_a_single_evaluation_is_the_last() -> None:
    assert stop_step((10,), LAST[:, None], 0.5) == 10


def test_the_root_mean_square() -> None:
    assert root_mean_square(np.array([3.0, -4.0])) == pytest.approx(12.5**0.5)


def test_pairs_of_the_space_are_folded_too() -> None:
    pairs = draw(PAIRS, 5)
    quality = cross_validate(lambda fit, of: fitted(Line), pairs, np.arange(5.0), seed=1)
    assert quality.to_json()["trainings"] == 5
