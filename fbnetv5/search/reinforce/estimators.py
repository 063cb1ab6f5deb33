"""Estimates of the gradient of ``E[l^t(a)]`` with respect to every task's policy, from passes of the supernet.

All are REINFORCE; they differ in which architectures run and in how they get rid of noise. The default stores what it
sees in a posterior fit, from which policies follow in closed form (``closed_form.py``); its gradient is of what the fit
leaves unexplained. ``benchmarks/estimators.py`` and ``benchmarks/race.py`` compare them, docs/search.md has what was
found.

Shape legend: T tasks, S variables, C most choices of any variable, K architectures on the same images, N images.
"""

from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.reinforce.baselines import Baseline, ImageBaseline, MovingAverage, mean_of_known
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.posterior import Benefits, Mask, PosteriorFit
from fbnetv5.spaces.space import Choices


class Estimator(Protocol):
    """Chooses which architectures a step runs, and estimates the policies' gradient from their losses."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        """[K, S]: the architectures of a step."""

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        """[K, T]: what each architecture counts for each task; 1 in expectation, summed over K."""

    def estimate(
        self,
        controller: Controller,
        choices: Choices,
        losses: Floats,
        images: NDArray[np.int64],
        matters: Mask | None = None,
    ) -> Floats:
        """The gradient [T, S, C], before learning from the losses; a task without a known loss gets 0.

        Args:
            controller: holds the policies.
            choices: [K, S], from ``draw`` under the same policies.
            losses: [K, N, T], of each image; nan where it lacks the task's labels.
            images: [N], the index of each image in the held-out part.
            matters: [K, T, S], whether the task's loss depends on the variable, given the other variables' choices;
                None if all may.
        """

    @property
    def closed_form(self) -> bool:
        """Whether policies follow from ``benefits`` in closed form; else they step along the gradient."""

    def benefits(self, controller: Controller) -> Benefits | None:
        """What choices bring, if there is a fit and a new one is due."""

    def expected(self, choices: Choices, task: int) -> Floats:
        """[K]: a task's losses that architectures are expected to have, up to a constant; all 0 without an opinion."""

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The arrays that a checkpoint keeps; they are written to in place when it is read."""


class OnePass:
    """One architecture from the policies' mixture serves all tasks, importance weights correct for the others' draws.

    With a fit, the gradient is of what the fit does not explain.
    """

    def __init__(self, baseline: Baseline, fit: PosteriorFit | None = None) -> None:
        self.baseline = baseline
        self.fit = fit

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return controller.propose(rng)[None]

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return controller.importance(choices) / len(choices)

    def estimate(
        self,
        controller: Controller,
        choices: Choices,
        losses: Floats,
        images: NDArray[np.int64],
        matters: Mask | None = None,
    ) -> Floats:
        weights = self.weights(controller, choices)
        if self.fit is None:
            return reinforce(controller, choices, weights * self.baseline.advantages(losses, images), matters)
        expected = self.fit.predict(choices, matters)
        # The baseline learns from what is left too, or it would take an image for hard that met poor architectures.
        advantages = self.baseline.advantages(losses - expected[:, None], images)
        self.fit.learn(choices, advantages + expected, matters)
        return reinforce(controller, choices, weights * advantages, matters)

    @property
    def closed_form(self) -> bool:
        return self.fit is not None

    def benefits(self, controller: Controller) -> Benefits | None:
        if self.fit is None or not self.fit.due:
            return None
        return self.fit.fit(controller.probabilities())

    def expected(self, choices: Choices, task: int) -> Floats:
        return np.zeros(len(choices)) if self.fit is None else self.fit.predict(choices)[:, task]

    def state(self) -> dict[str, NDArray[np.generic]]:
        found: dict[str, NDArray[np.generic]] = {
            f"baseline.{name}": array for name, array in self.baseline.state().items()
        }
        if self.fit is not None:
            found |= {f"fit.{name}": array for name, array in self.fit.state().items()}
        return found


class Pair(OnePass):
    """Two architectures on the same images, each the other's baseline: their difference is free of the images."""

    def __init__(self) -> None:
        super().__init__(_Nothing())

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return np.stack([controller.propose(rng), controller.propose(rng)])

    def estimate(
        self,
        controller: Controller,
        choices: Choices,
        losses: Floats,
        images: NDArray[np.int64],
        matters: Mask | None = None,
    ) -> Floats:
        return super().estimate(controller, choices, losses - losses[::-1], images, matters)


class PerTask(OnePass):
    """The peer with a pass per task: every task learns from an architecture of its own policy, and from no other."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return np.concatenate([controller.sample(task, 1, rng) for task in range(controller.tasks)])

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return np.eye(controller.tasks)

    def estimate(
        self,
        controller: Controller,
        choices: Choices,
        losses: Floats,
        images: NDArray[np.int64],
        matters: Mask | None = None,
    ) -> Floats:
        kept: Floats = np.full((controller.tasks, 1, controller.tasks), np.nan)
        kept[range(controller.tasks), :, range(controller.tasks)] = 0.0
        return super().estimate(controller, choices, losses + kept, images, matters)


class _Nothing:
    """The baseline of losses that need none."""

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        return mean_of_known(losses, axis=1)

    def state(self) -> dict[str, Floats]:
        return {}


def reinforce(controller: Controller, choices: Choices, weighted: Floats, matters: Mask | None = None) -> Floats:
    """``sum_k weighted_kt d log p_t(a_k)`` [T, S, C], of architectures [K, S]; nan weighs nothing.

    The score of a variable that does not matter, given the others, is 0 in expectation and is left out: ``matters`` is
    [K, T, S].
    """
    weights = np.where(np.isnan(weighted), 0.0, weighted)
    columns = []
    for task in range(controller.tasks):
        score = controller.score(choices, task)
        if matters is not None:
            score = score * matters[:, task, :, None]
        columns.append(np.tensordot(weights[:, task], score, axes=1))
    return np.stack(columns)


EstimatorName = Literal["control", "image", "average", "pair", "per-task"]
"""The default first; "average" is the reference."""
ESTIMATORS: tuple[EstimatorName, ...] = get_args(EstimatorName)


def make_estimator(kind: EstimatorName, controller: Controller, *, images: int) -> Estimator:
    """The estimator of that kind, one of ``ESTIMATORS``, for a held-out part of so many images."""
    tasks = controller.tasks
    if kind == "average":
        return OnePass(MovingAverage(tasks))
    if kind == "pair":
        return Pair()
    baseline = ImageBaseline(images, tasks)
    if kind == "per-task":
        return PerTask(baseline)
    if kind == "image":
        return OnePass(baseline)
    return OnePass(baseline, PosteriorFit(controller))
