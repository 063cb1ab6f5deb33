"""Local search: the architecture of lowest predicted loss whose cost lies in the budget's window.

From a start inside the window every network that differs in one slot, or that gains one block and loses another, is
priced at once; the best is taken until none is better (steepest descent). Both prices are table lookups.

Shape legend: B architectures, S slots.
"""

from collections.abc import Sequence

import numpy as np

from fbnetv5.costs.budgets import Budget, in_window
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.space import SKIP, Choices


def prune(choices: Choices, table: CostTable) -> Choices:
    """The same networks [B, S] with every slot skipped that is not live for the table's task."""
    space = table.space
    live = space.live(choices, table.paths)
    columns = [column for column, node in enumerate(space.nodes) if node.slot is not None]
    pruned: Choices = np.where(live[:, columns], choices, SKIP)
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
    """[B, S]: all that differ from ``current`` [S] in one slot, or in one slot gained and one lost."""
    singles = [
        (slot, choice) for slot, count in enumerate(choice_counts) for choice in range(count) if choice != current[slot]
    ]
    gained = [(slot, choice) for slot, choice in singles if current[slot] == SKIP]
    lost = [slot for slot, choice in singles if choice == SKIP]
    swaps = [(slot, choice, other) for slot, choice in gained for other in lost]
    near = np.repeat(current[None], len(singles) + len(swaps), axis=0)
    rows = np.arange(len(singles))
    slots, choices = np.array(singles).T
    near[rows, slots] = choices
    if swaps:
        rows = np.arange(len(singles), len(near))
        slots, choices, others = np.array(swaps).T
        near[rows, slots] = choices
        near[rows, others] = SKIP
    return near
