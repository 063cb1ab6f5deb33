"""Estimates of the gradient of ``E[l^t(a)]`` with respect to every task's policy, from passes of the supernet.

All are REINFORCE and unbiased; they differ in which architectures run and in how they get rid of noise. Policies may
step along an estimate with its noisy part at a lower rate (``Estimate.direction``). ``benchmarks/estimators.py`` and
``benchmarks/race.py`` compare them, docs/search.md says what was found.

Shape legend: T tasks, S slots, C most choices of any slot, K architectures on the same pictures, N pictures.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.additive import AdditiveFit
from fbnetv5.search.baselines import Baseline, MovingAverage, PictureBaseline, mean_of_known
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.space import Choices

FULL_AFTER = 2000
"""Draws that a fit has learned from when the rate of the sampled addend reaches 1."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of the gradient [T, S, C]: two addends, whose sum is unbiased whatever was learned before the draw.

    That is so for pictures that there is something to compare with; both are 0 for a task without any.
    """

    sampled: Floats
    """[T, S, C]: what the draw says, by REINFORCE."""
    fitted: Floats
    """[T, S, C]: the exact gradient of what a fit to earlier draws expects; 0 without a fit. The draw adds no noise."""
    learned: Floats
    """[T]: how many draws the fit had learned from; infinitely many without a fit."""

    @property
    def gradient(self) -> Floats:
        """[T, S, C]: unbiased."""
        return self.sampled + self.fitted

    def direction(self, sampled_rate: float) -> Floats:
        """[T, S, C]: what a policy steps along; the noisy addend has a rate of its own beside the fit's.

        The rate grows from ``sampled_rate`` to 1 with the draws that the fit has learned from. At first the noise does
        more harm than what the fit leaves unexplained does good; in the end the direction is the estimate itself.
        """
        rate = np.clip(self.learned / FULL_AFTER, sampled_rate, 1.0)
        direction: Floats = rate[:, None, None] * self.sampled + self.fitted
        return direction


class Estimator(Protocol):
    """Says which architectures a step runs, and what their losses tell about the policies."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        """[K, S]: the architectures of a step."""

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        """[K, T]: what each architecture counts for each task; 1 in expectation, summed over K."""

    def estimate(
        self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]
    ) -> Estimate:
        """The estimate, before learning from the losses; a task without a known loss gets 0.

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

    With a fit, REINFORCE learns from what the fit leaves unexplained and the fit's exact gradient is added.
    """

    def __init__(self, baseline: Baseline, fit: AdditiveFit | None = None) -> None:
        self.baseline = baseline
        self.fit = fit

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return controller.propose(rng)[None]

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return controller.importance(choices) / len(choices)

    def estimate(
        self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]
    ) -> Estimate:
        weights = self.weights(controller, choices)
        if self.fit is None:
            sampled = reinforce(controller, choices, weights * self.baseline.advantages(losses, pictures))
            return Estimate(sampled, np.zeros_like(sampled), np.full(controller.tasks, np.inf))
        expected = self.fit.predict(choices)
        # The baseline learns from what is left too, or it would take a picture for hard that met poor architectures.
        advantages = self.baseline.advantages(losses - expected[:, None], pictures)
        unknown = np.isnan(mean_of_known(advantages, axis=0))
        estimate = Estimate(
            reinforce(controller, choices, weights * advantages),
            np.where(unknown[:, None, None], 0.0, self.fit.gradient(controller)),
            self.fit.seen.copy(),
        )
        self.fit.learn(choices, advantages + expected)
        return estimate

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

    def estimate(
        self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]
    ) -> Estimate:
        return super().estimate(controller, choices, losses - losses[::-1], pictures)


class PerTask(OnePass):
    """The peer with a pass per task: every task learns from an architecture of its own policy, and from no other."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return np.concatenate([controller.sample(task, 1, rng) for task in range(controller.tasks)])

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return np.eye(controller.tasks)

    def estimate(
        self, controller: Controller, choices: Choices, losses: Floats, pictures: NDArray[np.int64]
    ) -> Estimate:
        kept: Floats = np.full((controller.tasks, 1, controller.tasks), np.nan)
        kept[range(controller.tasks), :, range(controller.tasks)] = 0.0
        return super().estimate(controller, choices, losses + kept, pictures)


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


ESTIMATORS = ("control", "picture", "average", "pair", "per-task")
"""The default first; "average" is the reference."""


def make_estimator(kind: str, controller: Controller, *, pictures: int) -> Estimator:
    """The estimator of that kind, one of ``ESTIMATORS``, for a held-out part of so many pictures."""
    tasks = controller.tasks
    if kind == "average":
        return OnePass(MovingAverage(tasks))
    if kind == "pair":
        return Pair()
    baseline = PictureBaseline(pictures, tasks)
    if kind == "per-task":
        return PerTask(baseline)
    if kind == "picture":
        return OnePass(baseline)
    if kind == "control":
        return OnePass(baseline, AdditiveFit(controller))
    raise ValueError(f"there is no estimator {kind!r}")
