"""How fast do policies learn under each estimator? A simulation of the policies alone, without a network.

54 blocks, each kept or skipped, three tasks. A task's loss is the sum of effects of its blocks, effects of pairs, and
noise like that of a draw's images; the budget is half of the cost of all blocks. The figure is the progress of
architectures drawn from the policies from random ones of the same cost (0) to those of a greedy choice that knows all
effects (1), mean over tasks and seeds. A pass is one architecture through the trunk.

Worlds: "small" and "strong" pairs with noise about as large as the spread of random architectures; the same two with
noise 3.3 times that spread ("low"); the same two with 25 further variables without effect or cost, of which a mask
marks 12 ("useless"); and "null", where no block has an effect: there the figure is the policies' entropy relative to
their start, at 450 and 1500 passes.

Expected: the default is ahead of every other row or equal within the error, and keeps .95 of its entropy in "null".

    python benchmarks/estimators.py

Prints a table and ends in one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET
from fbnetv5.search.reinforce.baselines import MovingAverage
from fbnetv5.search.reinforce.closed_form import set_policy
from fbnetv5.search.reinforce.controller import Controller, Floats, expectation_gradient
from fbnetv5.search.reinforce.estimators import OnePass, Pair, PerTask
from fbnetv5.search.reinforce.policies import PENALTY
from fbnetv5.search.reinforce.posterior import Benefits, Mask, PosteriorFit, zero_benefits
from fbnetv5.spaces.space import Choices

BLOCKS = 54
USELESS = 25
MASKED = 12
"""Useless variables that the mask marks."""
TASKS = 3
MARKS = (300, 600, 1500, 4500)
NULL_MARKS = (450, 1500)
EFFECT = 0.003
"""Mean effect of a block, relative to the loss."""
SMALL, STRONG = 0.1, 0.5
"""Standard deviation of a pair's effect, relative to EFFECT."""
NOISE = 0.01
"""Standard deviation of a draw's loss; the spread between random architectures is about the same."""
LOW = 0.3
"""Spread between random architectures over the noise of a draw in the worlds of low signal."""
BUDGET = 0.5
MULTIPLIER_LR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Effects and costs of blocks."""

    effects: Floats
    """[T, S], of keeping a block when each other is kept with probability one half."""
    pairs: Floats
    """[T, S, S], upper triangle."""
    costs: Floats
    """[S], sum 1."""
    noise: float = NOISE
    matters: Mask | None = None
    """[S]: False for variables that are known to have no effect."""

    @classmethod
    def draw(cls, seed: int, pairs: float, *, low: bool = False, useless: bool = False, null: bool = False) -> "World":
        """Draw a random world; half of a block's effect is common to all tasks."""
        rng = np.random.default_rng([seed, BLOCKS])
        benefits = rng.exponential(1.0, (1, BLOCKS)) / 2 + rng.exponential(1.0, (TASKS, BLOCKS)) / 2
        of_pairs = np.triu(rng.normal(0.0, pairs * EFFECT, (TASKS, BLOCKS, BLOCKS)), 1)
        costs = rng.uniform(0.5, 1.5, BLOCKS)
        more, scale = USELESS if useless else 0, 0.0 if null else 1.0
        world = cls(
            effects=np.pad(-EFFECT * benefits * scale, ((0, 0), (0, more))),
            pairs=np.pad(of_pairs * scale, ((0, 0), (0, more), (0, more))),
            costs=np.pad(costs / costs.sum(), (0, more)),
            matters=np.arange(BLOCKS + more) < BLOCKS + more - MASKED if useless else None,
        )
        return replace(world, noise=float(world.random(rng).std(0).mean()) / LOW) if low else world

    @property
    def variables(self) -> int:
        return len(self.costs)

    def random(self, rng: np.random.Generator) -> Floats:
        """[4000, T]: losses of random architectures."""
        return self.losses(rng.integers(0, 2, (4000, self.variables)))

    def losses(self, choices: Choices) -> Floats:
        """[K, T], without noise, of architectures [K, S]."""
        centred = choices - 0.5
        pair_effects = np.stack([((centred @ pairs) * centred).sum(-1) for pairs in self.pairs], axis=-1)
        total: Floats = 1.0 + choices @ self.effects.T + pair_effects
        return total

    def greedy(self, task: int) -> Choices:
        """[S]: repeatedly keep the block of the largest benefit per cost beside the kept blocks, within the budget."""
        choices = np.zeros(self.variables, dtype=np.int64)
        both = self.pairs[task] + self.pairs[task].T
        while True:
            fits = (choices == 0) & (self.costs > 0) & (self.costs + choices @ self.costs <= BUDGET)
            if not fits.any():
                return choices
            benefits = self.effects[task] + both @ (choices - 0.5)
            choices[np.where(fits, benefits / np.maximum(self.costs, 1e-9), np.inf).argmin()] = 1


WORLDS: dict[str, Callable[[int], World]] = {
    "small": lambda seed: World.draw(seed, SMALL),
    "strong": lambda seed: World.draw(seed, STRONG),
    "small low": lambda seed: World.draw(seed, SMALL, low=True),
    "strong low": lambda seed: World.draw(seed, STRONG, low=True),
    "small useless": lambda seed: World.draw(seed, SMALL, useless=True),
    "strong useless": lambda seed: World.draw(seed, STRONG, useless=True),
    "null": lambda seed: World.draw(seed, SMALL, null=True),
}


