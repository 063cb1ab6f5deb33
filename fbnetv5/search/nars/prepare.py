"""Opens the inputs of a search for pairs: images, the task, the costs and the budgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.costs.budgets import Budget, priced
from fbnetv5.costs.constraints import AnyTable, Constraints, cost_table, latency_identity
from fbnetv5.costs.memory import memory_limit
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.splits import Splits
from fbnetv5.data.targets import class_names
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.table import check_complete
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks import needed_targets, searched_tasks
from fbnetv5.tasks.task import Task
from latency import estimate


@dataclass(frozen=True)
class Prepared:
    """A configuration and its inputs, opened once."""

    config: NarsConfig
    splits: Splits
    task: Task
    table: AnyTable | None

    @property
    def pairs(self) -> PairSpace:
        """The space of pairs."""
        config = self.config
        return PairSpace(config.space, config.recipes, config.fixed, config.scaled_fields)

    def cost(self, unit: str) -> CostTable:
        """The costs in "macs", "params" or "ms" of the space's networks at the deploy resolution."""
        budget = Budget(limit=1.0, unit=unit, resolution=self.config.resolution)
        return cost_table(self.config.space, self.task, budget, self.table)

    def constraints(self, budgets: Sequence[Budget]) -> Constraints:
        """The budgets with their tables."""
        with_price = priced(budgets)
        return Constraints(
            budgets=with_price,
            tables=[self.cost(budget.unit) for budget in with_price],
            memory=memory_limit(self.config.space, self.task, budgets),
        )

    @cached_property
    def statistics(self) -> list[CostTable]:
        """The tables of the statistics that the predictor is pretrained on."""
        tables = [self.cost("macs"), self.cost("params")]
        return tables if self.table is None else [*tables, self.cost("ms")]

    def statistics_of(self, architectures: Choices) -> NDArray[np.float64]:
        """[B, S] -> [B, P]: multiply-adds, parameters and, with a latency table, milliseconds."""
        return np.stack([table(architectures) for table in self.statistics], axis=1)

    @property
    def identity(self) -> dict[str, Any]:
        """What the configuration does not fix, and a search must have when it is resumed."""
        splits = self.splits
        images = {"weights": len(splits.weights), "policies": len(splits.policies), "test": len(splits.test)}
        return {"images": images, **latency_identity(self.statistics)}

    @property
    def sign(self) -> float:
        """1 if a higher metric is better, else -1."""
        return -1.0 if self.task.metric.lower_is_better else 1.0


def prepare(config: NarsConfig, *, needs_table: bool = True) -> Prepared:
    """Open the images, the task on its classes, and the latency table.

    Args:
        config: of the search.
        needs_table: whether the latency table must be there and have all blocks; else it is left out if it has not.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    splits = config.data.open(needed_targets(config.tasks, soft=config.reads_soft_labels))
    tasks = searched_tasks(config.tasks, class_names(splits.weights.targets))
    task = tasks[config.task_name]
    try:
        table = _open_table(config, task)
    except UserError:
        if needs_table:
            raise
        table = None
    return Prepared(config=config, splits=splits, task=task, table=table)


def _open_table(config: NarsConfig, task: Task) -> AnyTable | None:
    """The latency table of the configuration, which has all blocks of its space and heads of the task, if it names one.

    Raises:
        UserError: the table is missing, refused, or lacks some.
    """
    if config.table is None:
        return None
    table = estimate.open_table(Path(config.table), other_machine=config.other_machine_table)
    check_complete(config, table, task)
    return table
