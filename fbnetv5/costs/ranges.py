"""Ranges of each task's costs in the unit of its budget, and the check that a budget lies in its range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.errors import UserError
from fbnetv5.costs.budgets import Budget, format_cost, format_distinct
from fbnetv5.costs.tables import CostTable, Counter, latency_table
from fbnetv5.data.resolution import Resolution
from fbnetv5.spaces.space import Space
from fbnetv5.tasks.task import Task
from latency.estimate import EstimatedTable
from latency.table import LatencyTable

AnyTable = LatencyTable | EstimatedTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRange:
    """The costs of a task's networks in a space, in the unit of its budget."""

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
        return f"{self.task}: networks of this space cost {low} to {high}, {mean} on average"


def cost_tables(
    space: Space, tasks: Mapping[str, Task], budgets: Mapping[str, Budget], table: AnyTable | None
) -> dict[str, CostTable]:
    """Task -> its costs in its budget's unit.

    Raises:
        UserError: a budget in milliseconds without a latency table.
    """
    tables: dict[str, CostTable] = {}
    counters: dict[Resolution, Counter] = {}
    for name, budget in budgets.items():
        if budget.unit == "ms":
            if table is None:
                raise UserError(
                    "a budget in milliseconds needs a latency table; make one with: fbnetv5 profile --device cpu"
                )
            tables[name] = latency_table(space, tasks[name], budget.resolution, table.values_ms, unit=table.unit)
        else:
            counter = counters.setdefault(budget.resolution, Counter(budget.resolution))
            tables[name] = counter.table(space, tasks[name], budget.unit)
    return tables


def cost_ranges(tables: Mapping[str, CostTable]) -> list[CostRange]:
    """The smallest, the expected and the largest cost of each task's networks."""
    ranges = []
    for name, table in tables.items():
        counts = np.array(table.space.choice_counts)
        drawn = np.random.default_rng(0).integers(counts, size=(2048, len(counts)))
        ranges.append(
            CostRange(
                task=name,
                unit=table.unit,
                min_cost=table.min_cost,
                expected=float(table(drawn).mean()),
                max_cost=table.max_cost,
            )
        )
    return ranges


def check_budgets(ranges: Sequence[CostRange], budgets: Mapping[str, Budget]) -> None:
    """Raise UserError for a budget that no network meets or that every network meets.

    Raises:
        UserError: a budget lies outside its task's range.
    """
    for costs in ranges:
        budget = budgets[costs.task]
        if not costs.min_cost <= budget.limit <= costs.max_cost:
            low, high, limit = format_distinct((costs.min_cost, costs.max_cost, budget.limit), costs.unit)
            size = "x".join(map(str, budget.resolution))
            raise UserError(
                f"budget {limit} for {costs.task} at {size} is outside what this space offers: {low} to {high}. "
                "Choose a budget inside this range, or another variant or resolution"
            )
