"""Derives the networks of another budget from a finished run, and writes them to a run folder of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Strict

from export.errors import UserError
from fbnetv5.architecture import Architecture
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.config import Run, RunConfig, read_config
from fbnetv5.search.bmtas.derive import derive_branched

Method = Callable[..., Mapping[str, tuple[Architecture, Network]]]
"""(run, budget, unit=, table=, other_machine=) -> by the name of its files, each network and its record."""

METHODS: dict[str, Method] = {"branch": derive_branched}
"""Kind of a run -> the function that derives from it. Every kind is also the name of the command that makes the run."""


class DerivationConfig(RunConfig):
    """The ``config.json`` of derived networks: tasks and images of the run that they come from, and their budget."""

    title: ClassVar[str] = "derivation"
    kind: ClassVar[str] = "derivation"
    flags: ClassVar[frozenset[str]] = frozenset({"run", "budget", "task_names", "data", "seed"})
    run: str
    """Path of the run folder that the networks come from."""
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
    architectures: dict[str, Architecture]
    """By the name of their files, without suffix."""


def derive(
    run: Path, amount: str, *, unit: str, table: Path | None, other_machine: bool, output: Path | None
) -> Derived:
    """Derive the networks of a budget from a finished run and write them, with their weights, to a new run folder.

    Args:
        run: the run folder.
        amount: the budget as text, such as "700M" or "20ms".
        unit: of the budget, "macs" or "ms".
        table: latency table file; None for that of the run.
        other_machine: whether that table may be of another machine.
        output: the folder to make; None for ``derived/BUDGET`` in the run folder.

    Raises:
        UserError: the run is of a method without this ability, is unfinished or damaged; the budget is out of range; or
            the folder exists already.
    """
    method, of_run = _method_of(run), Run.load(run)
    folder = output or run / "derived" / amount.strip()
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it or choose another --output")
    networks = method(run, amount, unit=unit, table=table, other_machine=other_machine)
    seed = next(iter(networks.values()))[0].provenance["seed"]
    config = DerivationConfig(
        run=str(run.resolve()), budget=amount.strip(), task_names=of_run.tasks, data=of_run.data, seed=seed
    )
    folder.mkdir(parents=True)
    config.save(folder)
    for name, (architecture, network) in networks.items():
        save_tensors(folder / f"{name}.safetensors", network.state_dict())
        architecture.save(folder / f"{name}.json")
    return Derived(folder=folder, architectures={name: record for name, (record, _) in networks.items()})


def _method_of(run: Path) -> Method:
    """The function that derives from a run of this kind; raises UserError if there is none."""
    kind = read_config(run).get("kind")
    if kind not in METHODS:
        commands = ", ".join(f"fbnetv5 {name}" for name in METHODS)
        raise UserError(f"{run} is the folder of a {kind}; networks of another budget come from runs of: {commands}")
    return METHODS[kind]
