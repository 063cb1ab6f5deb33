"""The pool of pairs that a search chooses its trainings from: scrambled Sobol points, changed into the budgets' window.

A Sobol sequence covers the cube more evenly than random points do (quasi-Monte Carlo; Owen, "Scrambled Sobol points",
arXiv 2008.08051, on why its length should be a power of 2). A point whose architecture misses the window is walked
into it: one variable of the architecture at a time takes a random other choice, and the change is kept unless it leads
further away. The recipe's coordinates stay as they are. So every budget in the space's range has a pool, however few
uniform draws would meet it.

Shape legend: B pairs, S variables of the space, R of the recipe.
"""

import numpy as np
from scipy.stats import qmc

from export.errors import UserError
from fbnetv5.costs.constraints import Constraints
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.spaces.space import Choices

MAX_CHANGES = 2000
"""Changes after which a point that is still outside the window is left out."""


def sample_pool(pairs: PairSpace, constraints: Constraints, size: int, seed: int) -> Choices:
    """Different pairs [B, S + R] that meet the budgets; B is ``size`` rounded up to a power of 2, less repetitions.

    Raises:
        UserError: no pair meets the budgets.
    """
    power = max(1, (size - 1).bit_length())
    sobol = qmc.Sobol(len(pairs.counts), scramble=True, rng=np.random.default_rng([seed, 0]))
    drawn = pairs.from_unit(sobol.random_base2(power))
    pool = walk_into_window(drawn, pairs, constraints, np.random.default_rng([seed, 1]))
    if not len(pool):
        raise UserError(
            f"no architecture of {pairs.space.label} was found that meets the budgets together; raise one of them"
        )
    return unique_rows(pool)


def walk_into_window(
    drawn: Choices, pairs: PairSpace, constraints: Constraints, generator: np.random.Generator
) -> Choices:
    """The pairs [B, S + R], with architectures changed until they meet the budgets, without those that never do."""
    pool = drawn.copy()
    if pairs.fixed is not None:
        return pool
    excess = constraints.excess(pairs.architectures(pool))
    movable = pairs.free[pairs.free < pairs.size]
    for _ in range(MAX_CHANGES):
        outside = np.flatnonzero(excess)
        if not len(outside):
            break
        changed = pool[outside]
        variables = generator.choice(movable, size=len(outside))
        changed[np.arange(len(outside)), variables] = generator.integers(pairs.counts[variables])
        nearer = (of_changed := constraints.excess(pairs.architectures(changed))) <= excess[outside]
        pool[outside[nearer]], excess[outside[nearer]] = changed[nearer], of_changed[nearer]
    inside: Choices = pool[excess == 0]
    return inside


def unique_rows(pairs: Choices) -> Choices:
    """The different rows, in the order of their first occurrence."""
    _, first = np.unique(pairs, axis=0, return_index=True)
    unique: Choices = pairs[np.sort(first)]
    return unique
