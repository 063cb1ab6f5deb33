import numpy as np
import pytest

from fbnetv5.search.reinforce.controller import Controller
from fbnetv5.search.reinforce.noise import Noise


def test_statistics_are_nan_before_the_first_step() -> None:
    noise = Noise(Controller((2, 2), 2, lr=0.1))
    assert np.isnan(noise.effective_samples).all()
    assert np.isnan(noise.gradient_variance).all()


def test_equal_weights_have_an_effective_sample_size_of_their_number() -> None:
    noise = Noise(Controller((2, 2), 2, lr=0.1))
    for _ in range(20):
        noise.update(np.full((4, 2), 0.25), np.zeros((2, 2, 2)))
    np.testing.assert_allclose(noise.effective_samples, 4.0)


def test_a_task_that_proposes_every_third_draw_has_a_third_of_a_sample() -> None:
    noise = Noise(Controller((2, 2), 1, lr=0.1))
    for step in range(900):
        noise.update(np.array([[3.0 if step % 3 == 0 else 0.0]]), np.zeros((1, 2, 2)))
    np.testing.assert_allclose(noise.effective_samples, 1 / 3, rtol=0.05)


def test_variance_is_summed_over_logits() -> None:
    noise, rng = Noise(Controller((2, 2), 2, lr=0.1)), np.random.default_rng(0)
    variances = []
    for _ in range(600):
        noise.update(np.ones((1, 2)), 7.0 + np.array([1.0, 3.0])[:, None, None] * rng.normal(size=(2, 2, 2)))
        variances.append(noise.gradient_variance)
    np.testing.assert_allclose(np.mean(variances[100:], axis=0), [4.0, 36.0], rtol=0.1)


def test_a_steady_gradient_has_no_variance() -> None:
    noise = Noise(Controller((2, 2), 1, lr=0.1))
    for _ in range(3):
        noise.update(np.ones((1, 1)), np.full((1, 2, 2), 5.0))
    assert noise.gradient_variance[0] == pytest.approx(0.0, abs=1e-12)
