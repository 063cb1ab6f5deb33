"""Local search: the architecture of lowest predicted loss whose cost lies in the budget's window.

From a start inside the window every network that differs in one variable, or that gains one block and loses another, is
priced at once; the best is taken until none is better (steepest descent). Both prices are table lookups.

Shape legend: B architectures, S variables.
"""

from collections.abc import Sequence

import numpy as np

from fbnetv5.costs.budgets import Budget, in_window
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.space import SKIP, Choices


def prune(choices: Choices, table: CostTable) -> Choices:
    """The same networks [B, S] with every variable skipped that is not live for the table's task."""
    space = table.space
    pruned: Choices = np.where(space.affects(choices, table.paths), choices, SKIP)
    return pruned


def descend(start: Choices, loss: CostTable, cost: CostTable, budget: Budget) -> Choices:
    """[S]: a local optimum reached from ``start`` [S], a network inside the window."""
    current, value = start, loss.one(start)
    while True:
        near = neighbours(current, cost.space.choice_counts)
        near = near[in_window(cost(near), budget)]
        if not len(near):
            return current
        values = loss(near)
        best = int(values.argmin())
        if values[best] >= value - 1e-12:
            return current
        current, value = near[best], float(values[best])


def neighbours(current: Choices, choice_counts: Sequence[int]) -> Choices:
    """[B, S]: all that differ from ``current`` [S] in one variable, or in one variable gained and one lost."""
    singles = [
        (variable, choice)
        for variable, count in enumerate(choice_counts)
        for choice in range(count)
        if choice != current[variable]
    ]
    gained = [(variable, choice) for variable, choice in singles if current[variable] == SKIP]
    lost = [variable for variable, choice in singles if choice == SKIP]
    swaps = [(variable, choice, other) for variable, choice in gained for other in lost]
    near = np.repeat(current[None], len(singles) + len(swaps), axis=0)
    rows = np.arange(len(singles))
    variables, choices = np.array(singles).T
    near[rows, variables] = choices
    if swaps:
        rows = np.arange(len(singles), len(near))
        variables, choices, others = np.array(swaps).T
        near[rows, variables] = choices
        near[rows, others] = SKIP
    return near
