"""One search from its configuration to its files: the work behind ``fbnetv5 search``.

The run folder holds ``config.json``, ``history.jsonl``, ``tensorboard/``, ``checkpoint/``, and at the end, per task, an
architecture ``TASK.json`` with its weights ``TASK.safetensors``, and ``pareto.json``. A killed run is resumed from its
folder alone and ends with the same files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed

from export.errors import UserError
from export.files import write_json
from fbnetv5 import __version__
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import Budget, format_apart
from fbnetv5.costs.tables import CostTable, Counter, latency_table
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.splits import Splits
from fbnetv5.data.targets import class_names
from fbnetv5.evaluate import check_labelled
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.folder import latest_link, make_folder, point_latest
from fbnetv5.runs.processes import in_first_process, make_accelerator
from fbnetv5.search.config import SearchConfig
from fbnetv5.search.derive import pareto_front
from fbnetv5.search.final import Derived, Stage, derive
from fbnetv5.search.loop import SearchLoop
from fbnetv5.search.progress import Report
from fbnetv5.search.scoring import calibration_images
from fbnetv5.spaces.space import Space
from fbnetv5.tasks import make_tasks, needed_targets
from fbnetv5.tasks.task import Task
from latency import estimate
from latency.estimate import EstimatedTable
from latency.table import LatencyTable

AnyTable = LatencyTable | EstimatedTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRange:
    """What a task's networks cost in a space, in the unit of its budget."""

    task: str
    unit: str
    cheapest: float
    expected: float
    """Mean over uniformly drawn architectures."""
    dearest: float


def start_run(
    config: SearchConfig, folder: Path, show_ranges: Callable[[Sequence[CostRange]], None], say: Callable[[str], None]
) -> Path:
    """Check everything that can be checked before anything is spent, then make the run folder.

    Args:
        config: of the search.
        folder: to make; ``latest`` beside it will name it.
        show_ranges: called with what each task's networks cost, before the budgets are held against it.
        say: takes a line for the user.

    Returns:
        The folder, the first process's where there are several.

    Raises:
        UserError: something does not fit, or the folder exists already or cannot be written.
    """
    prepared = prepare(config)
    ranges = cost_ranges(prepared.tables)
    if make_accelerator().is_main_process:
        show_ranges(ranges)
    check_budgets(ranges, config.budgets)
    parts = prepared.parts
    for task in prepared.tasks.values():
        for use, part in (("learn from", parts.weights), ("hold out", parts.policies), ("test on", parts.test)):
            check_labelled(task, part, use)
    return in_first_process(lambda: _make_run(config, folder, say))


def _make_run(config: SearchConfig, folder: Path, say: Callable[[str], None]) -> Path:
    latest_link(folder.parent)
    make_folder(folder, otherwise="--name")
    try:
        config.save(folder)
    except UserError:
        folder.rmdir()
        raise
    point_latest(folder, say)
    return folder


def cost_tables(
    space: Space, tasks: Mapping[str, Task], budgets: Mapping[str, Budget], table: AnyTable | None
) -> dict[str, CostTable]:
    """Each task's costs in its budget's unit."""
    tables: dict[str, CostTable] = {}
    counters: dict[Resolution, Counter] = {}
    for name, budget in budgets.items():
        if budget.unit == "ms":
            if table is None:
                raise UserError(
                    "a budget in milliseconds needs a latency table; make one with: fbnetv5 profile --device cpu"
                )
            tables[name] = latency_table(space, tasks[name], budget.resolution, table.values_ms, unit=table.unit)
        else:
            counter = counters.setdefault(budget.resolution, Counter(budget.resolution))
            tables[name] = counter.table(space, tasks[name], budget.unit)
    return tables


def cost_ranges(tables: Mapping[str, CostTable]) -> list[CostRange]:
    """The cheapest, the expected and the dearest network of each task."""
    ranges = []
    for name, table in tables.items():
        counts = np.array(table.space.choice_counts)
        drawn = np.random.default_rng(0).integers(counts, size=(2048, len(counts)))
        ranges.append(
            CostRange(
                task=name,
                unit=table.unit,
                cheapest=table.cheapest,
                expected=float(table(drawn).mean()),
                dearest=table.dearest,
            )
        )
    return ranges


def check_budgets(ranges: Sequence[CostRange], budgets: Mapping[str, Budget]) -> None:
    """Refuse budgets that no network meets or that every network meets.

    Raises:
        UserError: a budget lies outside its task's range.
    """
    for found in ranges:
        budget = budgets[found.task]
        if not found.cheapest <= budget.limit <= found.dearest:
            low, high, asked = format_apart((found.cheapest, found.dearest, budget.limit), found.unit)
            size = "x".join(map(str, budget.resolution))
            raise UserError(
                f"budget {asked} for {found.task} at {size} is outside what this space offers: {low} to {high}. "
                "Choose one inside, or another variant or resolution"
            )


