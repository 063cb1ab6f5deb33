"""Ridge regression whose strength follows from the data: the posterior of a linear model with a normal prior.

Values are normal around ``level of the group + features @ effects`` with variance ``noise**2``; effects have the prior
N(0, noise**2 / strength). The strength maximises the marginal likelihood (evidence; Bishop, Pattern Recognition and
Machine Learning, 2006, section 3.5), found on a grid in the eigenbasis of the features, where the evidence
of a strength takes O(F). Without a signal the best strength is the grid's largest, and effects are all but zero.

Features may be related: an effect is then the feature's own one plus those of the sets that it belongs to, all normal
a priori (a hierarchical model; Gelman and Hill, Data Analysis Using Regression, 2006, chapter 12). The marginal
likelihood also decides how much related features have in common.

Shape legend: N observations, F features, G groups of observations with a level of their own, H sets of features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STRENGTHS = np.geomspace(1e-2, 1e6, 161)
"""Grid of strengths, the noise variance over the prior variance of a feature's own effect; most features are 0 or 1."""
SET_SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Grid of the prior's standard deviation of the effect of a set, over that of a feature's own effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """The normal distribution of the effects given the observations."""

    effects: Floats
    """[F]: mean."""
    covariance: Floats
    """[F, F]."""
    strength: float
    """Noise variance over the prior variance of a feature's own effect."""
    set_scale: float
    """Prior's standard deviation of the effect of a set, over that of a feature's own effect."""
    noise: float
    """Standard deviation of an observation around its expectation."""
    evidence: float
    """Log of the marginal likelihood over that of no effects, in nats; 0 without observations."""

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        """[count, F] drawn from the posterior."""
        samples: Floats = rng.multivariate_normal(self.effects, self.covariance, size=count, method="eigh")
        return samples


def fit_ridge(features: Floats, values: Floats, groups: NDArray[np.int64], related: Floats | None = None) -> Posterior:
    """The posterior of the effects.

    Args:
        features: [N, F].
        values: [N].
        groups: [N], numbers from 0: observations of a group share a level, which is fitted without a prior.
        related: [F, H], 1 where a feature belongs to a set; None without sets.
    """
    if not len(values):
        return Posterior(
            effects=np.zeros(features.shape[1]),
            covariance=np.zeros((features.shape[1],) * 2),
            strength=STRENGTHS[-1],
            set_scale=0.0,
            noise=0.0,
            evidence=0.0,
        )
    centred, targets = _centred(features, groups), _centred(values[:, None], groups)[:, 0]
    freedom = max(1, len(values) - len(np.unique(groups)))
    fits = [
        _fit(centred, targets, freedom, related, set_scale)
        for set_scale in (SET_SCALES if related is not None else SET_SCALES[:1])
    ]
    return max(fits, key=lambda fit: fit.evidence)


def _fit(features: Floats, values: Floats, freedom: int, related: Floats | None, set_scale: float) -> Posterior:
    """The posterior of the best strength at one scale of sets; features and values are centred."""
    parts = np.eye(features.shape[1])
    if related is not None and set_scale:
        parts = np.concatenate([parts, set_scale * related], axis=1)  # an effect is a sum of independent normal ones
    gram, moments = parts.T @ (features.T @ features) @ parts, parts.T @ (features.T @ values)
    squares, basis = np.linalg.eigh(gram)
    squares, moments = squares.clip(0), basis.T @ moments
    observed = squares > squares.max(initial=0.0) * len(squares) * np.finfo(float).eps  # the others have no observation
    projected = np.where(observed, moments**2 / np.where(observed, squares, 1), 0)  # squared, onto each direction
    unexplained = max(0.0, float(values @ values - projected.sum()))
    shares = STRENGTHS[:, None] / (STRENGTHS[:, None] + squares)  # [grid, F]: the prior's share of each direction
    variances = np.maximum((shares @ projected + unexplained) / freedom, np.finfo(float).tiny)
    of_none = max(float(values @ values) / freedom, np.finfo(float).tiny)
    evidence = 0.5 * (np.log(shares).sum(1) - freedom * (np.log(variances) - np.log(of_none)))
    best = int(evidence.argmax())
    strength, variance = float(STRENGTHS[best]), float(variances[best])
    effects = basis @ (moments / (squares + strength))
    covariance = variance * (basis / (squares + strength)) @ basis.T
    return Posterior(
        effects=parts @ effects,
        covariance=parts @ covariance @ parts.T,
        strength=strength,
        set_scale=set_scale,
        noise=variance**0.5,
        evidence=float(evidence[best]),
    )


def _centred(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Values [N, K] less the mean of each observation's group."""
    sums = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    counts = np.maximum(np.bincount(groups), 1)
    centred: Floats = values - (sums / counts[:, None])[groups]
    return centred
