"""Derives the networks of another budget from a finished run, and writes them to a run folder of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Strict

from export.errors import UserError
from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.runs.config import NAME, RunConfig, read_config
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.bmtas.derive import derive_branched
from fbnetv5.search.bmtas.derive import with_budget as branch_with_budget
from fbnetv5.search.bmtas.prepare import profile_options as branch_options
from fbnetv5.search.bmtas.results import write_network
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.derive import derive_pair
from fbnetv5.search.nars.derive import with_budget as nars_with_budget
from fbnetv5.search.nars.results import write_pair
from fbnetv5.search.nars.table import profile_options as nars_options
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import derive_networks
from fbnetv5.search.reinforce.derive import with_budget as search_with_budget


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
    """Derived networks, written."""

    folder: Path
    architectures: Mapping[str, Architecture]
    """By task; of a network of several tasks, under the name of its file, "branched"."""
    recipe: dict[str, Any] | None = None
    """Recipe of its training, for a network without weights."""


def derive(
    run: Path,
    amount: str,
    *,
    unit: str,
    table: Path | None,
    other_machine: bool,
    output: Path | None,
    progress: Progress,
) -> Derived:
    """Derive the networks of a budget from a finished search and write them to a new run folder.

    Networks of ``fbnetv5 search`` and ``branch`` come with the weights of their search; a pair of ``fbnetv5 nars`` is
    an architecture and a recipe.

    Args:
        run: the run folder.
        amount: the budget as text, such as "700M" or "20ms".
        unit: of the budget, "macs" or "ms".
        table: latency table file; None for that of the run.
        other_machine: whether that table may be of another machine.
        output: the folder to make; None for ``derived/BUDGET`` in the run folder.
        progress: called after every scored architecture.

    Raises:
        UserError: networks of other budgets do not come from such a run, it is unfinished or damaged; the budget is out
            of range; or the folder exists already.
    """
    config = with_budget(run, amount, unit)
    folder = output or run / "derived" / amount.strip()
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it or choose another --output")
    derived = DerivationConfig(
        run=str(run.resolve()), budget=amount.strip(), task_names=config.tasks, data=config.data, seed=config.seed
    )
    if isinstance(config, BranchConfig):
        architecture, network = derive_branched(run, config, table=table, other_machine=other_machine)
        _make(folder, derived)
        write_network(folder, network, architecture)
        return Derived(folder=folder, architectures={architecture.file_name: architecture})
    if isinstance(config, SearchConfig):
        networks = derive_networks(run, config, table=table, other_machine=other_machine, progress=progress)
        _make(folder, derived)
        networks.write(folder)
        return Derived(folder=folder, architectures=networks.architectures)
    if table is not None:
        config = config.with_table(table, other_machine=other_machine)
    pair = derive_pair(run, config)
    _make(folder, derived)
    write_pair(folder, config, pair.architecture, pair.recipe)
    found = {pair.architecture.file_name: pair.architecture}
    return Derived(folder=folder, architectures=found, recipe=pair.recipe)


def _make(folder: Path, config: DerivationConfig) -> None:
    folder.mkdir(parents=True)
    config.save(folder)


def with_budget(run: Path, amount: str, unit: str) -> BranchConfig | NarsConfig | SearchConfig:
    """The configuration of a search with another budget.

    Raises:
        UserError: networks of other budgets do not come from such a run, or the budget cannot be parsed.
    """
    if not (run / NAME).exists():
        raise UserError(
            f"{run} is no run folder, it has no {NAME}: name that of a finished fbnetv5 search, branch or nars"
        )
    match read_config(run)["kind"]:
        case BranchConfig.kind:
            return branch_with_budget(run, amount, unit)
        case NarsConfig.kind:
            return nars_with_budget(run, amount, unit)
        case SearchConfig.kind:
            return search_with_budget(run, amount, unit)
        case kind:
            raise UserError(
                f"{run} is the folder of a {kind}; networks of another budget come from runs of fbnetv5 search, branch "
                "and nars"
            )


def table_options(run: Path, amount: str, unit: str, luts: Path) -> str:
    """The options besides the device, as text, with which ``fbnetv5 profile`` measures the run's blocks."""
    config = with_budget(run, amount, unit)
    match config:
        case BranchConfig():
            return branch_options(config, luts)
        case NarsConfig():
            return nars_options(config, luts)
        case SearchConfig():
            return ""
