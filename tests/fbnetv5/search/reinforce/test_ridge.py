import numpy as np
import pytest

from fbnetv5.search.reinforce.ridge import STRENGTHS, Floats, fit_ridge


def draw(signal: float, seed: int, *, rows: int = 200, columns: int = 30) -> tuple[Floats, Floats, Floats]:
    """Features, values and true effects; the noise has a standard deviation of 1."""
    rng = np.random.default_rng(seed)
    features, effects = rng.integers(0, 2, (rows, columns)).astype(float), signal * rng.normal(size=columns)
    return features, features @ effects + rng.normal(size=rows), effects


def test_mean_and_covariance_are_the_normal_equations() -> None:
    features, values, _ = draw(0.5, 0)
    posterior = fit_ridge(features, values, np.zeros(200, dtype=np.int64))
    centred = features - features.mean(0)
    precision = centred.T @ centred + posterior.strength * np.eye(30)
    np.testing.assert_allclose(posterior.effects, np.linalg.solve(precision, centred.T @ (values - values.mean())))
    np.testing.assert_allclose(posterior.covariance, posterior.noise**2 * np.linalg.inv(precision), atol=1e-12)


def test_the_strength_maximises_the_marginal_likelihood() -> None:
    features, values, _ = draw(0.3, 1)
    posterior = fit_ridge(features, values, np.zeros(200, dtype=np.int64))
    # Independently: the density of the values' contrasts under N(0, s2 (I + X X' / strength)), s2 profiled out.
    contrasts = np.linalg.svd(np.eye(200) - 1 / 200)[0][:, :199].T

    def evidence(strength: float) -> float:
        covariance = contrasts @ (np.eye(200) + features @ features.T / strength) @ contrasts.T
        y = contrasts @ values
        variance = y @ np.linalg.solve(covariance, y) / 199
        return float(-0.5 * (np.linalg.slogdet(covariance)[1] + 199 * np.log(variance)))

    assert evidence(posterior.strength) >= max(evidence(strength) for strength in STRENGTHS[::4])
    assert posterior.evidence == pytest.approx(evidence(posterior.strength) - evidence(np.inf))


def test_without_a_signal_effects_are_nearly_0() -> None:
    sizes, evidence = [], []
    for seed in range(40):
        features, values, _ = draw(0.0, seed)
        posterior = fit_ridge(features, values, np.zeros(200, dtype=np.int64))
        sizes.append(np.abs(posterior.effects).max())
        evidence.append(posterior.evidence)
    # Least squares has a median of .35.
    assert np.median(sizes) < 0.05
    assert max(sizes) < 0.25
    assert max(evidence) < 3


@pytest.mark.parametrize("seed", range(3))
def test_effects_are_found_within_their_errors(seed: int) -> None:
    features, values, effects = draw(1.0, seed)
    posterior = fit_ridge(features, values, np.zeros(200, dtype=np.int64))
    z = (posterior.effects - effects) / np.sqrt(np.diag(posterior.covariance))
    assert np.abs(z).max() < 4.5
    assert 0.5 < z.std() < 1.6


def test_levels_of_groups_do_not_change_effects() -> None:
    features, values, _ = draw(1.0, 0)
    groups = np.arange(200) % 4
    shifted = fit_ridge(features, values + 100 * groups, groups)
    np.testing.assert_allclose(shifted.effects, fit_ridge(features, values, groups).effects, atol=1e-9)


def test_samples_have_the_posterior_moments() -> None:
    posterior = fit_ridge(*draw(1.0, 0)[:2], np.zeros(200, dtype=np.int64))
    drawn = posterior.sample(20000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), posterior.effects, atol=0.01)
    np.testing.assert_allclose(np.cov(drawn.T), posterior.covariance, atol=0.003)


def test_without_observations_effects_are_0() -> None:
    posterior = fit_ridge(np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert not posterior.effects.any()


SETS: Floats = np.kron(np.eye(5), np.ones((6, 1))).astype(np.float64)
"""Thirty features in five sets."""


def draw_related(own: float, common: float, seed: int, *, rows: int = 200) -> tuple[Floats, Floats, Floats]:
    """Features, values and true effects: own ones and those of the sets, with these standard deviations."""
    features, values, _ = draw(0.0, seed, rows=rows)
    rng = np.random.default_rng([seed, 1])
    effects = own * rng.normal(size=30) + SETS @ (common * rng.normal(size=5))
    return features, values + features @ effects, effects


def test_mean_and_covariance_have_the_prior_of_related_features() -> None:
    features, values, _ = draw_related(0.2, 0.4, 0)
    posterior = fit_ridge(features, values, np.zeros(200, dtype=np.int64), SETS)
    assert posterior.set_scale > 0
    prior = (np.eye(30) + posterior.set_scale**2 * SETS @ SETS.T) / posterior.strength
    centred = features - features.mean(0)
    precision = centred.T @ centred + np.linalg.inv(prior)
    np.testing.assert_allclose(posterior.effects, np.linalg.solve(precision, centred.T @ (values - values.mean())))
    np.testing.assert_allclose(posterior.covariance, posterior.noise**2 * np.linalg.inv(precision), atol=1e-12)


def test_effects_in_common_are_found_with_less_error() -> None:
    errors = []
    for seed in range(10):
        features, values, effects = draw_related(0.05, 0.3, seed)
        fits = [fit_ridge(features, values, np.zeros(200, dtype=np.int64), related) for related in (None, SETS)]
        errors.append([np.abs(fit.effects - effects).mean() for fit in fits])
    without, with_sets = np.mean(errors, axis=0)
    assert with_sets < 0.8 * without


def test_unrelated_effects_cost_little() -> None:
    for seed in range(5):
        features, values, effects = draw(0.5, seed)
        without, with_sets = (fit_ridge(features, values, np.zeros(200, dtype=np.int64), sets) for sets in (None, SETS))
        assert with_sets.set_scale <= 1.0
        assert np.abs(with_sets.effects - effects).mean() < 1.1 * np.abs(without.effects - effects).mean()
