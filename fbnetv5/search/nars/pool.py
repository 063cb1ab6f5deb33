"""The pool of pairs that a search chooses its trainings from: scrambled Sobol points, changed into the budgets' window.

A Sobol sequence covers the cube more evenly than random points do (quasi-Monte Carlo; Owen, "Scrambled Sobol points",
arXiv 2008.08051, on why its length should be a power of 2). A point whose architecture misses the window is walked
into it: one variable of the architecture at a time takes a random other choice, and the change is kept unless it leads
further away. The recipe's coordinates stay as they are. So every budget in the space's range has a pool, however few
uniform draws would meet it.

Shape legend: B pairs, S variables of the space, R of the recipe.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from export.errors import UserError
from fbnetv5.costs import walk
from fbnetv5.costs.constraints import Constraints
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.spaces.space import Choices


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
    if pairs.fixed is not None:
        return drawn.copy()

    def excess_of(rows: Choices) -> NDArray[np.float64]:
        return constraints.excess(pairs.architectures(rows))

    return walk.walk_into_window(drawn, excess_of, pairs.free[pairs.free < pairs.size], pairs.counts, generator)


def unique_rows(pairs: Choices) -> Choices:
    """The different rows, in the order of their first occurrence."""
    _, first = np.unique(pairs, axis=0, return_index=True)
    unique: Choices = pairs[np.sort(first)]
    return unique
