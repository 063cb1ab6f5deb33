"""The search methods that derive networks of other budgets from their finished runs, by the kind of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from export.errors import UserError
from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.costs.cost_files import CostFile
from fbnetv5.runs.config import NAME, read_config
from fbnetv5.search.bmtas import derive as bmtas
from fbnetv5.search.nars import derive as nars
from fbnetv5.search.reinforce import derive as reinforce
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later import derive as later
from fbnetv5.search.reinforce.later.config import LaterConfig


class Networks(Protocol):
    """Networks of another budget, not yet written."""

    @property
    def architectures(self) -> Mapping[str, Architecture]:
        """By task, or the only one by the name of its file."""

    @property
    def recipe(self) -> dict[str, Any] | None:
        """Recipe of their training, for networks without weights."""

    def write(self, folder: Path) -> None:
        """Write their files."""


class Method(Protocol):
    """The module ``derive`` of a search method."""

    def with_budgets(self, run: Path, texts: Mapping[str, str]) -> Any:
        """The configuration of a run with other budgets, by unit."""

    def profile_options(self, config: Any, luts: Path) -> str:
        """The options besides the device, as text, with which ``fbnetv5 profile`` measures the run's blocks."""

    def derive(
        self, run: Path, config: Any, *, table: Path | None, other_machine: bool, progress: Progress
    ) -> Networks:
        """The networks of that budget."""


METHODS: Mapping[str, Method] = {"search": reinforce, "later-task": later, "branch": bmtas, "nars": nars}
"""By the kind of their runs."""


WITH_COSTS: Mapping[str, type[SearchConfig | LaterConfig]] = {"search": SearchConfig, "later-task": LaterConfig}
"""By the kind of their runs, the configurations that have cost files."""


def known_costs(run: Path) -> tuple[CostFile, ...]:
    """The cost files of a finished search.

    Raises:
        UserError: a run of its method has none.
    """
    kind = read_config(run)["kind"]
    if kind not in WITH_COSTS:
        raise UserError(f"{run} is the folder of a {kind}; --cost is for runs of fbnetv5 search")
    return WITH_COSTS[kind].load(run).costs


def method_of(run: Path) -> Method:
    """The method of a finished search.

    Raises:
        UserError: networks of other budgets do not come from such a run.
    """
    if not (run / NAME).exists():
        raise UserError(
            f"{run} is no run folder, it has no {NAME}: name that of a finished fbnetv5 search, branch or nars"
        )
    kind = read_config(run)["kind"]
    if kind not in METHODS:
        raise UserError(
            f"{run} is the folder of a {kind}; networks of another budget come from runs of fbnetv5 search, branch "
            "and nars"
        )
    return METHODS[kind]
