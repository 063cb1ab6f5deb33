"""The best pair for other budgets from the trials of a finished search: the predictor decides, without a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.progress import Progress
from fbnetv5.architecture import Architecture
from fbnetv5.costs.budgets import parse_budgets
from fbnetv5.search.nars.checks import check_budgets
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.loop import NarsLoop
from fbnetv5.search.nars.prepare import prepare
from fbnetv5.search.nars.results import pair_architecture, write_pair
from fbnetv5.search.nars.table import profile_options as profile_options
from fbnetv5.search.nars.trial import read_result
from fbnetv5.search.nars.trials import load_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedPair:
    """An untrained pair.

    The architecture's provenance has the predicted metric, after as many steps as the search compared trials at, and
    the mean error of such predictions for trials that were held out of the fit.
    """

    config: NarsConfig
    architecture: Architecture
    recipe: dict[str, Any]

    @property
    def architectures(self) -> dict[str, Architecture]:
        """The architecture, by the name of its file."""
        return {self.architecture.file_name: self.architecture}

    def write(self, folder: Path) -> None:
        """Write the architecture and the recipe."""
        write_pair(folder, self.config, self.architecture, self.recipe)


def derive(
    run: Path, config: NarsConfig, *, table: Path | None, other_machine: bool, progress: Progress
) -> DerivedPair:
    """The pair with the best predicted score under the configuration's budgets.

    Args:
        run: the run folder of a finished search.
        config: that of the run, with other budgets.
        table: latency table file; None for that of the run.
        other_machine: whether that table may be of another machine.
        progress: not called, it takes a moment.

    Raises:
        UserError: the run is unfinished or damaged, a budget is out of range, or a latency has no table.
    """
    if table is not None:
        config = config.with_table(table, other_machine=other_machine)
    is_needed = table is not None or any(budget.unit == "ms" for budget in config.budgets)
    prepared = prepare(config, needs_table=is_needed)
    trials = load_trials(run, prepared.pairs.counts)
    results = [read_result(trials.trial_folder(number)) for number in range(len(trials.pairs))]
    if len(trials.batches) <= config.iterations or None in results:
        raise UserError(f"{run} is unfinished. Finish it with: fbnetv5 nars --resume {run}")
    trials.results = [result for result in results if result is not None]

    def no_training(folders: object) -> None:
        raise AssertionError

    loop = NarsLoop(prepared, trials, no_training)
    check_budgets(prepared, loop.constraints)
    best = loop.evolve(loop.constraints)[:1]
    predicted = {
        "score": prepared.sign * float(loop.ensemble()(best)[0]),
        "mean_error": loop.quality().mean_absolute_error,
        "step": loop.stop_at,
    }
    return DerivedPair(
        config=config,
        architecture=pair_architecture(prepared, best[0], predicted=predicted),
        recipe=prepared.pairs.recipe(best[0]),
    )


def with_budgets(run: Path, texts: Mapping[str, str]) -> NarsConfig:
    """The configuration of a search for pairs, with other budgets.

    Args:
        run: the run folder of such a search.
        texts: the budgets by unit, which hold together; without a resolution, that of the run holds.

    Raises:
        UserError: a budget cannot be parsed, or the search was for the recipe of one architecture.
    """
    config = NarsConfig.load(run)
    if config.fixed is not None:
        raise UserError(f"{run} searched the recipe of one architecture, which has no other budget")
    budgets = parse_budgets(texts, tasks=("network",), resolutions={"network": config.resolution})
    return config.changed(budgets=budgets["network"])
