"""One search from its configuration to its files: the work behind ``fbnetv5 search``.

The run folder holds ``config.json``, ``history.jsonl``, ``tensorboard/``, ``checkpoint/``, and at the end, per task, an
architecture ``TASK.json`` with its weights ``TASK.safetensors``, and ``pareto.json``. A killed run is resumed from its
folder alone and ends with the same files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import set_seed

from export.errors import UserError
from export.files import write_json
from fbnetv5.architecture import Architecture
from fbnetv5.costs.ranges import AnyTable, CostRange, check_budgets, cost_ranges, cost_tables
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.splits import Splits
from fbnetv5.data.targets import class_names
from fbnetv5.evaluate import check_labelled
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.folder import latest_link, make_folder, point_latest
from fbnetv5.runs.processes import in_first_process, make_accelerator
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import Stage, derive
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.results import describe, pareto_document, write_results
from fbnetv5.tasks import make_tasks, needed_targets
from fbnetv5.tasks.task import Task
from latency import estimate


def open_table(config: SearchConfig) -> AnyTable | None:
    """The configuration's latency table, if it names one."""
    return None if config.table is None else estimate.open_table(Path(config.table), other_machine=config.foreign_table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A configuration and what it refers to, opened once."""

    config: SearchConfig
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
    tables = cost_tables(config.space, tasks, config.budgets, table)
    return Prepared(config=config, parts=parts, tasks=tasks, table=table, tables=tables)


def start_run(
    config: SearchConfig, folder: Path, show_ranges: Callable[[Sequence[CostRange]], None], say: Callable[[str], None]
) -> tuple[Path, Prepared]:
    """Check everything that can be checked before anything is spent, then make the run folder.

    Args:
        config: of the search.
        folder: to make; ``latest`` beside it will name it.
        show_ranges: called with the costs of each task's networks, before the budgets are compared with them.
        say: prints a line for the user.

    Returns:
        The folder, the first process's where there are several; and what the configuration refers to, opened.

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
    return in_first_process(lambda: _make_run(config, folder, say)), prepared


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


def run_search(
    folder: Path, prepared: Prepared, report: Callable[[SearchEntry], None], stage: Stage
) -> dict[str, Architecture]:
    """Run or resume the search of a run folder to its end.

    Args:
        folder: the run folder.
        prepared: its configuration, opened.
        report: called every few steps.
        stage: called with every architecture scored after them; both in the first process only.

    Returns:
        The architecture found for each task; its files are written.

    Raises:
        UserError: bad input, a damaged checkpoint, or a loss that is not finite.
    """
    config = prepared.config
    set_seed(config.seed)
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
