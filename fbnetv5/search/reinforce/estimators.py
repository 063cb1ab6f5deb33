"""Estimators of the gradient of ``E[l^t(a)]`` with respect to every task's policy, from passes of the supernet.

All are REINFORCE (Williams, Machine Learning 8, 1992); they differ in which architectures run and in how they reduce
variance. The default fits a posterior to the losses, from which policies follow in closed form (``closed_form.py``);
its gradient is of the losses that the fit leaves unexplained. ``benchmarks/estimators.py`` and ``benchmarks/race.py``
compare the estimators, docs/search.md has the results.

Shape legend: T tasks, S variables, C most choices of any variable, K architectures on the same images, N images.
"""

from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.reinforce.baselines import Baseline, ImageBaseline, MovingAverage, nanmean
from fbnetv5.search.reinforce.closed_form import DRAWS_PER_STEEPNESS, MAX_STEEPNESS
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.posterior import Benefits, Mask, PosteriorFit
from fbnetv5.spaces.space import Choices

EXPLORE_AFTER = DRAWS_PER_STEEPNESS * MAX_STEEPNESS
"""Draws per kept choice before some explore: policies in closed form are then as steep as they become."""
EXPLORING = 0.25
"""Share of the later draws that explore, so that what the policies dropped early is still measured."""


class Estimator(Protocol):
    """Chooses which architectures a step runs, and estimates the policies' gradient from their losses."""

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        """[K, S]: the architectures of a step."""

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        """[K, T]: importance weights of architectures for tasks; their sum over K is 1 in expectation."""

    def estimate(
        self,
        controller: Controller,
        choices: Choices,
        losses: Floats,
        images: NDArray[np.int64],
        matters: Mask | None = None,
    ) -> Floats:
        """The gradient [T, S, C], estimated before the estimator learns from the losses; 0 for a task without a loss.

        Args:
            controller: of the policies.
            choices: [K, S], from ``draw`` under the same policies.
            losses: [K, N, T], of each image; nan where it lacks the task's labels.
            images: [N], the index of each image among the held-out images.
            matters: [K, T, S], whether the task's loss depends on the variable, given the other variables' choices;
                None if all do.
        """

    @property
    def closed_form(self) -> bool:
        """Whether policies follow from ``benefits`` in closed form; otherwise they step along the gradient."""

    def benefits(self, controller: Controller) -> Benefits | None:
        """Benefits of choices by a new fit, if the estimator has a fit and a new one is due."""

    def expected(self, choices: Choices, task: int) -> Floats:
        """[K]: expected losses of architectures for a task, up to a constant; all 0 without a fit."""

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The arrays that a checkpoint stores; loading one writes to them in place."""


class OnePass:
    """One architecture from the mixture of the policies serves all tasks, corrected by importance weights.

    With a fit, the gradient is of the losses less the fit's predictions, and in long searches some draws explore.
    """

    def __init__(self, baseline: Baseline, fit: PosteriorFit | None = None) -> None:
        self.baseline = baseline
        self.fit = fit

    @property
    def exploring(self) -> float:
        """The share of draws that explore now."""
        long = self.fit is not None and self.fit.draws >= EXPLORE_AFTER * len(self.fit.variables)
        return EXPLORING if long else 0.0

    def draw(self, controller: Controller, rng: np.random.Generator) -> Choices:
        return controller.propose(rng, exploring=self.exploring)[None]

    def weights(self, controller: Controller, choices: Choices) -> Floats:
        return controller.importance(choices, exploring=self.exploring) / len(choices)

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
        # The baseline averages the residuals too, or it would count an image as hard that ran with poor architectures.
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
        arrays: dict[str, NDArray[np.generic]] = {
            f"baseline.{name}": array for name, array in self.baseline.state().items()
        }
        if self.fit is not None:
            arrays |= {f"fit.{name}": array for name, array in self.fit.state().items()}
        return arrays


class Pair(OnePass):
    """Two architectures on the same images, each the other's baseline: their difference has no level of the images.

    The leave-one-out baseline of Kool, van Hoof and Welling (Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019)
    for two samples.
    """

    def __init__(self) -> None:
        super().__init__(_NoBaseline())

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
    """A peer with a pass per task, for comparison: every task learns from an architecture of its own policy alone."""

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
        own: Floats = np.full((controller.tasks, 1, controller.tasks), np.nan)
        own[range(controller.tasks), :, range(controller.tasks)] = 0.0
        return super().estimate(controller, choices, losses + own, images, matters)


class _NoBaseline:
    """Returns mean losses as advantages, for losses that are differences already."""

    def advantages(self, losses: Floats, images: NDArray[np.int64]) -> Floats:
        return nanmean(losses, axis=1)

    def state(self) -> dict[str, Floats]:
        return {}


def reinforce(controller: Controller, choices: Choices, weighted: Floats, matters: Mask | None = None) -> Floats:
    """``sum_k weighted_kt d log p_t(a_k)`` [T, S, C] over architectures [K, S]; nan counts as 0.

    The score of a variable that does not matter, given the others, is 0 in expectation and is left out; ``matters`` is
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
"""Names of the estimators, the default first; "average" is the paper's form, the reference."""
ESTIMATORS: tuple[EstimatorName, ...] = get_args(EstimatorName)


def make_estimator(kind: EstimatorName, controller: Controller, *, images: int) -> Estimator:
    """The estimator of a name of ``ESTIMATORS``, for ``images`` held-out images."""
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
