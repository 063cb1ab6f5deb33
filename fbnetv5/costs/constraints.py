"""Budgets that hold together, in any units, with the tables of their costs.

An architecture meets the budgets if its cost exceeds none of them and uses at least one to the lower end of the
window, ``BUDGET_WINDOW``: a network far below all budgets would waste them.

Shape legend: B architectures, S variables, K budgets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.costs.budgets import BUDGET_WINDOW, Budget, format_cost, format_distinct, quantity_of, unit_words
from fbnetv5.costs.cost_files import CostFile, file_table
from fbnetv5.costs.tables import CostTable, Counter, keyed_table, weighted_sum
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task
from latency.estimate import EstimatedTable
from latency.table import LatencyTable

AnyTable = LatencyTable | EstimatedTable
MIXTURES = 200
"""Maximum number of weighted means of the costs whose networks of min cost are compared with all budgets."""
STEP = 4.0
"""Step of the mixture's weights, per unit of excess over the mean share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Budgets and the tables that costs are looked up in, one for each."""

    budgets: Sequence[Budget]
    tables: Sequence[CostTable]

    @property
    def space(self) -> Space:
        """The space of the architectures."""
        return self.tables[0].space

    def names(self, task: str) -> list[str]:
        """[K]: the name of each budget's figures in a history: the task, and the unit where it has several budgets."""
        return [task] if len(self.budgets) == 1 else [f"{task}/{budget.unit}" for budget in self.budgets]

    def texts(self, costs: Sequence[float]) -> str:
        """[K]: the costs of a network as text, several with the words of their units."""
        pairs = zip(costs, self.tables, strict=True)
        if len(self.tables) == 1:
            return " and ".join(format_cost(cost, table.unit) for cost, table in pairs)
        return " and ".join(f"{format_cost(cost, table.unit)}{unit_words(table.unit)}" for cost, table in pairs)

    def costs_of(self, architecture: Choices) -> tuple[float, ...]:
        """[S] -> [K]: the cost of one architecture in the unit of each budget."""
        return tuple(table.cost_of(architecture) for table in self.tables)

    def shares(self, architectures: Choices) -> NDArray[np.float64]:
        """[B, S] -> [B]: the largest cost as a share of its budget."""
        ratios = [table(architectures) / budget.limit for table, budget in zip(self.tables, self.budgets, strict=True)]
        shares: NDArray[np.float64] = np.max(ratios, axis=0)
        return shares

    def excess(self, architectures: Choices) -> NDArray[np.float64]:
        """[B, S] -> [B]: distance of the share from the window; 0 where the budgets are met."""
        low, high = BUDGET_WINDOW
        shares = self.shares(architectures)
        return np.maximum(0.0, np.maximum(low - shares, shares - high))

    def in_window(self, architectures: Choices) -> NDArray[np.bool_]:
        """[B, S] -> [B]: whether no cost exceeds its budget and one reaches the lower end of its window."""
        low, high = BUDGET_WINDOW
        costs = [table(architectures) for table in self.tables]
        limits = [budget.limit for budget in self.budgets]
        within = np.all([cost <= high * limit for cost, limit in zip(costs, limits, strict=True)], axis=0)
        used = np.any([cost >= low * limit for cost, limit in zip(costs, limits, strict=True)], axis=0)
        inside: NDArray[np.bool_] = within & used
        return inside

    def ranges(self) -> list[str]:
        """A line per budget: the smallest and the largest cost of the space in its unit."""
        return [
            f"{table.space.label}: {format_cost(table.min_cost, table.unit)} to "
            f"{format_cost(table.max_cost, table.unit)}{unit_words(table.unit)}"
            for table in self.tables
        ]

    def check(self, task: str | None = None) -> None:
        """Check that each budget lies in the range of the space's costs, and that a network can meet all of them.

        Args:
            task: name of the task, for the error, where there are several.

        Raises:
            UserError: a budget is too small or too large, or the budgets exclude each other.
        """
        whose, offering = (
            ("", self.space.label if self.tables else "") if task is None else (f" for {task}", "this space")
        )
        for table, budget in zip(self.tables, self.budgets, strict=True):
            if not table.min_cost <= budget.limit <= table.max_cost:
                low, high, limit = format_distinct((table.min_cost, table.max_cost, budget.limit), table.unit)
                words, other = f" at {'x'.join(map(str, budget.resolution))}", "another space or resolution"
                if quantity_of(table.unit) is not None:
                    limit = f"{limit}{unit_words(table.unit)}"
                if table.unit == "params":  # the same at every resolution
                    limit, words, other = f"{limit} parameters", "", "another space"
                raise UserError(
                    f"budget {limit}{whose}{words} is outside what {offering} offers: {low} to {high}. "
                    f"Choose a budget inside this range, or {other}"
                )
        if len(self.budgets) > 1 and not self._can_be_met():
            raise UserError(f"no network{whose} meets its budgets together: {self._conflict()}. Raise one of them")

    def check_architecture(self, architecture: Choices) -> None:
        """Check that the only architecture [S] of a search for recipes does not exceed a budget.

        Raises:
            UserError: it does.
        """
        for table, budget in zip(self.tables, self.budgets, strict=True):
            if (cost := table.cost_of(architecture)) > budget.limit:
                cost_text, limit = format_distinct((cost, budget.limit), table.unit)
                raise UserError(f"the architecture costs {cost_text}, more than the budget of {limit}")

    def _can_be_met(self) -> bool:
        """Whether an architecture that exceeds no budget is found.

        The architecture of min cost by a weighted mean of the shares of all budgets is a table lookup. Budgets that
        it exceeds gain weight (multiplicative weights; Arora, Hazan and Kale, Theory of Computing 8, 2012), until an
        architecture exceeds none, or the smallest weighted mean is above 1, which proves that none exists.
        """
        limits = np.array([budget.limit for budget in self.budgets])
        weights = np.full(len(limits), 1 / len(limits))
        for _ in range(MIXTURES):
            shares = (
                np.array(self.costs_of(weighted_sum(self.tables, weights / limits).min_cost_architecture())) / limits
            )
            if shares.max() <= BUDGET_WINDOW[1]:
                return True
            mean = float(weights @ shares)
            if mean > BUDGET_WINDOW[1]:
                return False
            weights *= np.exp(np.clip(STEP * (shares - mean), -STEP, STEP))
            weights /= weights.sum()
        return False

    def _conflict(self) -> str:
        """What the network of min cost in each unit costs in the unit of a budget that it exceeds."""
        texts = []
        for table in self.tables:
            costs = self.costs_of(table.min_cost_architecture())
            worst = max(range(len(costs)), key=lambda number: costs[number] / self.budgets[number].limit)
            cost, limit = format_distinct((costs[worst], self.budgets[worst].limit), self.tables[worst].unit)
            words = unit_words(self.tables[worst].unit)
            own = (unit_words(table.unit).removeprefix(" of") or table.unit).strip()
            texts.append(f"that of min cost in {own} has {cost}{words}, of {limit} allowed")
        return "; ".join(dict.fromkeys(texts))


