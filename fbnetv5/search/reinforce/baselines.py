"""What is subtracted from losses before REINFORCE, so that a draw is judged by its architecture, not by its images.

A baseline must be fixed before the architecture is drawn; the estimates are then unbiased whatever it is.

Shape legend: T tasks, K architectures that ran on the same images, N images.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.reinforce.controller import Floats


class Baseline(Protocol):
    """What losses are expected to be."""

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        """How much worse than expected each task fared, [K, T], before learning from it; nan where that is not known.

        Args:
            losses: [K, N, T], of each image; nan where it lacks the task's labels.
            images: [N], the index of each image in the held-out part.
        """

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint keeps; they are written to in place when it is read."""


class MovingAverage:
    """A moving average of each task's mean loss: the reference."""

    def __init__(self, tasks: int, *, decay: float = 0.9) -> None:
        self.decay = decay
        self.mean: Floats = np.full(tasks, np.nan)
        """[T]; nan until the task's first loss."""

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        """See ``Baseline``. A task's first loss has nothing to be compared with."""
        means = mean_of_known(losses, axis=1)
        advantages = means - self.mean
        self.mean[:] = moved(self.mean, mean_of_known(means, axis=0), self.decay)
        return advantages

    def state(self) -> dict[str, Floats]:
        return {"mean": self.mean}


class ImageBaseline:
    """A moving average of each image's own losses, and of how far all of them have drifted since.

    A draw's loss says far more about its images than about its architecture. Subtracting what each image usually
    costs removes that; the weights learn meanwhile, which lowers all images alike, and a moving average of the
    differences removes that too. An image met for the first time has nothing to be compared with and is left out.
    """

    def __init__(self, images: int, tasks: int, *, decay: float = 0.6, drift_decay: float = 0.9) -> None:
        self.decay = decay
        self.means: Floats = np.full((images, tasks), np.nan)
        """[images, T]; nan until the image's first loss."""
        self.drift = MovingAverage(tasks, decay=drift_decay)

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        """See ``Baseline``."""
        found = self.drift.advantages(losses - self.means[images], images)
        self.means[images] = moved(self.means[images], mean_of_known(losses, axis=0), self.decay)
        return found

    def state(self) -> dict[str, Floats]:
        return {"means": self.means, "drift": self.drift.mean}


def mean_of_known(values: Floats, *, axis: int) -> Floats:
    """Mean along an axis of what is not nan; nan where all is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def moved(average: Floats, value: Floats, decay: float) -> Floats:
    """The moving average after ``value``; nan stands for "none yet" in either."""
    both = np.where(np.isnan(average), value, decay * average + (1 - decay) * value)
    return np.where(np.isnan(value), average, both)
