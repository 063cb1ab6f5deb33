"""Runs one search for an architecture and a recipe, from its configuration to its files: ``fbnetv5 nars``.

The run folder has ``config.json``, ``history.jsonl``, ``trials.json`` and ``trials/NUMBER/``, a run folder per trial,
and at the end ``TASK.json`` with its weights ``TASK.safetensors``, ``recipe.json`` and ``pareto.json``. A killed run is
resumed from its folder alone and ends with the same files.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from export.errors import UserError
from export.files import write_json
from fbnetv5.architecture import Architecture
from fbnetv5.costs.constraints import Constraints
from fbnetv5.runs.folder import make_run, running
from fbnetv5.runs.history import History
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.search.nars.checks import check_budgets, check_distillation, check_labels, check_trainings
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.entry import NarsEntry
from fbnetv5.search.nars.jobs import Runner
from fbnetv5.search.nars.loop import NarsLoop
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.results import pareto_document, train_command, write_best
from fbnetv5.search.nars.trials import load_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class NarsResult:
    """The best pair that a search found, and the trial that trained it."""

    run: Path
    """The run folder, with the architecture, its weights, ``recipe.json`` and ``pareto.json``."""
    architecture: Architecture
    trial: int
    """Number of the trial, whose folder is ``trials/NUMBER``."""
    score: float
    """The task's metric on the held-out images."""
    recipe: dict[str, object]
    """Fields of the training."""

    @property
    def train_command(self) -> str:
        """The command that trains the pair."""
        return train_command(self.run, self.architecture)

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 nars --json``."""
        return {
            "run": str(self.run),
            "trial": self.trial,
            "score": self.score,
            "architecture": self.architecture.to_json(),
            "recipe": self.recipe,
            "train_command": self.train_command,
        }


def start_nars(
    config: NarsConfig, folder: Path, show_ranges: Callable[[Constraints], None], log: Callable[[str], None]
) -> tuple[Path, Prepared]:
    """Check all inputs before any computing time is spent, then make the run folder.

    Args:
        config: of the search.
        folder: to make; the link ``latest`` beside it will point to it.
        show_ranges: called with the budgets and the costs of the space, before they are compared.
        log: prints a line for the user.

    Raises:
        UserError: an input does not fit, or the folder exists already or cannot be written.
        UnavailableError: the library of a teacher, or its weights, are not on this machine.
    """
    check_single_process()
    prepared = prepare(config)
    check_trainings(prepared)
    constraints = prepared.constraints(config.budgets)
    show_ranges(constraints)
    check_budgets(prepared, constraints)
    check_labels(prepared)
    check_distillation(prepared)
    return make_run(config, folder, log), prepared


def check_single_process() -> None:
    """Raise UserError in one of several processes, which would write the same files."""
    if make_accelerator().num_processes > 1:
        raise UserError("a search for recipes is one process; use --jobs or --ray for trainings at the same time")


def run_nars(folder: Path, prepared: Prepared, runner: Runner, report: Callable[[NarsEntry], None]) -> NarsResult:
    """Run or resume the search of a run folder to its end.

    Args:
        folder: the run folder.
        prepared: its configuration, opened.
        runner: trains trials.
        report: called with the state after every batch of trainings.

    Raises:
        UserError: a folder is damaged, the search began with other images or latencies or is running, the teacher is
            missing, or there are several processes.
        UnavailableError: the library of a teacher, or its weights, are not on this machine.
        VerificationError: all trainings failed.
    """
    check_single_process()
    check_distillation(prepared)  # again: it may be missing when the search is resumed
    set_seed(prepared.config.seed)
    with running(folder), closing(History(folder, step=-1)) as history:
        loop = NarsLoop(prepared, load_trials(folder, prepared.pairs.counts, prepared.identity), runner)

        def record(entry: NarsEntry) -> None:
            history.add(entry)
            report(entry)

        best = loop.run(record)
    architecture = write_best(folder, prepared, loop.trials, best)
    write_json(folder / "pareto.json", pareto_document(prepared, loop.trials))
    return NarsResult(
        run=folder,
        architecture=architecture,
        trial=best,
        score=loop.trials.results[best].scores[-1],
        recipe=prepared.pairs.recipe(loop.trials.pairs[best]),
    )
