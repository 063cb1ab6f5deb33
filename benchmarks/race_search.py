"""This project's search as race.py runs it: the real controller, estimators and cost gradient on known losses."""

from collections.abc import Callable
from itertools import cycle

import numpy as np

from benchmarks.race_world import Estimates, Floats, Meter, Rows, World
from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET
from fbnetv5.search.reinforce.closed_form import set_policy
from fbnetv5.search.reinforce.controller import Controller, draw
from fbnetv5.search.reinforce.cost_gradient import cost_gradient
from fbnetv5.search.reinforce.estimators import ESTIMATORS, EstimatorName, OnePass, make_estimator
from fbnetv5.search.reinforce.policies import PENALTY
from fbnetv5.spaces.space import Choices

DRAWN = 8192
"""Architectures per task that candidates are taken from."""
SCORING = 0.7
"""Share of the evaluations that the one-pass search keeps for scoring candidates."""
POLICY_LR = 0.04
MULTIPLIER_LR = 0.5


class OnePassSearch:
    """This project's search: policies on one draw a step, then candidates scored, the best expected first.

    Unlike the search proper, candidates are scored by their losses, on all chunks, and the fit learns from them too.
    """

    def __init__(self, kind: EstimatorName, world: World, limit: int, seed: int, *, lr: float) -> None:
        self.world = world
        self.lr = lr
        self.rng = np.random.default_rng([seed, 0])
        self.meter = Meter(world, limit)
        self.controller = Controller([2] * world.variables, world.tasks, lr=lr)
        self.estimator = make_estimator(kind, self.controller, images=world.chunks)
        self.multiplier = np.zeros(world.tasks)
        self.expected = np.array([self.costs(t)(self.controller.sample(t, 256, self.rng)).mean() for t in self.tasks])
        self.fit = self.estimator.fit if isinstance(self.estimator, OnePass) else None
        self.scale: Floats | None = None

    @property
    def tasks(self) -> range:
        return range(self.world.tasks)

    def costs(self, task: int) -> Callable[[Choices], Floats]:
        """The costs of a task's architectures, as a function."""
        return lambda choices: self.world.macs[self.world.rows(choices), task]

    def run(self, scoring: float) -> Rows:
        """Spend the share ``scoring`` of the evaluations on candidates, the others on the policies."""
        reserved = int(scoring * self.meter.left)
        order: list[int] = []
        while self.meter.left - len(self.estimator.draw(self.controller, np.random.default_rng(0))) >= reserved:
            order = order or self.rng.permutation(self.world.chunks).tolist()
            self.step(order.pop())
        return self.compare_candidates()

    def step(self, chunk: int) -> None:
        """One step of the policies, as in ``SearchLoop.train_policies``."""
        choices = self.estimator.draw(self.controller, self.rng)
        losses = np.stack([self.meter(int(row), chunk) for row in self.world.rows(choices)])
        self.scale = losses.mean(0) if self.scale is None else self.scale
        relative = (losses / self.scale)[:, None]
        gradient = self.estimator.estimate(self.controller, choices, relative, np.array([chunk]))
        if not self.estimator.closed_form:
            self._step_along(gradient)
        elif (benefits := self.estimator.benefits(self.controller)) is not None and self.lr > 0:
            for task, budget in enumerate(self.world.budgets):
                target = AIMED_SHARE_OF_BUDGET * budget
                set_policy(self.controller, task, benefits, [self.costs(task)], [target], self.rng)

    def _step_along(self, direction: Floats) -> None:
        """An Adam step along the gradient [T, S, C] and the cost's."""
        for task, budget in enumerate(self.world.budgets):
            excess = self.expected[task] / (AIMED_SHARE_OF_BUDGET * budget) - 1
            of_cost, self.expected[task] = cost_gradient(self.controller, task, self.costs(task), self.rng)
            direction[task] += (self.multiplier[task] + PENALTY * excess) * of_cost / budget
            self.multiplier[task] += MULTIPLIER_LR * excess
        self.controller.step(direction)

    def compare_candidates(self) -> Rows:
        """Score candidates of the tasks in turn on all chunks while evaluations remain; the fit keeps learning."""
        estimates = Estimates(self.world)
        candidates = [self.candidates(task) for task in self.tasks]
        turns = cycle(self.tasks)
        while self.meter.left >= self.world.chunks and any(candidates):
            task = next(turns)
            if candidates[task]:
                expected = self.estimator.expected(self.world.choices(np.array(candidates[task])), task)
                row = candidates[task].pop(int(expected.argmin()))
                if not np.isfinite(estimates.losses[row]).all():
                    estimates.losses[row] = self.score(row)
        return estimates.best()

    def candidates(self, task: int) -> list[int]:
        """Distinct architectures within the task's budget: from its policy, and at random if a fit can rank them."""
        drawn = draw(self.controller.probabilities()[task], DRAWN, self.rng)
        if self.fit is not None:
            drawn = np.concatenate([drawn, self.rng.integers(0, 2, (DRAWN, self.world.variables))])
        rows = self.world.rows(drawn)
        return list(dict.fromkeys(rows[self.world.fits[rows, task]].tolist()))

    def score(self, row: int) -> Floats:
        """[T]: an architecture's mean losses on all chunks."""
        chunks = np.arange(self.world.chunks)
        losses = np.stack([self.meter(row, int(chunk)) for chunk in chunks])
        if self.fit is not None and self.scale is not None:
            choices = self.world.choices(np.array([row]))
            for chunk in chunks:
                relative = losses[None, [chunk]] / self.scale
                self.estimator.estimate(self.controller, choices, relative, chunks[[chunk]])
            self.estimator.benefits(self.controller)
        mean: Floats = losses.mean(0)
        return mean


def one_pass(
    world: World,
    limit: int,
    seed: int,
    *,
    kind: EstimatorName = ESTIMATORS[0],
    lr: float = POLICY_LR,
    scoring: float = SCORING,
) -> Rows:
    """The search with one of its estimators; a learning rate of 0 keeps the initial policies."""
    return OnePassSearch(kind, world, limit, seed, lr=lr).run(scoring)


def run_per_task(world: World, limit: int, seed: int) -> Rows:
    """A search of its own for each task, which shares the evaluations with the others."""
    runs = [one_pass(world.only(task), limit // world.tasks, seed) for task in range(world.tasks)]
    return np.concatenate(runs)
