"""This project's search as race.py runs it: the real controller, estimators and cost gradient on known losses."""

from collections.abc import Callable

import numpy as np

from benchmarks.race_world import Book, Floats, Meter, Rows, World
from fbnetv5.search.controller import Controller, draw
from fbnetv5.search.costs import cost_gradient
from fbnetv5.search.derive import AIM
from fbnetv5.search.estimators import OnePass, make_estimator
from fbnetv5.search.loop import PENALTY
from fbnetv5.space import Choices

CANDIDATES = 12
FINALISTS = 4
SCORING = 0.5
"""Share of the evaluations that the one-pass search keeps for scoring candidates."""
POLICY_LR = 0.04
MULTIPLIER_LR = 0.5


class OnePassSearch:
    """This project's search: policies on one draw a step, then candidates from each policy, scored in two rounds."""

    def __init__(self, kind: str, world: World, limit: int, seed: int, *, lr: float) -> None:
        self.world = world
        self.rng = np.random.default_rng([seed, 0])
        self.meter = Meter(world, limit)
        self.controller = Controller([2] * world.slots, world.tasks, lr=lr)
        self.estimator = make_estimator(kind, self.controller, pictures=world.chunks)
        self.multiplier = np.zeros(world.tasks)
        self.expected = np.array([self.costs(t)(self.controller.sample(t, 256, self.rng)).mean() for t in self.tasks])
        self.scale: Floats | None = None

    @property
    def tasks(self) -> range:
        return range(self.world.tasks)

    def costs(self, task: int) -> Callable[[Choices], Floats]:
        """Prices architectures."""
        return lambda choices: self.world.macs[self.world.rows(choices), task]

    def run(self, scoring: float) -> Rows:
        """Spend all evaluations but a share on the policies, that share on candidates."""
        kept = int(scoring * self.meter.left)
        order: list[int] = []
        while self.meter.left - len(self.estimator.draw(self.controller, np.random.default_rng(0))) >= kept:
            order = order or self.rng.permutation(self.world.chunks).tolist()
            self.step(order.pop())
        return self.answer()

    def step(self, chunk: int) -> None:
        """One step of the policies, as ``SearchLoop.train_policies`` takes it."""
        choices = self.estimator.draw(self.controller, self.rng)
        losses = np.stack([self.meter(int(row), chunk) for row in self.world.rows(choices)])
        self.scale = losses.mean(0) if self.scale is None else self.scale
        gradient = self.estimator.gradient(self.controller, choices, (losses / self.scale)[:, None], np.array([chunk]))
        for task, budget in enumerate(self.world.budgets):
            excess = self.expected[task] / (AIM * budget) - 1
            of_cost, self.expected[task] = cost_gradient(self.controller, task, self.costs(task), self.rng)
            gradient[task] += (self.multiplier[task] + PENALTY * excess) * of_cost / budget
            self.multiplier[task] += MULTIPLIER_LR * excess
        self.controller.step(gradient)

    def answer(self) -> Rows:
        """Score every task's candidates on some chunks, its best on all that can be afforded."""
        pool = sorted({row for task in self.tasks for row in self.candidates(task)})
        book = Book(self.world)
        first = min(self.world.chunks, max(1, self.meter.left // 2 // len(pool)))
        for row in pool:
            book.estimates[row] = self.meter.mean(row, np.arange(first))
        inside = np.where(self.world.fits, book.estimates, np.inf)
        finalists = sorted({int(row) for task in self.tasks for row in inside[:, task].argsort()[:FINALISTS]})
        more = min(self.world.chunks, first + self.meter.left // len(finalists))
        final = Book(self.world)
        for row in finalists:
            rest = self.meter.mean(row, np.arange(first, more)) if more > first else 0.0
            final.estimates[row] = (first * book.estimates[row] + (more - first) * rest) / more
        return final.best()

    def candidates(self, task: int) -> list[int]:
        """Architectures within the task's budget, drawn from its policy."""
        drawn = self.world.rows(draw(self.controller.probabilities()[task], 4096, self.rng))
        inside = drawn[self.world.fits[drawn, task]]
        distinct = list(dict.fromkeys(inside.tolist()))
        return self.ranked(task, distinct)[:CANDIDATES]

    def ranked(self, task: int, rows: list[int]) -> list[int]:
        """Best first by the estimator's fit where it has one, else as drawn."""
        fit = self.estimator.fit if isinstance(self.estimator, OnePass) else None
        if fit is None:
            return rows
        expected = fit.predict(self.world.choices(np.array(rows)))[:, task]
        return [rows[index] for index in expected.argsort(kind="stable")]


def one_pass(
    world: World, limit: int, seed: int, *, kind: str, lr: float = POLICY_LR, scoring: float = SCORING
) -> Rows:
    """The search with one of its estimators; a learning rate of 0 leaves the policies where they start."""
    return OnePassSearch(kind, world, limit, seed, lr=lr).run(scoring)
