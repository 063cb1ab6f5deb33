"""Runs one search from its configuration to its files: the work behind ``fbnetv5 search``.

The run folder has ``config.json``, ``history.jsonl``, ``tensorboard/`` and ``checkpoint/``, and at the end, per task,
an architecture ``TASK.json`` with its weights ``TASK.safetensors``, ``panel.safetensors`` and ``pareto.json``. A killed
run is resumed from its folder alone and ends with the same files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate.utils import set_seed

from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.costs.ranges import CostRange, cost_range
from fbnetv5.evaluate import check_splits
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.folder import make_run
from fbnetv5.runs.processes import in_first_process, make_accelerator
from fbnetv5.runs.start import check_processes, wait_for_file
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.final_phase import find_networks, observe
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.panel import PANEL
from fbnetv5.search.reinforce.prepare import (
    Prepared,
    check_costs,
    initial_weights,
    memory_ranges,
    prepare,
    unused_values,
)
from fbnetv5.search.reinforce.results import PARETO, best_architecture, write_results


def start_run(
    config: SearchConfig, folder: Path, show_ranges: Callable[[Sequence[CostRange]], None], log: Callable[[str], None]
) -> tuple[Path, Prepared]:
    """Check all inputs before any computing time is spent, then make the run folder.

    Args:
        config: of the search.
        folder: to make; the link ``latest`` beside it will point to it.
        show_ranges: called with the costs of each task's networks, before the budgets are compared with them.
        log: prints a line for the user.

    Returns:
        The folder, the first process's where there are several; and the configuration with its inputs, opened.

    Raises:
        UserError: an input does not fit, or the folder exists already or cannot be written.
        UnavailableError: a library cannot load the initial weights.
    """
    prepared = prepare(config)
    if make_accelerator().is_main_process:
        show_ranges([cost_range(name, table) for name, own in prepared.constraints.items() for table in own.tables])
        for line in [*unused_values(prepared), *memory_ranges(prepared)]:
            log(line)
    check_costs(prepared)
    check_splits(prepared.tasks.values(), prepared.splits)
    initial_weights(config, folder)
    return in_first_process(lambda: make_run(config, folder, log)), prepared


def run_search(
    folder: Path, prepared: Prepared, report: Callable[[SearchEntry], None], progress: Progress
) -> dict[str, Architecture]:
    """Run or resume the search of a run folder to its end.

    Args:
        folder: the run folder.
        prepared: its configuration, opened.
        report: called with every entry of the history, in the first process.
        progress: called after every scored architecture of the final phase, in the first process.

    Returns:
        The architecture of each task; its files are written.

    Raises:
        UserError: bad input, a damaged checkpoint, or processes that differ.
        VerificationError: too many losses are not finite, or images unreadable.
    """
    config = prepared.config
    check_processes(folder, prepared.splits.test)
    set_seed(config.seed)
    supernet = Supernet(config.space, prepared.tasks)
    supernet.load_blocks(initial_weights(config, folder))
    if config.compile_blocks:
        supernet.compile_blocks()
    loop = SearchLoop(config, folder, supernet, prepared.splits, prepared.constraints)
    loop.run(report)
    main = loop.accelerator.is_main_process
    shown: Progress = progress if main else lambda stage, done, total: None
    panel = observe(loop, shown)
    results = find_networks(loop, panel, shown)
    architectures = {
        name: best_architecture(config, task, results[name], prepared.table) for name, task in prepared.tasks.items()
    }
    if main:
        panel.save(folder / PANEL)
        write_results(folder, supernet, prepared, architectures, results)
    wait_for_file(folder / PARETO)
    return architectures
