"""Budgets of a search: several at once, in multiply-adds, parameters or milliseconds.

An architecture meets the budgets if its cost exceeds none of them and uses at least one to the lower end of the
window, ``BUDGET_WINDOW``: a network far below all budgets would waste them.

Shape legend: B architectures, S variables, K budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.costs.budgets import BUDGET_WINDOW, Budget, format_cost, format_distinct
from fbnetv5.costs.tables import CostTable
from fbnetv5.spaces.space import Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Budgets and the tables that costs are looked up in, one for each."""

    budgets: Sequence[Budget]
    tables: Sequence[CostTable]

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

    def ranges(self) -> list[str]:
        """A line per budget: the smallest and the largest cost of the space in its unit."""
        units = {"macs": " multiply-adds", "params": " parameters"}
        return [
            f"{table.space.label}: {format_cost(table.min_cost, table.unit)} to "
            f"{format_cost(table.max_cost, table.unit)}{units.get(table.unit, '')}"
            for table in self.tables
        ]

    def check(self) -> None:
        """Check that each budget lies in the range of the space's costs.

        Raises:
            UserError: a budget is too small or too large.
        """
        for table, budget in zip(self.tables, self.budgets, strict=True):
            if not table.min_cost <= budget.limit <= table.max_cost:
                low, high, limit = format_distinct((table.min_cost, table.max_cost, budget.limit), table.unit)
                size = "x".join(map(str, budget.resolution))
                raise UserError(
                    f"budget {limit} at {size} is outside what {table.space.label} offers: {low} to {high}. Choose a "
                    "budget inside this range, or another width or resolution"
                )

    def check_architecture(self, architecture: Choices) -> None:
        """Check that the only architecture [S] of a search for recipes does not exceed a budget.

        Raises:
            UserError: it does.
        """
        for table, budget in zip(self.tables, self.budgets, strict=True):
            if (cost := table.cost_of(architecture)) > budget.limit:
                cost_text, limit = format_distinct((cost, budget.limit), table.unit)
                raise UserError(f"the architecture costs {cost_text}, more than the budget of {limit}")
