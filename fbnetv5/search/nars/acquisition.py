"""The choice of the next trainings from the pool by a fitted ensemble.

Shape legend: B pairs of the pool, S variables of the space, R of the recipe.
"""

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.nars.predictor import Ensemble
from fbnetv5.spaces.space import Choices


def choose(ensemble: Ensemble, pool: Choices, trained: Choices, count: int, *, method: str, seed: int) -> Choices:
    """The pairs of the pool to train next, at most ``count``.

    Args:
        ensemble: fitted to the trainings so far.
        pool: [B, S + R].
        trained: pairs that are not chosen again.
        count: of pairs.
        method: "greedy" takes the highest predictions of all members (FBNetV3, arXiv 2006.02049). "thompson" takes, for
            each pair, the highest prediction of a random member (Thompson, Biometrika 25, 1933).
        seed: of the members' draws.
    """
    candidates = without(pool, trained)
    if method == "greedy":
        return candidates[np.argsort(-ensemble(candidates), kind="stable")[:count]]
    predictions, generator = ensemble.quantiles(candidates), np.random.default_rng([seed, 4])
    return candidates[_thompson(predictions, min(count, len(candidates)), generator)]


def _thompson(predictions: NDArray[np.float64], count: int, generator: np.random.Generator) -> list[int]:
    """Columns of predictions [M, B]: each time the best one, not taken yet, of a random row."""
    remaining = predictions.copy()
    chosen = []
    for member in generator.integers(len(predictions), size=count):
        chosen.append(int(remaining[member].argmax()))
        remaining[:, chosen[-1]] = -np.inf
    return chosen


def without(pool: Choices, taken: Choices) -> Choices:
    """The pairs of the pool that are not among those taken."""
    seen = {tuple(pair) for pair in taken.tolist()}
    return pool[[tuple(pair) not in seen for pair in pool.tolist()]]
