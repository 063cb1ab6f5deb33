"""Opens the inputs of a search from its configuration: images, tasks, the latency table and the cost tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from export.errors import UserError
from fbnetv5.costs.constraints import AnyTable, Constraints, check_budgets, constrain
from fbnetv5.costs.cost_files import unused_text
from fbnetv5.costs.tables import table_keys
from fbnetv5.data.splits import Splits
from fbnetv5.data.targets import class_names
from fbnetv5.networks.pretrained import SCRATCH, State, stage_zero_weights
from fbnetv5.runs.checkpoint import load_checkpoint
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.runs.start import open_images
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.table import open_table
from fbnetv5.tasks import needed_targets, searched_tasks
from fbnetv5.tasks.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A configuration and its inputs, opened once."""

    config: SearchConfig
    splits: Splits
    tasks: dict[str, Task]
    table: AnyTable | None
    constraints: dict[str, Constraints]
    """Task -> its budgets with the tables of their costs."""

    def without_table(self) -> Self:
        """The same without the latency table, so that no latency is predicted."""
        return replace(self, table=None, config=self.config.changed(table=None, other_machine_table=False))


P = TypeVar("P", bound=Prepared)


def prepare(config: SearchConfig) -> Prepared:
    """Open the images, the tasks on their classes, and the cost tables.

    Raises:
        UserError: an input is missing or does not fit the others.
    """
    splits = open_images(config.data, needed_targets(config.tasks))
    tasks = searched_tasks(config.tasks, class_names(splits.weights.targets))
    table = open_table(config)
    constraints = constrain(config.space, tasks, config.budgets, table, config.costs)
    return Prepared(config=config, splits=splits, tasks=tasks, table=table, constraints=constraints)


def check_costs(prepared: Prepared) -> None:
    """Check that every budget can be met, also those of a family, and that latencies can be predicted.

    Raises:
        UserError: see ``Constraints.check`` and ``check_latencies``.
    """
    config = prepared.config
    check_budgets(prepared.constraints)
    for budgets in config.family.values():
        check_budgets(constrain(config.space, prepared.tasks, budgets, prepared.table, config.costs))
        check_latencies(replace(prepared, config=config.changed(budgets=budgets)))
    check_latencies(prepared)


def check_latencies(prepared: Prepared) -> None:
    """Check that the latency table, if there is one, predicts the latency of every task's networks.

    Raises:
        UserError: blocks or a head have no entry.
    """
    if prepared.table is not None:
        for name, task in prepared.tasks.items():
            resolution = prepared.config.budgets[name][0].resolution
            prepared.table.values_ms(table_keys(prepared.config.space, task, resolution))


def with_usable_table(prepared: P, log: Callable[[str], None], *, is_needed: bool) -> P:
    """The inputs, without a latency table that lacks blocks or heads of the networks and is not needed.

    Args:
        prepared: the inputs.
        log: called with the reason for which no latency is predicted.
        is_needed: whether the user named the table, or a budget is a latency.

    Raises:
        UserError: the table is needed, and blocks or a head have no entry.
    """
    try:
        check_latencies(prepared)
    except UserError as error:
        if is_needed:
            raise
        log(f"no latency is predicted: {error}")
        return prepared.without_table()
    return prepared


def initial_weights(config: SearchConfig, folder: Path) -> dict[str, State]:
    """The initial weights of stage 0 by node; none for random weights, and none if the run folder has a checkpoint.

    Raises:
        UserError: there are no such weights, or they do not fit the space.
        UnavailableError: a library cannot load its weights.
    """
    if config.init == SCRATCH or load_checkpoint(folder / CHECKPOINT) is not None:
        return {}
    return stage_zero_weights(config.space, config.init)


def unused_values(prepared: Prepared) -> list[str]:
    """A line for each cost file with keys that no network of the search has."""
    config = prepared.config
    tasks = [(task, config.budgets[name][0].resolution) for name, task in prepared.tasks.items()]
    return [text for cost in config.costs if (text := unused_text(cost, config.space, tasks))]


def memory_ranges(prepared: Prepared) -> list[str]:
    """A line for each task with a limit of memory: the peaks of its networks."""
    limits = {name: own.memory for name, own in prepared.constraints.items()}
    return [f"{name}: {limit.range_text}" for name, limit in limits.items() if limit is not None]
