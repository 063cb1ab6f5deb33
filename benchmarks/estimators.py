"""How fast do policies learn under each estimator? A simulation of the policies alone, without a network.

54 blocks, each kept or skipped, three tasks. A task's loss is the sum of what its blocks bring, of effects of pairs,
and of noise as a draw's pictures leave it; the budget is half of what all blocks cost together. The figure says how
far architectures drawn from the policies have moved from random ones of the same cost (0) to those that a greedy choice
with full knowledge finds (1), mean over tasks and seeds. A pass is one architecture through the trunk.

Expected: the default reaches at 600 passes what the reference (mixture proposal, one moving average) reaches at 1500,
and is above .80 at 4500, with small pairwise effects and with strong ones.

    python benchmarks/estimators.py

Prints a table and ends in one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from fbnetv5.search.additive import AdditiveFit, expectation_gradient
from fbnetv5.search.baselines import MovingAverage
from fbnetv5.search.config import SearchConfig
from fbnetv5.search.controller import Controller, Floats
from fbnetv5.search.derive import AIM
from fbnetv5.search.estimators import Estimate, Estimator, OnePass, Pair, PerTask
from fbnetv5.search.loop import PENALTY
from fbnetv5.space import Choices

BLOCKS = 54
TASKS = 3
MARKS = (300, 600, 1500, 4500)
EFFECT = 0.003
"""Mean effect of a block, relative to the loss."""
PAIRS = {"small": 0.1, "strong": 0.5}
"""Standard deviation of a pair's effect, relative to EFFECT."""
NOISE = 0.01
"""Standard deviation of a draw's loss; the spread between random architectures is about the same."""
MULTIPLIER_LR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What blocks bring and cost."""

    effects: Floats
    """[T, S], of keeping a block when each other is kept with probability one half."""
    pairs: Floats
    """[T, S, S], upper triangle."""
    costs: Floats
    """[S], sum 1."""

    @classmethod
    def draw(cls, seed: int, pairs: float) -> "World":
        """A random world; half of what a block brings is common to all tasks."""
        rng = np.random.default_rng([seed, 54])
        brings = rng.exponential(1.0, (1, BLOCKS)) / 2 + rng.exponential(1.0, (TASKS, BLOCKS)) / 2
        of_pairs = np.triu(rng.normal(0.0, pairs * EFFECT, (TASKS, BLOCKS, BLOCKS)), 1)
        costs = rng.uniform(0.5, 1.5, BLOCKS)
        return cls(effects=-EFFECT * brings, pairs=of_pairs, costs=costs / costs.sum())

    def losses(self, choices: Choices) -> Floats:
        """[K, T], without noise, of architectures [K, S]."""
        centred = choices - 0.5
        of_pairs = np.stack([((centred @ pairs) * centred).sum(-1) for pairs in self.pairs], axis=-1)
        total: Floats = 1.0 + choices @ self.effects.T + of_pairs
        return total

    def greedy(self, task: int) -> Choices:
        """[S]: the block that brings most for its cost, given those kept so far, until the budget is spent."""
        choices = np.zeros(BLOCKS, dtype=np.int64)
        both = self.pairs[task] + self.pairs[task].T
        while True:
            fits = (choices == 0) & (self.costs + choices @ self.costs <= 0.5)
            if not fits.any():
                return choices
            brings = self.effects[task] + both @ (choices - 0.5)
            choices[np.where(fits, brings / self.costs, np.inf).argmin()] = 1


@dataclass(frozen=True, slots=True)
class Entrant:
    """An estimator, and what the policies step along."""

    make: Callable[[Controller], Estimator]
    direction: Callable[[Estimate], Floats] = attrgetter("gradient")


def course(world: World, entrant: Entrant, passes: int, lr: float, seed: int) -> list[float]:
    """How far the policies are at every mark up to ``passes``."""
    rng = np.random.default_rng([seed, 1])
    controller = Controller([2] * BLOCKS, TASKS, lr=lr)
    estimator = entrant.make(controller)
    random = world.losses(rng.integers(0, 2, (4000, BLOCKS))).mean(0)
    best = np.array([world.losses(world.greedy(task)[None])[0, task] for task in range(TASKS)])
    multiplier, found, done = np.zeros(TASKS), list[float](), 0
    costs = np.stack([np.zeros(BLOCKS), world.costs], axis=-1)
    pictures = np.zeros(1, dtype=np.int64)
    while done < passes:
        choices = estimator.draw(controller, rng)
        noisy = world.losses(choices) + rng.normal(0.0, NOISE, (len(choices), TASKS))
        direction = entrant.direction(estimator.estimate(controller, choices, noisy[:, None], pictures))
        probabilities = controller.probabilities()
        excess = (probabilities * costs).sum((1, 2)) / (AIM * 0.5) - 1
        force = (multiplier + PENALTY * excess) / 0.5
        direction += force[:, None, None] * expectation_gradient(probabilities, np.broadcast_to(costs, direction.shape))
        multiplier += MULTIPLIER_LR * excess
        controller.step(direction)
        before, done = done, done + len(choices)
        if any(before < mark <= done for mark in MARKS):
            drawn = [world.losses(controller.sample(task, 500, rng))[:, task].mean() for task in range(TASKS)]
            found.append(float(((random - drawn) / (random - best)).mean()))
    return found


def control(controller: Controller) -> Estimator:
    """The one with a fit; its pictures are all alike here, so one average serves."""
    return OnePass(MovingAverage(TASKS), AdditiveFit(controller))


ENTRANTS = {
    "average (the reference)": Entrant(lambda controller: OnePass(MovingAverage(TASKS))),
    "pair": Entrant(lambda controller: Pair()),
    "per-task": Entrant(lambda controller: PerTask(MovingAverage(TASKS))),
    "control, sampled rate 1": Entrant(control),
    "control (the default)": Entrant(control, lambda estimate: estimate.direction(SearchConfig.sampled_rate)),
    "a quarter throughout": Entrant(control, lambda estimate: 0.25 * estimate.sampled + estimate.fitted),
    "the fit alone": Entrant(control, attrgetter("fitted")),
}


def main() -> None:
    """Simulate, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=MARKS[-1])
    parser.add_argument("--lr", type=float, default=0.04, help="of the policies")
    parser.add_argument("--only", help="part of the name of the estimators to run")
    arguments = parser.parse_args()
    start = time.perf_counter()
    results: dict[str, dict[str, list[float]]] = {}
    for pairs, size in PAIRS.items():
        results[pairs] = {}
        for name, entrant in ENTRANTS.items():
            if arguments.only and arguments.only not in name:
                continue
            worlds = [World.draw(seed, size) for seed in range(arguments.seeds)]
            runs = [course(world, entrant, arguments.passes, arguments.lr, seed) for seed, world in enumerate(worlds)]
            results[pairs][name] = [round(float(value), 3) for value in np.mean(runs, axis=0)]
            print(f"{pairs:>7} pairs  {name:<24}", *(f"{v:6.2f}" for v in results[pairs][name]), flush=True)
    about = {"seeds": arguments.seeds, "lr": arguments.lr, "noise": NOISE, "passes": MARKS}
    seconds = round(time.perf_counter() - start)
    print(json.dumps({"benchmark": "estimators", **about, "results": results, "seconds": seconds}))


if __name__ == "__main__":
    main()
