"""How well a predictor predicts trainings that it was not fitted to, and how early a ranking is final.

Shape legend: N trainings, K evaluations, S + R variables.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from fbnetv5.search.nars.predictor import Ensemble
from fbnetv5.spaces.space import Choices

FOLDS = 5
INTERVAL = 1.2816
"""Standard deviations on both sides of the mean that have 80 % of a normal distribution."""

Fit = Callable[[Choices, NDArray[np.float64]], Ensemble]
"""Pairs [N, S + R] and their scores [N] -> a fitted ensemble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Predictions of trainings that were held out of the fit, beside their scores."""

    trainings: int
    tau: float
    """Kendall's tau of scores and predictions, each prediction less the median score of the trainings of its fit; 0
    where it is not defined. A high score that is held out lowers that median, which a predictor that knows nothing
    predicts, so the predictions themselves would then have a negative tau."""
    mean_absolute_error: float
    """In the metric."""
    coverage: float
    """Share of the scores inside the 80 % interval of the members' spread."""
    spread_factor: float
    """Root mean square of the errors over that of the members' standard deviations: the factor that calibrates these
    on average; 0 where it is not defined, because the members never differ."""

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def cross_validate(fit: Fit, pairs: Choices, scores: NDArray[np.float64], *, seed: int) -> Quality:
    """Fit to all but one fold of the trainings, predict the trainings of this fold, for every fold.

    Args:
        fit: of an ensemble.
        pairs: [N, S + R].
        scores: [N].
        seed: of the folds.
    """
    order = np.random.default_rng([seed, 3]).permutation(len(scores))
    means, deviations, learned = np.zeros((3, len(scores)))
    for fold in np.array_split(order, min(FOLDS, len(scores))):
        others = np.setdiff1d(order, fold)
        ensemble = fit(pairs[others], scores[others])
        means[fold], deviations[fold] = ensemble(pairs[fold]), ensemble.predictions(pairs[fold]).std(axis=0)
        learned[fold] = np.median(scores[others])
    errors = np.abs(scores - means)
    disagreement = root_mean_square(deviations)
    tau = float(kendalltau(means - learned, scores).statistic)
    return Quality(
        trainings=len(scores),
        tau=tau if np.isfinite(tau) else 0.0,
        mean_absolute_error=float(errors.mean()),
        coverage=float((errors <= INTERVAL * deviations).mean()),
        spread_factor=root_mean_square(errors) / disagreement if disagreement else 0.0,
    )


def root_mean_square(values: NDArray[np.float64]) -> float:
    """The root of the mean of squares."""
    return float(np.sqrt(np.square(values).mean()))


def rank_correlations(curves: NDArray[np.float64]) -> list[float]:
    """Spearman's correlation of the scores at each of K evaluations with those at the last: [N, K] -> K values."""
    return [_spearman(curves[:, column], curves[:, -1]) for column in range(curves.shape[1])]


def stop_step(steps: Sequence[int], curves: NDArray[np.float64], threshold: float) -> int:
    """The first of K steps whose scores [N, K] rank the trainings almost as the last scores do (FBNetV3, section 3.3).

    From this step on, every evaluation must correlate above ``threshold`` with the last: a single one could do so by
    chance.
    """
    correlations = rank_correlations(curves)
    first = len(steps) - 1
    while first > 0 and correlations[first - 1] > threshold:
        first -= 1
    return steps[first]


def _spearman(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; 0 where it is not defined, because all values of a side are equal."""
    if len(set(left.tolist())) < 2 or len(set(right.tolist())) < 2:
        return 0.0
    return float(spearmanr(left, right).statistic)
