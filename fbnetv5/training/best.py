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
        self._written: dict[str, float] = {}
        """By task, the metric of weights that were stored after the checkpoint that a training resumed from."""
        self._written_step: int | None = None
        """Step of these weights; None without any, or when others have replaced them."""

    def replace(self, scores: Mapping[str, float], step: int) -> bool:
        """Replace the stored scores if these are better; return whether they are. The first ones always are.

        Raises:
            VerificationError: the first ones, which are of the initial weights, are not finite.
        """
        if not self.initial:
            _check_first(scores)
            self.initial = dict(scores)
        elif not self._is_exceeded(scores):
            if step == self._written_step:
                self.scores, self.step = self._written, step
            return False
        self.scores, self.step, self._written_step = dict(scores), step, None
        return True

    def _is_exceeded(self, scores: Mapping[str, float]) -> bool:
        finite = all(math.isfinite(score) for score in scores.values())
        return finite and mean_gain(self.scores, scores, self._metrics) > 0

    def resume(self, scores: Mapping[str, float], step: int) -> None:
        """Take account of weights that were written after the checkpoint whose ``state`` was loaded.

        The evaluation of their step is repeated. Kernels that round differently from run to run, as those of a GPU, may
        then give scores that are not the best; the weights that are stored keep the scores they were stored for.

        Args:
            scores: by task, the metric of the stored weights.
            step: of the stored weights, after that of the checkpoint's best ones.
        """
        self._written, self._written_step = dict(scores), step

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


def _check_first(scores: Mapping[str, float]) -> None:
    """Raise VerificationError if a score of the initial weights is not finite."""
    for name, score in scores.items():
        if not math.isfinite(score):
            raise VerificationError(
                f"the score of {name} before the first step is {score}: the outputs of the initial weights are not "
                "finite. Start again from other weights with --init"
            )


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
