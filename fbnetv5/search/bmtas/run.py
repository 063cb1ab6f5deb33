"""Runs one search for a branched network from its configuration to its files: the work behind ``fbnetv5 branch``.

The run folder has ``config.json``, ``history.jsonl``, ``tensorboard/`` and ``checkpoint/``, and at the end the network
``branched.json`` with its weights ``branched.safetensors``, and ``pareto.json``. A killed run is resumed from its
folder alone and ends with the same files.
"""

from collections.abc import Callable
from pathlib import Path

from accelerate.utils import set_seed

from fbnetv5.architecture import Architecture
from fbnetv5.evaluate import check_splits
from fbnetv5.runs.checkpoint import load_checkpoint
from fbnetv5.runs.folder import make_run
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.runs.processes import in_first_process, make_accelerator
from fbnetv5.runs.start import check_processes
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.derive import best_network
from fbnetv5.search.bmtas.entry import BranchEntry
from fbnetv5.search.bmtas.loop import BranchLoop
from fbnetv5.search.bmtas.prepare import Prepared, check_budget, initial_weights, prepare
from fbnetv5.search.bmtas.results import log_probabilities_of, write_network, write_pareto
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.search.bmtas.trees import TreeCosts


def start_branch(
    config: BranchConfig, folder: Path, show_range: Callable[[TreeCosts], None], log: Callable[[str], None]
) -> tuple[Path, Prepared]:
    """Check all inputs before any computing time is spent, then make the run folder.

    Args:
        config: of the search.
        folder: to make; the link ``latest`` beside it will point to it.
        show_range: called with the costs of trees, before the budget is compared with them.
        log: prints a line for the user.

    Returns:
        The folder, the first process's where there are several; and the configuration with its inputs, opened.

    Raises:
        UserError: an input does not fit, or the folder exists already or cannot be written.
        UnavailableError: a library cannot load the initial weights.
    """
    prepared = prepare(config)
    if make_accelerator().is_main_process:
        show_range(prepared.costs)
    check_budget(config, prepared.costs)
    check_splits(prepared.tasks.values(), prepared.splits)
    initial_weights(config)
    return in_first_process(lambda: make_run(config, folder, log)), prepared


def run_branch(folder: Path, prepared: Prepared, report: Callable[[BranchEntry], None]) -> Architecture:
    """Run or resume the search of a run folder to its end.

    Args:
        folder: the run folder.
        prepared: its configuration, opened.
        report: called with every entry of the history, in the first process.

    Returns:
        The architecture of the network; its files are written.

    Raises:
        UserError: bad input, a damaged checkpoint, or processes that differ.
        VerificationError: too many losses are not finite, or images unreadable.
    """
    check_processes(folder, prepared.splits.test)
    set_seed(prepared.config.seed)
    supernet = BranchedSupernet(prepared.space, prepared.tasks)
    if load_checkpoint(folder / CHECKPOINT) is None and (weights := initial_weights(prepared.config)):
        supernet.load_encoder(weights)
    loop = BranchLoop(prepared, folder, supernet)
    loop.run(report)
    log_probabilities = log_probabilities_of(loop.logits)
    architecture, network = best_network(prepared, supernet, log_probabilities, loop.accelerator.device)
    if loop.accelerator.is_main_process:
        write_network(folder, network, architecture)
        write_pareto(folder, prepared, log_probabilities)
    return architecture
