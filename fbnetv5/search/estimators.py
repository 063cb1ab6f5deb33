"""Estimates of the gradient of ``E[l^t(a)]`` with respect to every task's policy, from passes of the supernet.

All are REINFORCE; they differ in which architectures run and in how they get rid of noise. ``benchmarks/estimators.py``
and ``benchmarks/race.py`` compare them, docs/search.md says what was found.

Shape legend: T tasks, S slots, C most choices of any slot, K architectures on the same pictures, N pictures.
"""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.additive import AdditiveFit
from fbnetv5.search.baselines import Baseline, MovingAverage, PictureBaseline, mean_of_known
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.space import Choices

DAMPING = 0.25
"""Least weight of what the additive fit does not explain, in the estimator called "damped"."""
FULL_AFTER = 2000
"""Draws after which it counts in full there, growing in proportion to them."""


class Estimator(Protocol):
    """Says which architectures a step runs, and what their losses tell about the policies."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        """[K, S]: the architectures of a step."""

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        """[K, T]: what each architecture counts for each task; 1 in expectation, summed over K."""

    def gradient(self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        """The estimate [T, S, C], before learning from the losses; a task without a known loss gets 0.

        Args:
            controller: holds the policies.
            choices: [K, S], from ``draw`` under the same policies.
            losses: [K, N, T], of each picture; nan where it lacks the task's labels.
            pictures: [N], which pictures of the held-out part they are.
        """

    def expected(self, choices: Choices, task: int) -> Floats:
        """[K]: a task's losses that architectures are expected to have, up to a constant; all 0 without an opinion."""

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint keeps; they are written to in place when it is read."""


class OnePass:
    """One architecture from the policies' mixture serves all tasks, importance weights say how far.

    With a fit, REINFORCE learns from what the fit leaves unexplained and the fit's exact gradient is added: unbiased,
    as long as the unexplained part has its weight of 1. A smaller weight trades its noise for a bias, the rest of the
    gradient of the unexplained; the weight can grow with the draws that the fit has learned from, so that a search
    starts with little noise and ends without bias.
    """

    def __init__(
        self,
        baseline: Baseline,
        fit: AdditiveFit | None = None,
        *,
        unexplained: float = 1.0,
        full_after: float = math.inf,
    ) -> None:
        self.baseline = baseline
        self.fit = fit
        self.unexplained = unexplained
        """Least weight of what the fit leaves unexplained."""
        self.full_after = full_after
        """Draws after which that weight is 1; before, it is their share if that is more than the least."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return controller.propose(rng)[None]

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return controller.importance(choices) / len(choices)

    def gradient(self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        weights = self.weights(controller, choices)
        if self.fit is None:
            return reinforce(controller, choices, weights * self.baseline.advantages(losses, pictures))
        expected = self.fit.predict(choices)
        # The baseline learns from what is left too, or it would take a picture for hard that met poor architectures.
        advantages = self.baseline.advantages(losses - expected[:, None], pictures)
        unexplained = np.clip(self.fit.seen / self.full_after, self.unexplained, 1.0)
        gradient = reinforce(controller, choices, unexplained * weights * advantages)
        unknown = np.isnan(mean_of_known(advantages, axis=0))
        gradient += np.where(unknown[:, None, None], 0.0, self.fit.gradient(controller))
        self.fit.learn(choices, advantages + expected)
        return gradient

    def expected(self, choices: Choices, task: int) -> Floats:
        return np.zeros(len(choices)) if self.fit is None else self.fit.predict(choices)[:, task]

    def state(self) -> dict[str, Floats]:
        found = {f"baseline.{name}": array for name, array in self.baseline.state().items()}
        if self.fit is not None:
            found |= {f"fit.{name}": array for name, array in self.fit.state().items()}
        return found


class Pair(OnePass):
    """Two architectures on the same pictures, each the other's baseline: their difference is free of the pictures."""

    def __init__(self) -> None:
        super().__init__(_Nothing())

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return np.stack([controller.propose(rng), controller.propose(rng)])

    def gradient(self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        return super().gradient(controller, choices, losses - losses[::-1], pictures)


class PerTask(OnePass):
    """The peer with a pass per task: every task learns from an architecture of its own policy, and from no other."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return np.concatenate([controller.sample(task, 1, rng) for task in range(controller.tasks)])

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return np.eye(controller.tasks)

    def gradient(self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        kept: Floats = np.full((controller.tasks, 1, controller.tasks), np.nan)
        kept[range(controller.tasks), :, range(controller.tasks)] = 0.0
        return super().gradient(controller, choices, losses + kept, pictures)


class _Nothing:
    """The baseline of losses that need none."""

    def advantages(self, losses: Floats, pictures: NDArray[np.int64]) -> Floats:
        return mean_of_known(losses, axis=1)

    def state(self) -> dict[str, Floats]:
        return {}


def reinforce(controller: Controller, choices: Choices, weighted: Floats) -> Floats:
    """``sum_k weighted_kt d log p_t(a_k)`` [T, S, C], of architectures [K, S]; nan weighs nothing."""
    weights = np.where(np.isnan(weighted), 0.0, weighted)
    columns = [np.tensordot(weights[:, t], controller.score(choices, t), axes=1) for t in range(controller.tasks)]
    return np.stack(columns)


ESTIMATORS = ("damped", "control", "picture", "average", "pair", "per-task")
"""The default first; "average" is the reference."""


def make_estimator(kind: str, controller: Controller, *, pictures: int) -> Estimator:
    """The estimator of that kind, one of ``ESTIMATORS``, for a held-out part of so many pictures."""
    tasks = controller.tasks
    if kind == "average":
        return OnePass(MovingAverage(tasks))
    if kind == "pair":
        return Pair()
    baseline = PictureBaseline(pictures, tasks)
    if kind == "picture":
        return OnePass(baseline)
    if kind == "per-task":
        return PerTask(baseline)
    fit = AdditiveFit(controller)
    if kind == "control":
        return OnePass(baseline, fit)
    return OnePass(baseline, fit, unexplained=DAMPING, full_after=FULL_AFTER)
