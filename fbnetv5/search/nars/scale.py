"""The scale on which the predictor learns scores: the normal quantiles of their ranks.

Good scores lie close together and bad ones far apart, so in the unit of the metric a fit mostly learns which trainings
fail. In quantiles of a normal distribution the best trainings differ as much as the worst. With 32 of the stored
trainings of ``benchmarks/nars_trainings.json`` it finds three times as many of the ten best (docs/results.md).

Shape legend: N trainings, K different scores.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The relation of the scores of some trainings and their normal quantiles."""

    quantiles: NDArray[np.float64]
    """[K], increasing."""
    scores: NDArray[np.float64]
    """[K], the different scores in increasing order."""

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> Self:
        """The scale of trainings with scores [N]; equal ones share their mean rank."""
        different, first = np.unique(scores, return_index=True)
        return cls(quantiles=norm.ppf((rankdata(scores)[first] - 0.5) / len(scores)), scores=different)

    def to_quantiles(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of the trainings [N] -> [N]."""
        return self.quantiles[np.searchsorted(self.scores, scores)]

    def to_scores(self, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles of any shape -> scores: linear between those of the trainings, and beyond at their mean slope."""
        if len(self.scores) == 1:
            return np.full_like(quantiles, self.scores[0])
        slope = (self.scores[-1] - self.scores[0]) / (self.quantiles[-1] - self.quantiles[0])
        inside = np.clip(quantiles, self.quantiles[0], self.quantiles[-1])
        scores: NDArray[np.float64] = np.interp(inside, self.quantiles, self.scores) + slope * (quantiles - inside)
        return scores