def open_table(config: SearchConfig) -> AnyTable | None:
    """The configuration's latency table, if it names one."""
    return None if config.table is None else estimate.open_table(Path(config.table), foreign=config.foreign_table)


def units(config: SearchConfig) -> dict[str, str]:
    """In which each task's costs are printed."""
    table = open_table(config)
    latency = "ms" if table is None else table.unit
    return {task: latency if budget.unit == "ms" else budget.unit for task, budget in config.budgets.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a configuration refers to, opened."""

    parts: Splits
    tasks: dict[str, Task]
    table: AnyTable | None
    tables: dict[str, CostTable]


def prepare(config: SearchConfig) -> Prepared:
    """Open the images, the tasks on their classes, and the cost tables.

    Raises:
        UserError: one of them does not fit.
    """
    parts = config.data.open(needed_targets(config.tasks))
    tasks = make_tasks(config.tasks, class_names(parts.weights.targets))
    table = open_table(config)
    return Prepared(
        parts=parts, tasks=tasks, table=table, tables=cost_tables(config.space, tasks, config.budgets, table)
    )


def run_search(folder: Path, report: Report, stage: Stage) -> dict[str, Architecture]:
    """Run or resume the search of a run folder to its end.

    Args:
        folder: the run folder, with its ``config.json``.
        report: called every few steps.
        stage: called with every architecture scored after them; both in the first process only.

    Returns:
        The architecture found for each task; its files are written.

    Raises:
        UserError: bad input, a damaged checkpoint, or a loss that is not finite.
    """
    config = SearchConfig.load(folder)
    set_seed(config.seed)
    prepared = prepare(config)
    supernet = Supernet(config.space, prepared.tasks)
    loop = SearchLoop(config, folder, supernet, prepared.parts, prepared.tables)
    loop.run(report)
    main = loop.accelerator.is_main_process
    derived = derive(loop, prepared.tables, stage if main else lambda what, done, total: None)
    found = {name: describe(config, task, derived[name], prepared.table) for name, task in prepared.tasks.items()}
    if main:
        write_results(folder, supernet, prepared.parts, found)
        write_json(folder / "pareto.json", pareto_document(config, derived))
    return found


def describe(config: SearchConfig, task: Task, derived: Derived, table: AnyTable | None) -> Architecture:
    """The architecture record of a task's best finalist."""
    result = derived.best
    budget = config.budgets[task.name]
    choices = np.array(result.choices, dtype=np.int64)
    counter = Counter(budget.resolution)
    latency = None
    if table is not None:
        value = latency_table(config.space, task, budget.resolution, table.values_ms).one(choices)
        latency = {"value": value, "table": table.name}
    return Architecture(
        space=config.space,
        task=task.name,
        classes=task.classes,
        choices=result.choices,
        resolution=budget.resolution,
        macs=int(counter.table(config.space, task, "macs").one(choices)),
        params=int(counter.table(config.space, task, "params").one(choices)),
        latency_ms=latency,
        provenance={
            "version": __version__,
            "seed": config.seed,
            "budget": {"limit": budget.limit, "unit": budget.unit},
            "trained_at": list(config.data.size),
            "metric": task.metric.name,
            "score": result.score,
            "loss": result.loss,
            "panel": derived.check.to_json(),
        },
    )


def write_results(folder: Path, supernet: Supernet, parts: Splits, found: Mapping[str, Architecture]) -> None:
    """Write each network's recalibrated weights, then its architecture file, which says that both are there."""
    device = next(supernet.parameters()).device
    images = calibration_images(parts.weights, device)
    for name, architecture in found.items():
        network = supernet.derive(name, architecture.choices_array).to(device).to(memory_format=torch.channels_last)
        recalibrate(network, images, network)
        save_tensors(folder / f"{name}.safetensors", network.state_dict())
        architecture.save(folder / f"{name}.json")


def pareto_document(config: SearchConfig, derived: Mapping[str, Derived]) -> dict[str, Any]:
    """Per task, the finalists that no other beats in both cost and loss."""
    fronts = {
        name: {
            "unit": config.budgets[name].unit,
            "points": [
                {"cost": point.cost, "loss": point.loss, "score": point.score, "choices": list(point.choices)}
                for point in pareto_front(found.finalists)
            ],
        }
        for name, found in derived.items()
    }
    return {"schema": 1, "tasks": fronts}
