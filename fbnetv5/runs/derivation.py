"""The folders of derived networks: their configuration, and writing one as a whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Strict

from fbnetv5.runs.config import RunConfig

DERIVED = "derived"
"""Folder in a run folder with a folder per budget."""


class DerivationConfig(RunConfig):
    """The ``config.json`` of a derived network: tasks and images of the run that it comes from, and its budgets."""

    title: ClassVar[str] = "derivation"
    kind: ClassVar[str] = "derivation"
    flags: ClassVar[frozenset[str]] = frozenset({"run", "budget", "task_names", "data", "seed"})
    run: str
    """Path of the run folder that the network comes from."""
    budget: str
    """As it was typed, such as "700M"; of several, such as "700M+8ms+5M-params"."""
    task_names: Annotated[tuple[str, ...], Strict(False)]
    """Names of the run's tasks."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.task_names

    @classmethod
    def of(cls, run: Path, config: RunConfig, budget: str) -> "DerivationConfig":
        """That of networks of a budget from a run with this configuration."""
        return cls(run=str(run.resolve()), budget=budget, task_names=config.tasks, data=config.data, seed=config.seed)


def write_derived(folder: Path, config: DerivationConfig, write: Callable[[Path], None]) -> None:
    """Make a folder with the configuration and the files that ``write`` writes; without all of them there is none.

    A folder that exists is complete, also after a process was killed.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        config.save(partial)
        write(partial)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
