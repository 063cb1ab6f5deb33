"""Baselines: expected losses, subtracted before REINFORCE to remove the dependence of a loss on its images.

A baseline must be fixed before the architecture is drawn; then the gradient is unbiased for any baseline
(Williams, Machine Learning 8, 1992). A good one lowers its variance, as a control variate does (Greensmith, Bartlett
and Baxter, Journal of Machine Learning Research 5, 2004).

Shape legend: T tasks, K architectures that ran on the same images, N images.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.reinforce.controller import Floats


class Baseline(Protocol):
    """Estimates expected losses."""

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        """[K, T]: mean loss less the expected one, computed before the baseline is updated; nan if either is unknown.

        Args:
            losses: [K, N, T], of each image; nan where it lacks the task's labels.
            images: [N], the index of each image among the held-out images.
        """

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint stores; loading one writes to them in place."""


class MovingAverage:
    """A moving average of each task's mean loss: the reference estimator's baseline."""

    def __init__(self, tasks: int, *, decay: float = 0.9) -> None:
        self.decay = decay
        self.mean: Floats = np.full(tasks, np.nan)
        """[T]; nan until the task's first loss."""

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        """See ``Baseline``; nan for a task's first loss, which has nothing to be compared with."""
        means = nanmean(losses, axis=1)
        advantages = means - self.mean
        self.mean[:] = ema_update(self.mean, nanmean(means, axis=0), self.decay)
        return advantages

    def state(self) -> dict[str, Floats]:
        return {"mean": self.mean}


class ImageBaseline:
    """A moving average of each image's own losses, and of the change of all of them since.

    A loss depends far more on the images than on the architecture. Subtracting each image's usual loss removes that
    dependence. The weights are trained meanwhile, which lowers the losses of all images alike; a moving average of the
    differences removes this drift. An image without an earlier loss has nothing to be compared with and is left out.
    """

    def __init__(self, images: int, tasks: int, *, decay: float = 0.6, drift_decay: float = 0.9) -> None:
        self.decay = decay
        self.means: Floats = np.full((images, tasks), np.nan)
        """[images, T]; nan until the image's first loss."""
        self.drift = MovingAverage(tasks, decay=drift_decay)

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        """See ``Baseline``."""
        advantages = self.drift.advantages(losses - self.means[images], images)
        self.means[images] = ema_update(self.means[images], nanmean(losses, axis=0), self.decay)
        return advantages

    def state(self) -> dict[str, Floats]:
        return {"means": self.means, "drift": self.drift.mean}


def nanmean(values: Floats, *, axis: int) -> Floats:
    """Mean along an axis of the values that are not nan; nan where all are, without numpy's warning."""
    valid = ~np.isnan(values)
    count = valid.sum(axis=axis)
    total = np.where(valid, values, 0.0).sum(axis=axis)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def ema_update(average: Floats, value: Floats, decay: float) -> Floats:
    """The exponential moving average updated with ``value``; nan in either means that there is none yet."""
    updated = np.where(np.isnan(average), value, decay * average + (1 - decay) * value)
    return np.where(np.isnan(value), average, updated)
