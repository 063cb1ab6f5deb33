"""The networks of other budgets from a finished later task: its panel and its head decide, as those of a search do."""

from collections.abc import Mapping
from pathlib import Path

from export.progress import Progress, silent
from fbnetv5.costs.budgets import parse_budgets
from fbnetv5.runs.checkpoint import by_group, check_identity
from fbnetv5.search.reinforce.derive import (
    DerivedNetworks,
    final_checkpoint,
    has_latency,
    networks_from_panel,
    with_table,
)
from fbnetv5.search.reinforce.derive import profile_options as profile_options
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.later.loop import LaterLoop
from fbnetv5.search.reinforce.later.prepare import prepare_later
from fbnetv5.search.reinforce.prepare import with_usable_table


def with_budgets(run: Path, texts: Mapping[str, str]) -> LaterConfig:
    """The configuration of a later task with other budgets; arguments as of ``fbnetv5.search.reinforce.derive``.

    Raises:
        UserError: the budgets cannot be parsed, or name another task.
    """
    config = LaterConfig.load(run)
    resolutions = {task: budgets[0].resolution for task, budgets in config.budgets.items()}
    return config.changed(budgets=parse_budgets(texts, tasks=config.tasks, resolutions=resolutions))


def derive(
    run: Path, config: LaterConfig, *, table: Path | None, other_machine: bool, progress: Progress
) -> DerivedNetworks:
    """The network of another budget from a finished later task; arguments as of ``fbnetv5.search.reinforce.derive``.

    Raises:
        UserError: the later task or its search is unfinished or damaged, the budget is outside the range of costs, or a
            latency has no table.
    """
    tensors, state = final_checkpoint(run, steps=config.steps)
    search = with_table(run, config.as_search(), table, other_machine=other_machine)
    own = LaterConfig.load(run).budgets
    config = config.changed(table=search.table, other_machine_table=search.other_machine_table, finalists=1)
    prepared = with_usable_table(
        prepare_later(config), silent, is_needed=table is not None or has_latency(config.budgets)
    )
    loop = LaterLoop(run, prepared, prepared.make_supernet())
    check_identity(state, loop.identity(), run, loop.title)  # the number of processes may be another
    loop.load(by_group(tensors), state)
    return networks_from_panel(run, loop, prepared, own, progress)
