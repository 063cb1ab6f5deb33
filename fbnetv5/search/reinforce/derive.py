"""The networks of other budgets from a finished search: its panel and its shared weights decide, without a new search.

A finished run keeps its last checkpoint and its panel. The panel's fit predicts the loss of networks of any cost, so a
local search under the other budget takes seconds, and as many go to the network's passes on held-out images, which give
its loss and metric. The architectures of the panel have costs near the run's own budgets, where its rank correlation
was measured: far from them the fit extrapolates, and the weights were trained less.

Further searches of the same space and images may add their panels. What a block is worth depends on the weights, too,
and each training brings other blocks far; one fit to several panels counts what they have in common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from export.errors import UserError
from export.progress import Log, Progress, silent
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import Budget, parse_budgets
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import by_group, load_checkpoint
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.final_phase import FinishedLoop, TaskResult, find_networks
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.panel import PANEL, Panel
from fbnetv5.search.reinforce.prepare import Prepared, check_costs, prepare, with_usable_table
from fbnetv5.search.reinforce.results import best_architecture, budget_fields, write_results
from fbnetv5.search.reinforce.table import open_table
from fbnetv5.search.reinforce.table import profile_options as profile_options


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedNetworks:
    """The networks of other budgets, not yet written."""

    prepared: Prepared
    supernet: Supernet
    results: Mapping[str, TaskResult]
    architectures: Mapping[str, Architecture]
    """By task."""
    recipe: None = None

    def write(self, folder: Path) -> None:
        """Write the files that a search writes at its end, but for the panel."""
        write_results(folder, self.supernet, self.prepared, self.architectures, self.results)


def with_budgets(run: Path, texts: Mapping[str, str]) -> SearchConfig:
    """The configuration of a search with other budgets.

    Args:
        run: the run folder of such a search.
        texts: the budgets by unit, which hold together; without a resolution, that of the task in the run holds.

    Raises:
        UserError: the budgets cannot be parsed, or do not name every task.
    """
    config = SearchConfig.load(run)
    resolutions = {task: budgets[0].resolution for task, budgets in config.budgets.items()}
    return config.changed(family={}, budgets=parse_budgets(texts, tasks=config.tasks, resolutions=resolutions))


def derive(
    run: Path,
    config: SearchConfig,
    *,
    table: Path | None,
    other_machine: bool,
    progress: Progress,
    pool: Sequence[Path] = (),
) -> DerivedNetworks:
    """The networks of other budgets from a finished search.

    Args:
        run: the run folder, whose weights the networks get.
        config: that of the run, with the other budgets.
        table: latency table file; None for that of the run. Without a budget in ms, the run's table only
            predicts the latency of the networks, and is left out where it is missing or lacks their blocks.
        other_machine: whether that table may be of another machine.
        progress: called after every scored architecture.
        pool: run folders of further searches, whose panels the fit is made to as well.

    Raises:
        UserError: a run is unfinished or damaged, one of ``pool`` does not go with the run, a budget is outside the
            range of costs, or a latency has no table.
    """
    check_pool([run, *pool])
    config = with_table(run, config, table, other_machine=other_machine)
    config = config.changed(finalists=1)  # the lowest predicted loss wins, so the others need not run
    tensors, _ = final_checkpoint(run, steps=config.total_steps)
    prepared = with_usable_table(prepare(config), silent, is_needed=table is not None or has_latency(config.budgets))
    config = prepared.config
    check_costs(prepared)
    supernet = Supernet(config.space, prepared.tasks)
    loop = SearchLoop(config, run, supernet, prepared.splits, prepared.constraints)
    loop.load_result(by_group(tensors))
    return networks_from_panel(run, loop, prepared, SearchConfig.load(run).budgets, progress, pool)


def check_pool(runs: Sequence[Path]) -> None:
    """Check that the panels of searches can be fitted together.

    Raises:
        UserError: a run is given twice, is no finished search, or differs from the first in space, tasks or images.
    """
    first, *others = [SearchConfig.load(run) for run in runs]
    for number, (run, other) in enumerate(zip(runs[1:], others, strict=True), start=1):
        if run.resolve() in [earlier.resolve() for earlier in runs[:number]]:
            raise UserError(f"{run} is given twice: pool the panels of different searches")
        data = other.data.changed(num_workers=first.data.num_workers, prefetch=first.data.prefetch)
        equal = {"space": other.space == first.space, "tasks": other.tasks == first.tasks, "images": data == first.data}
        if different := [what for what, is_equal in equal.items() if not is_equal]:
            raise UserError(
                f"{run} has other {' and '.join(different)} than {runs[0]}: their panels do not go together"
            )
        if not (run / PANEL).exists():
            raise unfinished_error(run)


def networks_from_panel(
    run: Path,
    loop: FinishedLoop,
    prepared: Prepared,
    own: Mapping[str, Sequence[Budget]],
    progress: Progress,
    pool: Sequence[Path] = (),
) -> DerivedNetworks:
    """The networks of a finished loop for the budgets of its configuration, by the panel of its run.

    Args:
        run: the run folder.
        loop: with the final weights.
        prepared: its configuration, opened.
        own: the budgets of the run, which are stored as the origin of the networks.
        progress: called after every scored architecture.
        pool: run folders of further searches, as of ``check_pool``.

    Raises:
        UserError: a panel is missing or damaged, or no network of a task has costs in the window of its budgets.
    """
    shape = {"variables": len(loop.supernet.space.variables), "tasks": len(own)}
    panel, *others = [Panel.load(folder / PANEL, **shape) for folder in (run, *pool)]
    results = find_networks(loop, panel.pooled(others), progress)
    pooled = {"pooled": [str(folder.resolve()) for folder in pool]} if pool else {}
    origins = {task: {"run": str(run.resolve()), **budget_fields(budgets), **pooled} for task, budgets in own.items()}
    architectures = {
        name: best_architecture(loop.config, task, results[name], prepared.table, derived_from=origins[name])
        for name, task in prepared.tasks.items()
    }
    return DerivedNetworks(prepared=prepared, supernet=loop.supernet, results=results, architectures=architectures)


def final_checkpoint(run: Path, *, steps: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON of the last checkpoint of a finished search or later task of so many steps.

    Raises:
        UserError: the search is unfinished, or the checkpoint is damaged.
    """
    checkpoint = load_checkpoint(run / CHECKPOINT)
    if checkpoint is None or int(checkpoint[1]["step"]) < steps or not (run / PANEL).exists():
        raise unfinished_error(run)
    return checkpoint


