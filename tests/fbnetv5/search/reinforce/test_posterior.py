import itertools

import numpy as np
import pytest

from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.posterior import COMMON_VARIANCE, LEVEL_VARIANCE, PosteriorFit
from fbnetv5.spaces.space import Choices

COUNTS = (2, 3, 2, 4)
TASKS = 2
EVERYTHING: Choices = np.array(list(itertools.product(*map(range, COUNTS))))
EFFECTS: Floats = np.random.default_rng(2).normal(size=(TASKS, len(COUNTS), max(COUNTS)))
EFFECTS[:, :, 0] = 0.0


def losses_of(choices: Choices) -> Floats:
    """[K, T], a sum of effects."""
    losses: Floats = EFFECTS[:, np.arange(len(COUNTS)), choices].sum(-1).T + np.array([3.0, -1.0])
    return losses


def drawn(count: int) -> Choices:
    return np.random.default_rng(1).integers(0, COUNTS, (count, len(COUNTS)))


def test_a_sum_of_effects_is_found() -> None:
    controller, choices = Controller(COUNTS, TASKS, lr=0.1), drawn(300)
    fit, noise = PosteriorFit(controller), np.random.default_rng(3).normal(size=(300, TASKS))
    fit.learn(choices, losses_of(choices) + 0.1 * noise)
    for _ in range(3):  # scales climb from where they are
        fit.counts[3] = 0
        benefits = fit.fit(controller.probabilities())
    assert benefits.signal > 0.99
    assert np.abs(benefits.mean + np.where(controller.exists, EFFECTS, 0.0)).max() < 0.15
    np.testing.assert_allclose(fit.predict(EVERYTHING), losses_of(EVERYTHING), atol=0.2)
    np.testing.assert_allclose(np.sqrt(fit.noise), 0.1, rtol=0.15)


def test_the_posterior_is_that_of_regression_on_choices_and_pairs() -> None:
    controller, choices = Controller((2, 2, 3), 1, lr=0.1), drawn(30)[:, [0, 2, 1]]
    fit, values = PosteriorFit(controller), np.random.default_rng(3).normal(size=(30, 1))
    fit.learn(choices, values)
    fit.counts[3] = 1000  # scales stay
    benefits = fit.fit(controller.probabilities())
    x = np.column_stack([choices[:, 0] == 1, choices[:, 1] == 1, choices[:, 2] == 1, choices[:, 2] == 2])
    x = x - np.array([1 / 2, 1 / 2, 1 / 3, 1 / 3])
    pairs = [x[:, f] * x[:, g] for f, g in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3))]
    effect, pair = np.exp(fit.log_effect[0]), np.exp(fit.log_pair[0])
    design = np.column_stack([x, *pairs, np.ones(30)])
    prior = np.diag([effect] * 4 + [effect * pair] * 5 + [LEVEL_VARIANCE])
    prior[:4, :4] += effect * COMMON_VARIANCE
    inverse = np.linalg.inv(design.T @ design + np.linalg.inv(prior))
    coefficients = inverse @ design.T @ (values[:, 0] - values.mean())
    # Policies are uniform, so other features are 0 on average, and benefits are the coefficients of single choices.
    np.testing.assert_allclose(-benefits.mean[0, [0, 1, 2, 2], [1, 1, 1, 2]], coefficients[:4], atol=1e-9)
    sd = np.sqrt(np.diag(inverse)[:4] * fit.noise[0])
    np.testing.assert_allclose(benefits.sd[0, [0, 1, 2, 2], [1, 1, 1, 2]], sd)
    np.testing.assert_allclose(fit.predict(choices)[:, 0], design @ coefficients + values.mean(), atol=1e-9)


def test_benefits_are_computed_under_the_policy() -> None:
    """Two variables of which each helps only beside the other."""
    controller = Controller((2, 2), 1, lr=0.1)
    choices = np.random.default_rng(0).integers(0, 2, (400, 2))
    fit = PosteriorFit(controller)
    fit.learn(choices, -1.0 * choices.prod(1, keepdims=True) + 0.1 * np.random.default_rng(1).normal(size=(400, 1)))
    controller.set_policy(0, np.array([[0.9, 0.1], [0.2, 0.8]]))
    np.testing.assert_allclose(fit.fit(controller.probabilities()).mean[0, :, 1], [0.8, 0.1], atol=0.1)


def test_variables_that_do_not_matter_have_features_of_0() -> None:
    controller = Controller((2, 2), 1, lr=0.1)
    choices, fit = np.random.default_rng(0).integers(0, 2, (100, 2)), PosteriorFit(controller)
    matters = np.broadcast_to(np.array([True, False]), (100, 1, 2))
    fit.learn(choices, choices @ np.array([[1.0], [1.0]]) * 1.0, matters)
    assert not fit._features(choices, fit.matters[:100, 0])[:, 1].any()
    assert fit.fit(controller.probabilities()).needed.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_without_signal_a_signal_is_unlikely(scale: float) -> None:
    controller, rng = Controller([2] * 20, TASKS, lr=0.1), np.random.default_rng(0)
    fit = PosteriorFit(controller)
    fit.learn(rng.integers(0, 2, (450, 20)), scale * rng.normal(size=(450, TASKS)))
    benefits = fit.fit(controller.probabilities())
    assert benefits.signal < 0.3
    assert np.abs(benefits.mean).max() < 0.1 * scale


def test_a_task_without_losses_has_no_benefits() -> None:
    controller, choices = Controller(COUNTS, TASKS, lr=0.1), drawn(50)
    fit = PosteriorFit(controller)
    fit.learn(choices, np.column_stack([np.full(50, np.nan), losses_of(choices)[:, 1]]))
    benefits = fit.fit(controller.probabilities())
    assert not benefits.mean[0].any()
    assert benefits.mean[1].any()


def test_the_oldest_draws_are_forgotten() -> None:
    fit, choices = PosteriorFit(Controller(COUNTS, 1, lr=0.1), capacity=16), drawn(20)
    for row in range(20):
        fit.learn(choices[[row]], np.array([[float(row)]]))
    assert fit.counts[:2].tolist() == [16, 20]
    assert fit.values[:, 0].tolist() == list(range(4, 20))
    np.testing.assert_array_equal(fit.choices, choices[4:])
