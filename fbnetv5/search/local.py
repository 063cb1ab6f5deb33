"""Local search: minimises the predicted loss among architectures in the window of the budgets.

From a start inside the window, all networks that differ in one variable, or that gain one block and lose another, are
evaluated at once; the search moves to the best until none is better (steepest descent; local search is a strong
baseline of architecture search, arXiv 2005.02960). Loss and cost are both table lookups.

Shape legend: B architectures, S variables.
"""

from collections.abc import Sequence

import numpy as np

from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.space import SKIP, Choices


def prune(choices: Choices, table: CostTable) -> Choices:
    """The same networks [B, S], with every variable skipped that sets no live block for the table's task."""
    space = table.space
    pruned: Choices = np.where(space.affects(choices, table.paths), choices, SKIP)
    return pruned


def descend(start: Choices, loss: CostTable, constraints: Constraints) -> Choices:
    """[S]: a local optimum reached from ``start`` [S], a network inside the window."""
    current, value = start, loss.cost_of(start)
    while True:
        candidates = neighbours(current, constraints.space.choice_counts)
        candidates = candidates[constraints.in_window(candidates)]
        if not len(candidates):
            return current
        values = loss(candidates)
        best = int(values.argmin())
        if values[best] >= value - 1e-12:
            return current
        current, value = candidates[best], float(values[best])


def neighbours(current: Choices, choice_counts: Sequence[int]) -> Choices:
    """[B, S]: all architectures that differ from ``current`` [S] in one variable, or gain one and lose another."""
    singles = [
        (variable, choice)
        for variable, count in enumerate(choice_counts)
        for choice in range(count)
        if choice != current[variable]
    ]
    gains = [(variable, choice) for variable, choice in singles if current[variable] == SKIP]
    removals = [variable for variable, choice in singles if choice == SKIP]
    swaps = [(variable, choice, other) for variable, choice in gains for other in removals]
    architectures = np.repeat(current[None], len(singles) + len(swaps), axis=0)
    rows = np.arange(len(singles))
    variables, choices = np.array(singles).T
    architectures[rows, variables] = choices
    if swaps:
        rows = np.arange(len(singles), len(architectures))
        variables, choices, others = np.array(swaps).T
        architectures[rows, variables] = choices
        architectures[rows, others] = SKIP
    return architectures
