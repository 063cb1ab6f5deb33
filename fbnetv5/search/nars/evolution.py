"""Evolution of pairs by their predicted score, under any budgets, in seconds (FBNetV3, arXiv 2006.02049, section 3.4).

The first generation has the best pairs known and random ones. Children are mutations of one parent and crossovers of
two; those that leave the budgets' window are walked back into it. Parents and children compete, and the best survive,
until several generations in a row bring no gain.

Shape legend: B pairs, S variables of the space, R of the recipe.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbnetv5.costs.constraints import Constraints
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.pool import unique_rows, walk_into_window
from fbnetv5.spaces.space import Choices

Score = Callable[[Choices], NDArray[np.float64]]
"""Pairs [B, S + R] -> predicted scores [B], higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionSettings:
    """Sizes of an evolution."""

    parents: int = 64
    """Pairs that survive a generation."""
    children: int = 128
    """Mutations of a generation, and as many crossovers."""
    mutated: float = 0.1
    """Probability that a mutation changes a variable; at least one changes."""
    patience: int = 5
    """Generations without a gain after which the evolution ends."""
    tolerance: float = 1e-3
    """Smallest gain of the best score that counts, as a share of the population's standard deviation at the start."""
    max_generations: int = 200


def evolve(
    start: Choices,
    score: Score,
    pairs: PairSpace,
    constraints: Constraints,
    *,
    seed: int,
    settings: EvolutionSettings = EvolutionSettings(),
) -> Choices:
    """The surviving pairs [B, S + R] that meet the budgets, best first.

    Args:
        start: the first generation [B, S + R]; those outside the window are walked into it.
        score: the predicted score.
        pairs: the space.
        constraints: the budgets.
        seed: of mutations and crossovers.
        settings: sizes.
    """
    generator = np.random.default_rng([seed, 2])
    population = unique_rows(walk_into_window(start, pairs, constraints, generator))
    scores = score(population)
    gain = settings.tolerance * float(scores.std())
    idle = 0
    for _ in range(settings.max_generations):
        best = float(scores.max())
        order = np.argsort(-scores, kind="stable")[: settings.parents]
        parents = population[order]
        children = np.concatenate([mutate(parents, pairs, generator, settings), cross(parents, generator, settings)])
        children = walk_into_window(children, pairs, constraints, generator)
        population = unique_rows(np.concatenate([parents, children]))
        scores = score(population)
        idle = 0 if scores.max() > best + gain else idle + 1
        if idle == settings.patience:
            break
    return population[np.argsort(-scores, kind="stable")[: settings.parents]]


def mutate(parents: Choices, pairs: PairSpace, generator: np.random.Generator, settings: EvolutionSettings) -> Choices:
    """``settings.children`` copies of random parents, in which some variables take random choices."""
    children = parents[generator.integers(len(parents), size=settings.children)]
    changed = generator.random(children.shape) < settings.mutated
    changed[np.arange(len(children)), generator.choice(pairs.free, size=len(children))] = True
    mutated: Choices = np.where(changed, generator.integers(pairs.counts, size=children.shape), children)
    return mutated


def cross(parents: Choices, generator: np.random.Generator, settings: EvolutionSettings) -> Choices:
    """``settings.children`` pairs, each variable of which comes from one of two random parents."""
    first, second = parents[generator.integers(len(parents), size=(2, settings.children))]
    children: Choices = np.where(generator.random(first.shape) < 0.5, first, second)
    return children
