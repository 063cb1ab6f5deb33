"""Estimates of the policies' gradients.

The objective of task t is ``E[l^t(a)] + lambda_t E[c^t(a)] / budget``. The loss needs a pass of the supernet, so its
gradient is REINFORCE with importance weights on the one architecture that ran for all tasks. The cost is a table
lookup, so its gradient is REINFORCE on fresh draws from the task's own policy, as many as one likes; in expectation the
two together equal REINFORCE on the sum, with less noise.

Shape legend: T tasks, S slots, C choices, K draws.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fbnetv5.cost import CostTable
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.space import Choices


class Baseline(Protocol):
    """What is subtracted from the losses before REINFORCE; it must not depend on the architecture that ran."""

    def advantages(self, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        """How much worse than expected each task fared, [T], before learning from it; nan for a task without labels.

        Args:
            losses: [N, T], of each picture; nan where it lacks the task's labels.
            pictures: [N], which pictures of the held-out part they are.
        """

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint keeps; they are written to in place when it is read."""


class MovingAverage:
    """A moving average of each task's mean loss: the reference."""

    def __init__(self, tasks: int, *, decay: float = 0.9) -> None:
        self.decay = decay
        self.mean: Floats = np.full(tasks, np.nan)
        """[T]; nan until the task's first loss."""

    def advantages(self, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        """See ``Baseline``. A task's first loss has no advantage: 0."""
        means = _mean_of_known(losses)
        known = np.where(np.isnan(self.mean), means, self.mean)
        self.mean[:] = _moved(self.mean, means, self.decay)
        return means - known

    def state(self) -> dict[str, Floats]:
        return {"mean": self.mean}


class PictureBaseline:
    """A moving average of each picture's own losses, and of how far all of them have drifted since.

    A draw's loss says far more about its pictures than about its architecture. Subtracting what each picture usually
    costs removes that; the weights learn meanwhile, which lowers all pictures alike, and a moving average of the
    differences removes that too. A picture met for the first time has nothing to be compared with and is left out.
    """

    def __init__(self, pictures: int, tasks: int, *, decay: float = 0.6, drift_decay: float = 0.9) -> None:
        self.decay = decay
        self.means: Floats = np.full((pictures, tasks), np.nan)
        """[pictures, T]; nan until the picture's first loss."""
        self.drift = MovingAverage(tasks, decay=drift_decay)

    def advantages(self, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        """See ``Baseline``."""
        found = self.drift.advantages(losses - self.means[pictures], pictures)
        self.means[pictures] = _moved(self.means[pictures], losses, self.decay)
        seen = ~np.isnan(losses).all(axis=0)
        return np.where(seen & np.isnan(found), 0.0, found)

    def state(self) -> dict[str, Floats]:
        return {"means": self.means, "drift": self.drift.mean}


BASELINES = ("picture", "average")


def make_baseline(kind: str, *, pictures: int, tasks: int) -> Baseline:
    """The baseline of that kind, one of ``BASELINES``, for a held-out part of so many pictures."""
    return MovingAverage(tasks) if kind == "average" else PictureBaseline(pictures, tasks)


def reinforce(controller: Controller, choices: Choices, advantages: Floats) -> Floats:
    """The gradient's estimate [T, S, C], ``gamma_t A_t d log p_t(a)``, from one architecture [S] and advantages [T].

    Unbiased, when the baseline in the advantages was fixed before the architecture was drawn. A task whose advantage is
    nan learns nothing.
    """
    gamma = controller.importance(choices[None])[0]
    weights = np.where(np.isnan(advantages), 0.0, gamma * advantages)
    scores = np.stack([controller.score(choices[None], task)[0] for task in range(controller.tasks)])
    gradient: Floats = weights[:, None, None] * scores
    return gradient


def _mean_of_known(values: Floats) -> Floats:
    """Mean over the rows of [N, T] that are not nan; nan where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    mean: Floats = np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return mean


def _moved(average: Floats, value: Floats, decay: float) -> Floats:
    """The moving average after ``value``; nan stands for "none yet" in either."""
    moved = np.where(np.isnan(average), value, decay * average + (1 - decay) * value)
    return np.where(np.isnan(value), average, moved)


def cost_gradient(
    controller: Controller, task: int, table: CostTable, rng: np.random.Generator, *, draws: int = 64
) -> tuple[Floats, float]:
    """Gradient [S, C] of a task's expected cost, and the expected cost, from ``draws`` >= 2 of its policy.

    Each draw's baseline is the mean of the others, which keeps the estimate unbiased.
    """
    choices = controller.sample(task, draws, rng)
    costs = table(choices)
    advantage = (costs - costs.mean()) * draws / (draws - 1)
    gradient: Floats = np.tensordot(advantage, controller.score(choices, task), axes=1) / draws
    return gradient, float(costs.mean())
