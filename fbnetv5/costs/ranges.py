"""The range of a task's costs in a space, as ``fbnetv5 space`` and the start of a search print it."""

from dataclasses import dataclass

import numpy as np

from fbnetv5.costs.budgets import format_cost, unit_words
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.space import Choices, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRange:
    """The costs of a task's networks in a space, in one unit."""

    task: str
    unit: str
    min_cost: float
    expected: float
    """Mean over uniformly drawn architectures."""
    max_cost: float

    @property
    def text(self) -> str:
        """The costs in one line."""
        low, mean, high = (format_cost(cost, self.unit) for cost in (self.min_cost, self.expected, self.max_cost))
        words = "" if self.unit == "macs" else unit_words(self.unit)
        return f"{self.task}: networks of this space cost {low} to {high}{words}, {mean} on average"


def uniform_draws(space: Space) -> Choices:
    """[2048, S]: random architectures, the same in every call."""
    counts = np.array(space.choice_counts)
    return np.random.default_rng(0).integers(counts, size=(2048, len(counts)))


def cost_range(task: str, table: CostTable) -> CostRange:
    """The smallest, the expected and the largest cost of a task's networks."""
    return CostRange(
        task=task,
        unit=table.unit,
        min_cost=table.min_cost,
        expected=float(table(uniform_draws(table.space)).mean()),
        max_cost=table.max_cost,
    )
