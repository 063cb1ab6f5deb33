"""Derives the network of another budget from a finished run, and writes it to a run folder of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Strict

from export.errors import UserError
from export.files import AnyPath
from export.progress import Log, silent
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import one_budget
from fbnetv5.runs.config import NAME, RunConfig, read_config
from fbnetv5.runs.options import Amount, find_table, path_of
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
    """The run folder that was made."""
    architecture: Architecture
    run: Path
    """The run folder that the network comes from."""
    recipe: dict[str, Any] | None = None
    """Recipe of its training, for a network without weights."""

    @property
    def file(self) -> Path:
        """The architecture file."""
        return self.folder / f"{self.architecture.file_name}.json"

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 derive --json``."""
        document = {
            "run": str(self.run),
            "folder": str(self.folder),
            "architecture": self.architecture.to_json(),
        }
        return document if self.recipe is None else {**document, "recipe": self.recipe}


def derive(
    run: AnyPath,
    *,
    flops: Amount | None = None,
    latency: Amount | None = None,
    device: str | None = None,
    table: AnyPath | None = None,
    luts: AnyPath = "luts",
    output: AnyPath | None = None,
    log: Log = silent,
) -> Derived:
    """Derive the network of another budget from a finished search, in seconds, and write it to a new run folder.

    A branched network comes with the weights of its search; a pair of ``nars`` is an architecture and a recipe. Give
    one budget, ``flops`` or ``latency``.

    Examples:
        >>> api.derive("runs/latest", flops="700M").architecture.cost.macs
        683210112

    Args:
        run: the run folder of ``branch`` or ``nars``.
        flops: maximum multiply-adds of the whole network, such as 7e8, "700M" or "1.2G@320x640".
        latency: maximum latency in milliseconds, such as 20.0 or "20ms".
        device: device whose latency table in ``luts`` predicts latency.
        table: latency table file, also of another machine; without it and ``device``, the table of the run is used.
        luts: folder of latency tables.
        output: folder to make; None for ``derived/BUDGET`` in the run folder.
        log: called with lines for the user.

    Raises:
        UserError: networks of other budgets do not come from such a run, it is unfinished or damaged; the budget is out
            of range; or the folder exists already.
        UnavailableError: the device has no table, and is not on this machine.
    """
    source, (amount, unit) = Path(run), one_budget(flops, latency)
    config = with_budget(source, amount, unit)
    file = find_table(device, table, Path(luts), log, _table_options(config, Path(luts)))
    folder = path_of(output) or source / "derived" / amount.strip()
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it or choose another --output")
    derived = DerivationConfig(
        run=str(source.resolve()), budget=amount.strip(), task_names=config.tasks, data=config.data, seed=config.seed
    )
    if isinstance(config, BranchConfig):
        architecture, network = derive_branched(source, config, table=file, other_machine=table is not None)
        _make(folder, derived)
        write_network(folder, network, architecture)
        return Derived(folder=folder, architecture=architecture, run=source)
    if file is not None:
        config = config.with_table(file, other_machine=table is not None)
    pair = derive_pair(source, config)
    _make(folder, derived)
    write_pair(folder, config, pair.architecture, pair.recipe)
    return Derived(folder=folder, architecture=pair.architecture, run=source, recipe=pair.recipe)


def _make(folder: Path, config: DerivationConfig) -> None:
    folder.mkdir(parents=True)
    config.save(folder)


def with_budget(run: Path, amount: str, unit: str) -> BranchConfig | NarsConfig:
    """The configuration of a search with another budget.

    Raises:
        UserError: networks of other budgets do not come from such a run, or the budget cannot be parsed.
    """
    if not (run / NAME).exists():
        raise UserError(f"{run} is no run folder, it has no {NAME}: name that of a finished fbnetv5 branch or nars")
    match read_config(run)["kind"]:
        case BranchConfig.kind:
            return branch_with_budget(run, amount, unit)
        case NarsConfig.kind:
            return nars_with_budget(run, amount, unit)
        case kind:
            raise UserError(
                f"{run} is the folder of a {kind}; networks of another budget come from runs of fbnetv5 branch and nars"
            )


def _table_options(config: BranchConfig | NarsConfig, luts: Path) -> str:
    """The options, as text, with which ``fbnetv5 profile`` measures the blocks that the run's networks have."""
    return branch_options(config, luts) if isinstance(config, BranchConfig) else nars_options(config, luts)
