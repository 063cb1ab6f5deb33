"""The predictor on the real space, with scores that are functions of known things in place of trainings."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.predictor import Ensemble, Predictor, PredictorSettings, Pretrained, fit, pretrain, standardise
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.spaces.space import Choices
from tests.fbnetv5.search.nars.conftest import PAIRS, SPACE, draw

SETTINGS = PredictorSettings(members=3)
Score = Callable[[Choices], NDArray[np.float64]]


@pytest.fixture(scope="module")
def statistics(prepared: Prepared) -> Score:
    """Pairs [B, S + R] -> multiply-adds and parameters [B, 2]."""
    return lambda pairs: prepared.statistics_of(PAIRS.architectures(pairs))


@pytest.fixture(scope="module")
def pretrained(statistics: Score) -> Pretrained:
    drawn = draw(PAIRS, 2048, seed=1)
    return pretrain(PAIRS, drawn, statistics(drawn), seed=0, settings=SETTINGS)


def fitted(pretrained: Pretrained, pairs: Choices, scores: NDArray[np.float64], seed: int = 0) -> Ensemble:
    return fit(PAIRS, pretrained, pairs, scores, seed=seed, settings=SETTINGS)


def test_pretraining_explains_the_statistics_of_other_architectures(pretrained: Pretrained, statistics: Score) -> None:
    assert max(pretrained.unexplained) < 0.1
    drawn = draw(PAIRS, 512, seed=2)
    with torch.no_grad():
        predicted = pretrained.network.statistics(torch.from_numpy(PAIRS.encode(drawn))).double().numpy()
    for column in range(2):
        assert np.corrcoef(predicted[:, column], statistics(drawn)[:, column])[0, 1] ** 2 > 0.9


def test_scores_that_follow_cost_are_ranked_from_few_trainings(pretrained: Pretrained, statistics: Score) -> None:
    trained, others = draw(PAIRS, 24, seed=3), draw(PAIRS, 256, seed=4)
    ensemble = fitted(pretrained, trained, np.log(statistics(trained)[:, 0]))
    assert kendalltau(ensemble(others), statistics(others)[:, 0]).statistic > 0.5


def test_scores_that_follow_the_recipe_are_ranked_too(pretrained: Pretrained) -> None:
    trained, others = draw(PAIRS, 48, seed=3), draw(PAIRS, 256, seed=4)
    ensemble = fitted(pretrained, trained, trained[:, PAIRS.size].astype(np.float64))
    assert kendalltau(ensemble(others), others[:, PAIRS.size]).statistic > 0.5


def test_shuffled_scores_predict_nothing(pretrained: Pretrained, statistics: Score) -> None:
    trained, others = draw(PAIRS, 48, seed=3), draw(PAIRS, 256, seed=4)
    taus = []
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(np.log(statistics(trained)[:, 0]))
        ensemble = fitted(pretrained, trained, shuffled)
        taus.append(kendalltau(ensemble(others), statistics(others)[:, 0]).statistic)
    assert abs(np.mean(taus)) < 0.2


def test_predictions_are_a_function_of_the_seed(pretrained: Pretrained) -> None:
    trained = draw(PAIRS, 6, seed=5)
    scores = np.arange(6.0)
    first, again, other = (fitted(pretrained, trained, scores, seed).predictions(trained) for seed in (0, 0, 1))
    assert (first == again).all()
    assert first.shape == (SETTINGS.members, 6)
    assert (first != other).any()
    assert (np.abs(np.diff(first, axis=0)) > 0).all()


def test_fitting_leaves_the_pretrained_network_and_the_generator_alone(pretrained: Pretrained) -> None:
    before = {name: value.clone() for name, value in pretrained.network.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    fitted(pretrained, draw(PAIRS, 4), np.arange(4.0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in pretrained.network.state_dict().items())


def test_equal_scores_are_predicted_without_a_division_by_zero(pretrained: Pretrained) -> None:
    ensemble = fitted(pretrained, draw(PAIRS, 4), np.full(4, 0.25))
    assert ensemble(draw(PAIRS, 8, seed=9)) == pytest.approx(0.25)


def test_without_pretraining_the_encoder_keeps_its_random_weights(statistics: Score) -> None:
    drawn = draw(PAIRS, 64)
    settings = PredictorSettings(pretraining_epochs=0)
    first, again = (pretrain(PAIRS, drawn, statistics(drawn), seed=0, settings=settings) for _ in range(2))
    assert min(first.unexplained) > 0.5
    weights = first.network.encoder.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.network.encoder.state_dict().items())


def test_a_fixed_architecture_is_predicted_by_its_recipe_alone(statistics: Score) -> None:
    pairs = PairSpace(SPACE, PAIRS.recipes, fixed=tuple(SPACE.full().tolist()))
    drawn = draw(pairs, 32)
    pretrained = pretrain(pairs, drawn, statistics(drawn), seed=0, settings=SETTINGS)
    assert pretrained.unexplained == ()
    scores = drawn[:, pairs.size].astype(np.float64)
    ensemble = fit(pairs, pretrained, drawn, scores, seed=0, settings=SETTINGS)
    others = draw(pairs, 128, seed=1)
    assert kendalltau(ensemble(others), others[:, pairs.size]).statistic > 0.5


def test_the_accuracy_head_reads_the_embedding_and_the_recipe() -> None:
    network = Predictor(5, 3, 2)
    vectors = torch.rand(4, 8)
    assert network(vectors).shape == (4,)
    assert network.statistics(vectors).shape == (4, 2)
    changed = vectors.clone()
    changed[:, 5:] += 1
    assert torch.equal(network.statistics(changed), network.statistics(vectors))
    assert not torch.equal(network(changed), network(vectors))


def test_standardised_columns() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert standardise(values).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