class Adam:
    """Policies that step along the estimate and, by dual ascent, along the cost."""

    def __init__(self, world: World, controller: Controller) -> None:
        self.costs = np.stack([np.zeros(world.variables), world.costs], axis=-1)
        self.controller = controller
        self.multiplier = np.zeros(TASKS)

    def step(self, gradient: Floats) -> None:
        probabilities = self.controller.probabilities()
        excess = (probabilities * self.costs).sum((1, 2)) / (AIMED_SHARE_OF_BUDGET * BUDGET) - 1
        cost_weight = (self.multiplier + PENALTY * excess) / BUDGET
        of_cost = expectation_gradient(probabilities, np.broadcast_to(self.costs, gradient.shape))
        self.multiplier += MULTIPLIER_LR * excess
        self.controller.step(gradient + cost_weight[:, None, None] * of_cost)


class ClosedForm:
    """Policies in closed form, set whenever a fit is due."""

    def __init__(self, world: World, controller: Controller, estimator: OnePass) -> None:
        self.world, self.controller, self.estimator = world, controller, estimator
        self.rng = np.random.default_rng(0)
        self._solve(zero_benefits(controller))

    def step(self, gradient: Floats) -> None:
        benefits = self.estimator.benefits(self.controller)
        if benefits is not None:
            self._solve(benefits)

    def _solve(self, benefits: Benefits) -> None:
        for task in range(TASKS):
            set_policy(self.controller, task, benefits, [self._cost], [AIMED_SHARE_OF_BUDGET * BUDGET], self.rng)

    def _cost(self, choices: Choices) -> Floats:
        costs: Floats = choices @ self.world.costs
        return costs


def course(world: World, make: Callable[[Controller], OnePass], passes: int, lr: float, seed: int) -> list[float]:
    """The policies' progress at every mark up to ``passes``; in a world without effects, their relative entropy."""
    rng = np.random.default_rng([seed, 1])
    controller = Controller([2] * world.variables, TASKS, lr=lr)
    estimator = make(controller)
    rule = ClosedForm(world, controller, estimator) if estimator.closed_form else Adam(world, controller)
    null = not world.effects.any()
    measure = relative_entropy(controller) if null else progress(world, controller)
    figures, done, images = list[float](), 0, np.zeros(1, dtype=np.int64)
    while done < passes:
        choices = estimator.draw(controller, rng)
        noisy = world.losses(choices) + rng.normal(0.0, world.noise, (len(choices), TASKS))
        matters = None if world.matters is None else np.tile(world.matters, (len(choices), TASKS, 1))
        rule.step(estimator.estimate(controller, choices, noisy[:, None], images, matters))
        before, done = done, done + len(choices)
        if any(before < mark <= done for mark in (NULL_MARKS if null else MARKS)):
            figures.append(measure())
    return figures


def progress(world: World, controller: Controller) -> Callable[[], float]:
    """A function that returns the policies' progress from random ones (0) to greedy ones (1)."""
    rng = np.random.default_rng(2)
    random = world.random(rng).mean(0)
    best = np.array([world.losses(world.greedy(task)[None])[0, task] for task in range(TASKS)])

    def measure() -> float:
        drawn = [world.losses(controller.sample(task, 500, rng))[:, task].mean() for task in range(TASKS)]
        return float(((random - drawn) / (random - best)).mean())

    return measure


def relative_entropy(controller: Controller) -> Callable[[], float]:
    """A function that returns the policies' entropy relative to the one now."""
    start = controller.entropy().mean()
    return lambda: float(controller.entropy().mean() / start)


ENTRANTS: dict[str, Callable[[Controller], OnePass]] = {
    "average (the reference)": lambda controller: OnePass(MovingAverage(TASKS)),
    "pair": lambda controller: Pair(),
    "per-task": lambda controller: PerTask(MovingAverage(TASKS)),
    "control (the default)": lambda controller: OnePass(MovingAverage(TASKS), PosteriorFit(controller)),
}


def main() -> None:
    """Simulate, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--passes", type=int, default=MARKS[-1])
    parser.add_argument("--lr", type=float, default=0.04, help="of the policies that step along a gradient")
    parser.add_argument("--only", help="part of the name of the estimators to run")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=WORLDS, metavar="NAME")
    arguments = parser.parse_args()
    start = time.perf_counter()
    results: dict[str, dict[str, list[float]]] = {}
    for world in arguments.worlds:
        results[world] = {}
        passes = min(arguments.passes, NULL_MARKS[-1]) if world == "null" else arguments.passes
        for name, make in ENTRANTS.items():
            if arguments.only and arguments.only not in name:
                continue
            seeds = range(arguments.first, arguments.first + arguments.seeds)
            runs = [course(WORLDS[world](seed), make, passes, arguments.lr, seed) for seed in seeds]
            results[world][name] = [round(float(value), 3) for value in np.mean(runs, axis=0)]
            print(f"{world:>14}  {name:<24}", *(f"{v:6.2f}" for v in results[world][name]), flush=True)
    about = {"seeds": arguments.seeds, "first": arguments.first, "lr": arguments.lr, "passes": MARKS}
    seconds = round(time.perf_counter() - start)
    print(
        json.dumps(
            {"benchmark": "estimators", **about, "null_passes": NULL_MARKS, "results": results, "seconds": seconds}
        )
    )


if __name__ == "__main__":
    main()
