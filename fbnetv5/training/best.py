"""The choice of the best weights of a training by the scores of all tasks on the held-out images.

An evaluation replaces the stored weights if the mean over the tasks of the relative gain over the stored scores is
positive; for one task, if the score is better. The relative gain is that of Delta_m, with one difference: the
denominator is the larger of the two scores, and not the reference. So the gain lies between -1 and 1 even if the
reference is 0, as it often is after a few steps from random weights, and b's gain over a is minus a's gain over b.
A score that is not finite, which outputs that are not finite can cause, replaces none.
"""

import math
from collections.abc import Mapping
from typing import Any

from export.errors import VerificationError
from fbnetv5.tasks.task import MetricInfo, Task


class Best:
    """The scores of the stored weights, and those of the first evaluation."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._metrics = {name: task.metric for name, task in tasks.items()}
        self.scores: dict[str, float] = {}
        """By task, the metric of the stored weights; empty before the first evaluation."""
        self.step = 0
        """Step of the stored weights."""
        self.initial: dict[str, float] = {}
        """By task, the metric at the first evaluation."""

    def replace(self, scores: Mapping[str, float], step: int) -> bool:
        """Replace the stored scores if these are better; return whether they are. The first ones always are.

        Raises:
            VerificationError: the first ones, which are of the initial weights, are not finite.
        """
        unfinite = [name for name, score in scores.items() if not math.isfinite(score)]
        if not self.initial:
            if unfinite:
                raise VerificationError(
                    f"the score of {unfinite[0]} before the first step is {scores[unfinite[0]]}: the outputs of the "
                    "initial weights are not finite. Start again from other weights with --init"
                )
            self.initial = dict(scores)
        elif unfinite or mean_gain(self.scores, scores, self._metrics) <= 0:
            return False
        self.scores, self.step = dict(scores), step
        return True

    def state(self) -> dict[str, Any]:
        """The JSON values of a checkpoint."""
        return {"best": self.scores, "best_step": self.step, "first": self.initial}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore ``state``; older checkpoints have the scores of the only task without its name."""
        scores, first = (
            value if isinstance(value, dict) else dict.fromkeys(self._metrics, value)
            for value in (state["best"], state["first"])
        )
        self.scores, self.step, self.initial = scores, state["best_step"], first


def mean_gain(reference: Mapping[str, float], scores: Mapping[str, float], metrics: Mapping[str, MetricInfo]) -> float:
    """The mean over the tasks of |score - reference| / max(score, reference), negative where the score is worse.

    Scores are finite and not negative; two equal ones count as 0.
    """
    gains = [_gain(reference[name], scores[name], metric) for name, metric in metrics.items()]
    return sum(gains) / len(gains)


def _gain(reference: float, score: float, metric: MetricInfo) -> float:
    """One task's summand of ``mean_gain``."""
    low, high = sorted((reference, score))
    return 0.0 if low == high else math.copysign(1 - low / high, -metric.drop(reference, score))
