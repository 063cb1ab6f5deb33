"""Local search: minimises the predicted loss among architectures in the window of the budgets.

From a start inside the window, all networks that differ in one choice, or in one choice that rises and one that falls,
are evaluated at once; the search moves to the best until none is better (steepest descent; local search is a strong
baseline of architecture search, arXiv 2005.02960). A choice that rises adds a block, or gives a block a larger kernel;
with one that falls, the cost stays in the window. Losses and costs are table lookups.

Shape legend: B architectures, S variables, M changes of one choice, P pairs of changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.space import SKIP, Choices

MAX_PAIRS = 4096
"""Pairs of changes that a step evaluates all of; a four-path space of two choices per variable has fewer up to 128
variables."""
PROMISING_PAIRS = 1024
"""Of more, those that are best by the sum of their two changes. In the wide space they led from 24 of 24 starts to the
same network as 4096, and 256 from 20."""

Indices = NDArray[np.int64]


def prune(choices: Choices, table: CostTable) -> Choices:
    """The same networks [B, S], with choice 0 of every variable that sets no live block for the table's task."""
    space = table.space
    pruned: Choices = np.where(space.affects(choices, table.paths), choices, SKIP)
    return pruned


def descend(start: Choices, loss: CostTable, constraints: Constraints) -> Choices:
    """[S]: a local optimum reached from ``start`` [S], a network inside the window."""
    space, current, value = constraints.space, start, loss.cost_of(start)
    while True:
        changes = Changes.of(current, space.choice_counts, space.needed(current[None], loss.paths)[0])
        singles = changes.singles()
        first, second = promising(changes.pairs(), singles, current, loss, constraints)
        candidates = np.concatenate([singles, changes.applied(first, second)])
        candidates = candidates[constraints.in_window(candidates)]
        if not len(candidates):
            return current
        values = loss(candidates)
        best = int(values.argmin())
        if values[best] >= value - 1e-12:
            return current
        current, value = candidates[best], float(values[best])


def promising(
    pairs: tuple[Indices, Indices], singles: Choices, current: Choices, loss: CostTable, constraints: Constraints
) -> tuple[Indices, Indices]:
    """The pairs ([P], [P]) of changes, or if there are many, those of the lowest loss within the budgets.

    Losses and costs of a pair are predicted as the sum of those of its changes, which is exact unless both change one
    block, or one of them decides whether the block of the other runs; for losses also unless both change the depth of
    one path.
    """
    first, second = pairs
    if len(first) <= MAX_PAIRS:
        return pairs
    affordable = np.ones(len(first), dtype=np.bool_)
    for table, budget in zip(constraints.tables, constraints.budgets, strict=True):
        costs = table(singles)
        affordable &= costs[first] + costs[second] - table.cost_of(current) <= budget.limit
    losses = loss(singles)
    predicted = np.where(affordable, losses[first] + losses[second], np.inf)
    best = np.sort(predicted.argsort(kind="stable")[:PROMISING_PAIRS])
    return first[best], second[best]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All changes of one choice of an architecture."""

    current: Choices
    """[S]."""
    variables: Indices
    """[M]: the variable of each change."""
    choices: Indices
    """[M]: its other choice."""

    @classmethod
    def of(cls, current: Choices, choice_counts: Sequence[int], needed: NDArray[np.bool_]) -> Self:
        """The changes of the variables that matter, ``needed`` [S]."""
        changes = [
            (variable, choice)
            for variable in np.nonzero(needed)[0].tolist()
            for choice in range(choice_counts[variable])
            if choice != current[variable]
        ]
        variables, choices = np.array(changes, dtype=np.int64).reshape(-1, 2).T
        return cls(current=current, variables=variables, choices=choices)

    def singles(self) -> Choices:
        """[M, S]: the architecture after each change."""
        architectures = np.repeat(self.current[None], len(self.variables), axis=0)
        architectures[np.arange(len(self.variables)), self.variables] = self.choices
        return architectures

    def pairs(self) -> tuple[Indices, Indices]:
        """([P], [P]): the numbers of a change to a later choice and of one to an earlier choice of another variable."""
        rises = self.choices > self.current[self.variables]
        first, second = (numbers.ravel() for numbers in np.meshgrid(
            np.nonzero(rises)[0], np.nonzero(~rises)[0], indexing="ij"
        ))  # fmt: skip
        different = self.variables[first] != self.variables[second]
        return first[different], second[different]

    def applied(self, first: Indices, second: Indices) -> Choices:
        """[P, S]: the architecture after both changes of each pair."""
        architectures = np.repeat(self.current[None], len(first), axis=0)
        for changes in (first, second):
            architectures[np.arange(len(first)), self.variables[changes]] = self.choices[changes]
        return architectures
