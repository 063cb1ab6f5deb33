"""Budgets that hold together, in any units, with the tables of their costs.

An architecture meets the budgets if its cost exceeds none of them and uses at least one to the lower end of the
window, ``BUDGET_WINDOW``: a network far below all budgets would waste them.

Shape legend: B architectures, S variables, K budgets.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.costs.budgets import (
    BUDGET_WINDOW,
    MEMORY,
    Budget,
    format_cost,
    format_distinct,
    priced,
    quantity_of,
    unit_words,
)
from fbnetv5.costs.cost_files import CostFile, file_table
from fbnetv5.costs.memory import MemoryLimit, memory_limit
from fbnetv5.costs.ranges import uniform_draws
from fbnetv5.costs.tables import CostTable, Counter, keyed_table, weighted_sum
from fbnetv5.costs.walk import walk_into_window
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task
from latency.estimate import EstimatedTable
from latency.table import LatencyTable

AnyTable = LatencyTable | EstimatedTable
LATENCY_UNITS = ("ms", "estimated ms")
MIXTURES = 200
"""Maximum number of weighted means of the costs whose networks of min cost are compared with all budgets."""
WALKS = 64
"""Random architectures that are walked into the window, to check that one meets the limit of memory too."""
STEP = 4.0
"""Step of the mixture's weights, per unit of excess over the mean share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Budgets and the tables that costs are looked up in, one for each."""

    budgets: Sequence[Budget]
    """Without that of memory."""
    tables: Sequence[CostTable]
    memory: MemoryLimit | None = None
    """The limit of peak activation memory, which has no price."""

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
        """[B, S] -> [B]: distance of the share from the window; 0 where the budgets are met.

        An excess of memory, as a share of its limit, is added.
        """
        low, high = BUDGET_WINDOW
        shares = self.shares(architectures)
        excess = np.maximum(0.0, np.maximum(low - shares, shares - high))
        return excess if self.memory is None else excess + np.maximum(0.0, self.memory.ratio(architectures) - 1)

    def in_window(self, architectures: Choices) -> NDArray[np.bool_]:
        """[B, S] -> [B]: whether nothing exceeds its budget and one cost reaches the lower end of its window."""
        low, high = BUDGET_WINDOW
        costs = [table(architectures) for table in self.tables]
        limits = [budget.limit for budget in self.budgets]
        within = np.all([cost <= high * limit for cost, limit in zip(costs, limits, strict=True)], axis=0)
        used = np.any([cost >= low * limit for cost, limit in zip(costs, limits, strict=True)], axis=0)
        inside: NDArray[np.bool_] = within & used
        return inside if self.memory is None else inside & (self.memory.ratio(architectures) <= 1)

    def ranges(self) -> list[str]:
        """A line per budget: the smallest and the largest cost of the space in its unit."""
        of_memory = [] if self.memory is None else [f"{self.space.label}: {self.memory.range_text}"]
        return [
            f"{table.space.label}: {format_cost(table.min_cost, table.unit)} to "
            f"{format_cost(table.max_cost, table.unit)}{unit_words(table.unit)}"
            for table in self.tables
        ] + of_memory

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
        if self.memory is not None:
            self._check_memory(self.memory, whose)

    def check_architecture(self, architecture: Choices) -> None:
        """Check that the only architecture [S] of a search for recipes does not exceed a budget.

        Raises:
            UserError: it does.
        """
        for table, budget in zip(self.tables, self.budgets, strict=True):
            if (cost := table.cost_of(architecture)) > budget.limit:
                cost_text, limit = format_distinct((cost, budget.limit), table.unit)
                raise UserError(f"the architecture costs {cost_text}, more than the budget of {limit}")
        if self.memory is not None and self.memory.ratio(architecture[None])[0] > 1:
            raise UserError(f"the architecture needs more than {self.memory.text}")

    def _check_memory(self, memory: MemoryLimit, whose: str) -> None:
        peak = int(memory.peak(memory.peak.lowest()[None])[0])
        size = "x".join(map(str, memory.budget.resolution))
        if peak > memory.budget.limit:
            lowest, limit = format_distinct((peak, memory.budget.limit), MEMORY)
            raise UserError(
                f"no network{whose} at {size} was found with a peak of at most {limit} of activations; the lowest has "
                f"{lowest}. Choose a larger --memory, or another space or resolution"
            )
        draws = np.concatenate([uniform_draws(self.space)[:WALKS], self.space.full()[None]])
        if not len(self.walked(draws, np.random.default_rng(0))):
            raise UserError(f"no network{whose} was found that uses its budgets with at most {memory.text}. Raise one")

    def walked(self, architectures: Choices, generator: np.random.Generator) -> Choices:
        """The architectures [B, S] after a walk into the window, without those that do not get there."""
        counts = np.array(self.space.choice_counts)
        return walk_into_window(architectures, self.excess, np.arange(len(counts)), counts, generator)

    def _can_be_met(self) -> bool:
        """Whether an architecture that exceeds no budget is found.

        The architecture of min cost by a weighted mean of the shares of all budgets is a table lookup. Budgets that
        it exceeds gain weight (multiplicative weights; Arora, Hazan and Kale, Theory of Computing 8, 2012), until an
        architecture exceeds none, or the smallest weighted mean is above 1, which proves that none exists. An
        architecture that meets the budgets may have the min cost of no mean: walks start from those that were tried,
        and from random ones.
        """
        high = BUDGET_WINDOW[1]
        limits = np.array([budget.limit for budget in self.budgets])
        weights = np.full(len(limits), 1 / len(limits))
        tried: dict[bytes, Choices] = {}
        for _ in range(MIXTURES):
            architecture = weighted_sum(self.tables, weights / limits).min_cost_architecture()
            shares = np.array(self.costs_of(architecture)) / limits
            if shares.max() <= high:
                return True
            mean = float(weights @ shares)
            if mean > high:
                return False
            tried[architecture.tobytes()] = architecture
            weights *= np.exp(np.clip(STEP * (shares - mean), -STEP, STEP))
            weights /= weights.sum()
        starts = np.concatenate([np.stack(list(tried.values())), uniform_draws(self.space)[:WALKS]])
        counts = np.array(self.space.choice_counts)
        variables, generator = np.arange(len(counts)), np.random.default_rng(0)
        return bool(len(walk_into_window(starts, self._excess_above, variables, counts, generator)))

    def _excess_above(self, architectures: Choices) -> NDArray[np.float64]:
        """[B, S] -> [B]: how far the largest share exceeds its budget, 0 if it does not."""
        return np.maximum(0.0, self.shares(architectures) - BUDGET_WINDOW[1])

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
        name: Constraints(
            budgets=priced(own),
            tables=[cost_table(space, tasks[name], budget, table, costs) for budget in priced(own)],
            memory=memory_limit(space, tasks[name], own),
        )
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


def latency_identity(tables: Iterable[CostTable]) -> dict[str, str]:
    """A checksum of the tables of latencies among these; nothing without one.

    A latency table that is extended gets a new correction, which changes all of its latencies.
    """
    digest = hashlib.sha256()
    timed = [table for table in tables if table.unit in LATENCY_UNITS]
    for table in timed:
        widths = table.space.possible_widths(table.paths)
        heads = [table.head(channels) for channels in widths] if callable(table.head) else [table.head]
        digest.update(np.concatenate([table.blocks.ravel(), heads]).tobytes())
    return {"latencies": digest.hexdigest()[:16]} if timed else {}
