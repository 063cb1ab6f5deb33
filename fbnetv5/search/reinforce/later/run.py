"""Adds a task to a finished search, from its configuration to its files: the work behind ``fbnetv5 search --add``.

The files are those of a search, in a folder of their own, and no file of the search is written. The networks of its
other tasks are not affected: they have their own copies of the weights.
"""

from collections.abc import Callable
from pathlib import Path

from accelerate.utils import set_seed

from export.progress import Log, Progress, silent
from fbnetv5.architecture import Architecture
from fbnetv5.costs.ranges import cost_range
from fbnetv5.evaluate import check_splits
from fbnetv5.runs.folder import make_folder
from fbnetv5.runs.processes import in_first_process
from fbnetv5.runs.start import check_processes
from fbnetv5.search.reinforce.final_phase import find_networks, observe
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.later.loop import LaterEntry, LaterLoop
from fbnetv5.search.reinforce.later.prepare import LaterPrepared, prepare_later
from fbnetv5.search.reinforce.panel import PANEL
from fbnetv5.search.reinforce.prepare import memory_ranges, unused_values, with_usable_table
from fbnetv5.search.reinforce.results import best_architecture, write_results


def start_later(config: LaterConfig, folder: Path, log: Log, *, needs_table: bool) -> tuple[Path, LaterPrepared]:
    """Check all inputs before any computing time is spent, then make the folder.

    Args:
        config: of the later task.
        folder: to make.
        log: called with the costs of the task's networks, and if their latencies are not predicted.
        needs_table: whether the latency table must predict the task's networks; else one without its head is left out.

    Returns:
        The folder, the first process's where there are several; and the configuration with its inputs, opened.

    Raises:
        UserError: an input does not fit, or the folder exists already or cannot be written.
    """
    prepared = prepare_later(config)
    for name, constraints in prepared.constraints.items():
        for table in constraints.tables:
            log(cost_range(name, table).text)
    for line in [*unused_values(prepared), *memory_ranges(prepared)]:
        log(line)
    prepared = with_usable_table(prepared, log, is_needed=needs_table)
    check_splits(prepared.tasks.values(), prepared.splits)

    def make() -> Path:
        make_folder(folder, flag="--name")
        prepared.later.save(folder)
        return folder

    return in_first_process(make), prepared


def run_later(
    folder: Path, prepared: LaterPrepared, report: Callable[[LaterEntry], None], progress: Progress
) -> dict[str, Architecture]:
    """Run or resume a later task to its end.

    Args:
        folder: the folder of the later task.
        prepared: its configuration, opened.
        report: called with every entry of the history, in the first process.
        progress: called after every scored architecture of the final phase, in the first process.

    Returns:
        The architecture by the name of the task; its files are written.

    Raises:
        UserError: bad input, a damaged checkpoint, or processes that differ.
        VerificationError: a loss is not finite.
    """
    config = prepared.config
    check_processes(folder, prepared.splits.test)
    set_seed(config.seed)
    supernet = prepared.make_supernet()
    loop = LaterLoop(folder, prepared, supernet)
    loop.run(report)
    main = loop.accelerator.is_main_process
    shown: Progress = progress if main else silent
    panel = observe(loop, shown)
    results = find_networks(loop, panel, shown)
    architectures = {
        name: best_architecture(config, task, results[name], prepared.table, added_to=prepared.later.run)
        for name, task in prepared.tasks.items()
    }
    if main:
        panel.save(folder / PANEL)
        write_results(folder, supernet, prepared, architectures, results)
    return architectures
