"""Derives the network of another budget from a finished run, and writes it to a run folder of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Strict

from export.errors import UserError
from fbnetv5.architecture import Architecture
from fbnetv5.runs.config import RunConfig
from fbnetv5.search.bmtas.derive import derive_branched, with_budget
from fbnetv5.search.bmtas.results import write_network


class DerivationConfig(RunConfig):
    """The ``config.json`` of a derived network: tasks and images of the run that it comes from, and its budget."""

    title: ClassVar[str] = "derivation"
    kind: ClassVar[str] = "derivation"
    flags: ClassVar[frozenset[str]] = frozenset({"run", "budget", "task_names", "data", "seed"})
    run: str
    """Path of the run folder that the network comes from."""
    budget: str
    """As it was typed, such as "700M"."""
    task_names: Annotated[tuple[str, ...], Strict(False)]
    """Names of the run's tasks."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.task_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A derived network, written."""

    folder: Path
    architecture: Architecture


def derive(
    run: Path, amount: str, *, unit: str, table: Path | None, other_machine: bool, output: Path | None
) -> Derived:
    """Derive the network of a budget from a finished search and write it, with its weights, to a new run folder.

    Args:
        run: the run folder.
        amount: the budget as text, such as "700M" or "20ms".
        unit: of the budget, "macs" or "ms".
        table: latency table file; None for that of the run.
        other_machine: whether that table may be of another machine.
        output: the folder to make; None for ``derived/BUDGET`` in the run folder.

    Raises:
        UserError: the run is no search for a branched network, is unfinished or damaged; the budget is out of range; or
            the folder exists already.
    """
    settings = with_budget(run, amount, unit)
    folder = output or run / "derived" / amount.strip()
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it or choose another --output")
    architecture, network = derive_branched(run, settings, table=table, other_machine=other_machine)
    config = DerivationConfig(
        run=str(run.resolve()),
        budget=amount.strip(),
        task_names=settings.tasks,
        data=settings.data,
        seed=settings.seed,
    )
    folder.mkdir(parents=True)
    config.save(folder)
    write_network(folder, network, architecture)
    return Derived(folder=folder, architecture=architecture)
