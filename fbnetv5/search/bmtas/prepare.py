"""Opens the inputs of a search for a branched network: images, tasks, and the costs of its trees."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.errors import UserError
from fbnetv5.costs.budgets import Budget, format_distinct
from fbnetv5.costs.constraints import AnyTable, cost_table
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.splits import Splits
from fbnetv5.data.targets import class_names
from fbnetv5.networks.pretrained import SCRATCH, State, encoder_weights
from fbnetv5.runs.start import open_images
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.table import open_table
from fbnetv5.search.bmtas.trees import TreeCosts
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.tasks import needed_targets, searched_tasks
from fbnetv5.tasks.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A configuration and its inputs, opened once."""

    config: BranchConfig
    space: BranchingSpace
    splits: Splits
    tasks: dict[str, Task]
    table: AnyTable | None
    costs: TreeCosts
    """In the unit of the budget."""
    latency_costs: TreeCosts | None
    """In milliseconds; None without a latency table."""


def prepare(config: BranchConfig, *, needs_table: bool = True) -> Prepared:
    """Open the images, the tasks on their classes, and the costs.

    Args:
        config: of the search.
        needs_table: whether a latency table that is missing or lacks blocks is an error; else it is left out.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    splits = open_images(config.data, needed_targets(config.tasks))
    tasks = searched_tasks(config.tasks, class_names(splits.weights.targets))
    space, budget = config.space, config.budget

    def costs_of(budget: Budget, table: AnyTable | None) -> TreeCosts:
        tables = {name: cost_table(space, task, budget, table) for name, task in tasks.items()}
        return tree_costs(space, tasks, tables)

    latency_costs = None
    if (table := open_table(config, tasks, needed=needs_table)) is not None:
        latency = Budget(limit=budget.limit, unit="ms", resolution=budget.resolution)
        latency_costs = costs_of(latency, table)
    costs = latency_costs if budget.unit == "ms" and latency_costs is not None else costs_of(budget, None)
    return Prepared(
        config=config, space=space, splits=splits, tasks=tasks, table=table, costs=costs, latency_costs=latency_costs
    )


def tree_costs(space: BranchingSpace, tasks: Mapping[str, Task], tables: Mapping[str, CostTable]) -> TreeCosts:
    """The costs of trees, from the cost table of each task's own network."""
    of_nodes = next(iter(tables.values())).blocks[:, 0]
    strides = np.array([node.stride for node in space.layers])
    needed = np.stack([strides <= max(task.paths) for task in tasks.values()], axis=1)
    heads = sum(table.fixed_head for table in tables.values())
    unit = next(iter(tables.values())).unit
    return TreeCosts(layers=of_nodes[1:], needed=needed, fixed=float(of_nodes[0] + heads), unit=unit)


def check_budget(config: BranchConfig, costs: TreeCosts) -> None:
    """Raise UserError for a budget that no tree meets, or that every tree meets.

    Raises:
        UserError: the budget lies outside the range of costs.
    """
    budget, unit = config.budget, costs.unit
    if not costs.all_shared <= budget.limit <= costs.all_separate:
        low, high, limit = format_distinct((costs.all_shared, costs.all_separate, budget.limit), unit)
        size = "x".join(map(str, budget.resolution))
        raise UserError(
            f"budget {limit} at {size} is outside what {config.space.label} offers: {low} if all tasks share every "
            f"layer, {high} if they share none. Choose a budget inside this range, another encoder or resolution"
        )


def initial_weights(config: BranchConfig) -> list[State]:
    """The encoder's initial weights, one state dict per block; empty for random weights.

    Raises:
        UserError: there are no such weights, or they do not fit the encoder.
        UnavailableError: a library cannot load its weights.
    """
    return [] if config.init == SCRATCH else encoder_weights(config.space.encoder, config.init, width=config.width)
