"""The networks of other budgets from a finished search: its panel and its shared weights decide, without a new search.

A finished run keeps its last checkpoint and its panel. The panel's fit is a sum over live blocks and holds for networks
of any cost, so a local search under the other budget takes a second; most of the time goes to the comparison of the
finalists on held-out images, as at the end of the search. The architectures of the panel have costs near the run's own
budgets, where its rank correlation was measured: far from them the fit extrapolates, and the weights were trained less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from export.errors import UserError
from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import Budget, parse_budgets
from fbnetv5.costs.ranges import check_budgets, cost_ranges
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import by_group, load_checkpoint
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.search.profile_command import options_text
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.final_phase import FinishedLoop, TaskResult, find_networks
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.panel import PANEL, Panel
from fbnetv5.search.reinforce.prepare import Prepared, check_latencies, prepare
from fbnetv5.search.reinforce.results import best_architecture, write_results

FINALISTS = 3
"""Networks per task that are compared; a search compares more, which takes longer."""


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


def with_budget(run: Path, amount: str, unit: str) -> SearchConfig:
    """The configuration of a search with other budgets.

    Args:
        run: the run folder of such a search.
        amount: the budgets as text; without a resolution, the resolution of the task's budget in the run holds.
        unit: of the budgets, "macs" or "ms".

    Raises:
        UserError: the budgets cannot be parsed, or do not name every task.
    """
    config = SearchConfig.load(run)
    resolutions = {task: budget.resolution for task, budget in config.budgets.items()}
    return config.changed(budgets=parse_budgets(amount, unit=unit, tasks=config.tasks, resolutions=resolutions))


def profile_options(config: SearchConfig, luts: Path) -> str:
    """The options, as text, with which ``fbnetv5 profile`` measures the blocks of a search into a table in ``luts``.

    A profile has one resolution; budgets at several resolutions need a profile for each, and this names the first.
    """
    first = next(iter(config.budgets.values())).resolution
    tasks = [task for task, budget in config.budgets.items() if budget.resolution == first]
    return options_text(config.space, first, tasks, config.data, luts)


def derive(
    run: Path, config: SearchConfig, *, table: Path | None, other_machine: bool, progress: Progress
) -> DerivedNetworks:
    """The networks of other budgets from a finished search.

    Args:
        run: the run folder.
        config: that of the run, with the other budgets.
        table: latency table file; None for that of the run. Under a budget in multiply-adds, the run's table only
            predicts the latency of the networks, and is left out where it is missing.
        other_machine: whether that table may be of another machine.
        progress: called after every scored architecture.

    Raises:
        UserError: the run is unfinished or damaged, a budget is outside the range of costs, or a latency has no table.
    """
    config = with_table(run, config, table, other_machine=other_machine)
    config = config.changed(finalists=min(FINALISTS, config.finalists))
    tensors, state = final_checkpoint(run, steps=config.total_steps)
    prepared = prepare(config)
    check_budgets(cost_ranges(prepared.tables), config.budgets)
    check_latencies(prepared)
    supernet = Supernet(config.space, prepared.tasks)
    loop = SearchLoop(config, run, supernet, prepared.splits, prepared.tables)
    loop.load(by_group(tensors), state)
    return networks_from_panel(run, loop, prepared, SearchConfig.load(run).budgets, progress)


def networks_from_panel(
    run: Path, loop: FinishedLoop, prepared: Prepared, own: Mapping[str, Budget], progress: Progress
) -> DerivedNetworks:
    """The networks of a finished loop for the budgets of its configuration, by the panel of its run.

    Args:
        run: the run folder.
        loop: with the final weights.
        prepared: its configuration, opened.
        own: the budgets of the run, which are stored as the origin of the networks.
        progress: called after every scored architecture.

    Raises:
        UserError: the panel is damaged, or no network of a task has a cost in its budget's window.
    """
    panel = Panel.load(run / PANEL, variables=len(loop.supernet.space.variables), tasks=len(own))
    results = find_networks(loop, panel, prepared.tables, progress)
    origins = {
        task: {"run": str(run.resolve()), "budget": {"limit": budget.limit, "unit": budget.unit}}
        for task, budget in own.items()
    }
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
        raise UserError(
            f"{run} is unfinished, or of a version without {PANEL}. Finish it with: fbnetv5 search --resume {run}"
        )
    return checkpoint


def with_table(run: Path, config: SearchConfig, table: Path | None, *, other_machine: bool) -> SearchConfig:
    """The configuration of a run with the latency table that holds for other networks of it.

    Args:
        run: the run folder, for the error.
        config: of the run, with the budgets of the networks.
        table: latency table file; None for that of the run, which is left out where it is missing and not needed.
        other_machine: whether that table may be of another machine.

    Raises:
        UserError: a latency has no table.
    """
    if table is not None:
        return config.changed(table=str(table.resolve()), other_machine_table=other_machine)
    if any(budget.unit == "ms" for budget in config.budgets.values()):
        if config.table is None:
            raise UserError(f"--latency needs a latency table, and {run} has none: add --device cpu, or --table FILE")
        return config
    return config if config.table is not None and Path(config.table).exists() else config.changed(table=None)