def unfinished_error(run: Path) -> UserError:
    """The error of a search that has no panel yet."""
    return UserError(
        f"{run} is unfinished, or of a version without {PANEL}. Finish it with: fbnetv5 search --resume {run}"
    )


def has_latency(budgets: Mapping[str, Sequence[Budget]]) -> bool:
    """Whether one of the budgets of tasks is a latency, which needs a latency table."""
    return any(budget.unit == "ms" for of_task in budgets.values() for budget in of_task)


def with_table(
    run: Path, config: SearchConfig, table: Path | None, *, other_machine: bool, log: Log = silent
) -> SearchConfig:
    """The configuration of a run with the latency table that holds for other networks of it.

    Args:
        run: the run folder, for the error.
        config: of the run, with the budgets of the networks.
        table: latency table file; None for that of the run, which is left out where it is missing and not needed.
        other_machine: whether that table may be of another machine.
        log: called with the reason for which a table is left out.

    Raises:
        UserError: a latency has no table.
    """
    if table is not None:
        return config.changed(table=str(table.resolve()), other_machine_table=other_machine)
    if has_latency(config.budgets):
        if config.table is None:
            raise UserError(f"--latency needs a latency table, and {run} has none: add --device cpu, or --table FILE")
        return config
    try:
        open_table(config)
    except UserError as error:
        log(f"no latency is predicted: {error}")
        return config.changed(table=None, other_machine_table=False)
    return config