def constrain(
    space: Space,
    tasks: Mapping[str, Task],
    budgets: Mapping[str, Sequence[Budget]],
    table: AnyTable | None,
    costs: Sequence[CostFile] = (),
) -> dict[str, Constraints]:
    """Task -> its budgets with the tables of their costs.

    Args:
        space: the search space.
        tasks: by name.
        budgets: by task.
        table: latency table, for budgets in milliseconds.
        costs: cost files, for budgets in the units that they define.

    Raises:
        UserError: a budget in milliseconds without a latency table, or a cost file without values of all blocks.
    """
    return {
        name: Constraints(budgets=own, tables=[cost_table(space, tasks[name], budget, table, costs) for budget in own])
        for name, own in budgets.items()
    }


def check_budgets(constraints: Mapping[str, Constraints]) -> None:
    """Check that every task's budgets can be met, each and together.

    Raises:
        UserError: see ``Constraints.check``.
    """
    for task, of_task in constraints.items():
        of_task.check(task)


def cost_table(
    space: Space, task: Task, budget: Budget, table: AnyTable | None, costs: Sequence[CostFile] = ()
) -> CostTable:
    """The costs of a task's networks in the unit and at the resolution of a budget.

    Raises:
        UserError: a budget in milliseconds without a latency table, or a cost file without values of all blocks.
    """
    if quantity_of(budget.unit) is not None:
        return file_table(space, task, budget.resolution, next(cost for cost in costs if cost.key == budget.unit))
    if budget.unit != "ms":
        return Counter(budget.resolution).table(space, task, budget.unit)
    if table is None:
        raise UserError("a budget in milliseconds needs a latency table; make one with: fbnetv5 profile --device cpu")
    return keyed_table(space, task, budget.resolution, table.values_ms, unit=table.unit)
