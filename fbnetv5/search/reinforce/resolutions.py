"""The deploy resolution as a choice under one budget: networks of several resolutions from a finished search, compared.

FBNetV5's variant AR reaches small budgets by smaller images (arXiv 2111.10007). How small they should be is a question
of the task: fewer pixels pay for more blocks. Here each resolution gets its own network within the budget, by the panel
of the search. Batch norm is recalibrated and the loss measured on the same held-out images at this resolution, and each
task gets the network of the lowest loss. The weights learned at the size of the search alone, so its neighbours are at
a small disadvantage, and sizes far from it at a large one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.files import write_json
from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.costs.constraints import constrain
from fbnetv5.data.resolution import Resolution
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import DerivedNetworks, derive, with_table
from fbnetv5.search.reinforce.prepare import check_costs, prepare
from fbnetv5.search.reinforce.results import PARETO, pareto_document, write_networks


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenNetworks:
    """By task, the network of the best resolution, not yet written."""

    members: Mapping[str, DerivedNetworks]
    """Task -> the networks of its resolution."""
    architectures: Mapping[str, Architecture]
    recipe: None = None

    def write(self, folder: Path) -> None:
        """Write each network's architecture and weights, then the Pareto fronts of their resolutions."""
        fronts: dict[str, Any] = {}
        for task, member in self.members.items():
            write_networks(folder, member.supernet, member.prepared, {task: self.architectures[task]})
            fronts |= pareto_document(member.prepared.constraints, {task: member.results[task]})["tasks"]
        write_json(folder / PARETO, {"schema": 1, "tasks": fronts})


def derive_resolutions(
    run: Path,
    config: SearchConfig,
    resolutions: Sequence[Resolution],
    *,
    table: Path | None,
    other_machine: bool,
    progress: Progress,
    pool: Sequence[Path] = (),
) -> ChosenNetworks:
    """Per task, the network of the resolution with the lowest loss; arguments as of ``derive``.

    Args:
        run: the run folder.
        config: that of the run, with the other budgets.
        resolutions: to choose from.
        table: latency table file; None for that of the run.
        other_machine: whether that table may be of another machine.
        progress: called after every scored architecture.
        pool: run folders of further searches, whose panels the fit is made to as well.

    Raises:
        UserError: as of ``derive``, at one of the resolutions.
    """
    config = with_table(run, config, table, other_machine=other_machine)
    prepared = prepare(config)
    configs = [at_resolution(config, size) for size in resolutions]
    for own in configs:  # all of them, before the first takes its time
        latencies = None if own.table is None else prepared.table
        constraints = constrain(own.space, prepared.tasks, own.budgets, latencies, own.costs)
        check_costs(replace(prepared, config=own, table=latencies, constraints=constraints))
    networks = [derive(run, own, table=None, other_machine=False, progress=progress, pool=pool) for own in configs]
    members = {task: min(networks, key=lambda each: each.results[task].best.loss) for task in config.tasks}
    architectures = {
        task: member.architectures[task].changed(
            provenance={
                **member.architectures[task].provenance,
                "resolutions": [_figures(each.architectures[task]) for each in networks],
            }
        )
        for task, member in members.items()
    }
    return ChosenNetworks(members=members, architectures=architectures)


def at_resolution(config: SearchConfig, size: Resolution) -> SearchConfig:
    """The configuration with all budgets at a deploy resolution, and with images of this size.

    A latency table holds for its resolutions alone: where no budget needs it, it is left out at a resolution that some
    budget of the run does not have.
    """
    own = [budget for of_task in config.budgets.values() for budget in of_task]
    is_needed = any(budget.unit == "ms" for budget in own) or all(budget.resolution == size for budget in own)
    return config.changed(
        budgets={
            task: tuple(budget.changed(resolution=size) for budget in of_task)
            for task, of_task in config.budgets.items()
        },
        data=config.data.changed(size=size),
        table=config.table if is_needed else None,
    )


def describe_choice(architecture: Architecture) -> str:
    """One line: the loss, the metric and the cost at every resolution, and the chosen one."""
    metric = architecture.provenance["metric"]
    figures = [
        f"{_text(each['resolution'])} loss {each['loss']:.4f}, {metric} {each['score']:.4f} ({each['macs'] / 1e6:.1f}M)"
        for each in architecture.provenance["resolutions"]
    ]
    return f"{architecture.task}: {'; '.join(figures)}: {_text(architecture.resolution)} is chosen"


def _figures(architecture: Architecture) -> dict[str, Any]:
    figures = {name: architecture.provenance[name] for name in ("loss", "score")}
    return {"resolution": list(architecture.resolution), "macs": architecture.cost.macs, **figures}


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
