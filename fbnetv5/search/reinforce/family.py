"""A family of networks from one search: it runs for one of the budgets, and the networks of the others are derived.

The search runs for the middle budget, so that no other is far from the costs of the panel, near which the fit was made
and the weights were trained. Each of the others gets a folder as ``fbnetv5 derive`` makes it.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from export.errors import UserError
from export.files import read_json, write_json
from export.progress import Progress
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.costs.budgets import (
    Budget,
    Repeatable,
    budget_label,
    check_has_table,
    family_texts,
    parse_budgets,
)
from fbnetv5.runs.derivation import DERIVED, DerivationConfig, write_derived
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.derive import derive
from fbnetv5.search.reinforce.results import PARETO, merged_fronts

Budgets = dict[str, tuple[Budget, ...]]
"""By task."""


def middle_of_family(members: Mapping[str, Budgets]) -> tuple[Budgets, dict[str, Budgets]]:
    """The budgets that a search runs for, and the others by label; of two in the middle, the larger.

    Members are ordered by the product of their limits.
    """
    order = sorted(members, key=lambda label: math.prod(b.limit for own in members[label].values() for b in own))
    middle = order[len(order) // 2]
    return members[middle], {label: members[label] for label in order if label != middle}


def read_family(
    flops: Repeatable | None,
    latency: Repeatable | None,
    params: Repeatable | None,
    others: Mapping[str, Repeatable],
    *,
    tasks: Sequence[str],
    has_table: bool,
) -> tuple[Budgets, dict[str, Budgets]]:
    """The budgets of options, as ``middle_of_family`` returns them.

    Args:
        flops: maximum multiply-adds, one or several.
        latency: maximum latency.
        params: maximum number of parameters.
        others: by unit, the budgets of cost files and of memory.
        tasks: names of the tasks.
        has_table: whether there is a latency table.

    Raises:
        UserError: there is no budget, one cannot be parsed or is given twice, or a latency has no table.
    """
    texts = family_texts(flops, latency, params, others)
    check_has_table(texts[0], has_table=has_table)
    members = {budget_label(own): parse_budgets(own, tasks=tasks) for own in texts}
    for (label, own), (other, its) in combinations(members.items(), 2):
        if own == its:
            raise UserError(f"{label} and {other} are one budget: give each member of a family once")
    return middle_of_family(members)


def derive_family(run: Path, config: SearchConfig, progress: Progress) -> dict[str, Mapping[str, Architecture]]:
    """The networks of the other budgets of a finished search, by label and task; ``pareto.json`` gets all finalists.

    Args:
        run: the run folder.
        config: that of the run.
        progress: called after every scored architecture.

    Raises:
        UserError: no network of a task has costs in the window of its budgets, or an existing folder is damaged.
    """
    family = {label: _derive_member(run, config, label, progress) for label in config.family}
    if family and make_accelerator().is_main_process:
        folders = [run, *(run / DERIVED / label for label in family)]
        fronts = [read_json(folder / PARETO, what="Pareto front", schema=1) for folder in folders]
        write_json(run / PARETO, merged_fronts(fronts))
    return family


def _derive_member(run: Path, config: SearchConfig, label: str, progress: Progress) -> Mapping[str, Architecture]:
    folder = run / DERIVED / label
    if folder.exists():  # the search was interrupted after it
        return {task: load_architecture(folder / f"{task}.json") for task in config.tasks}
    member = config.changed(budgets=config.family[label], family={})
    networks = derive(run, member, table=None, other_machine=False, progress=progress)
    if make_accelerator().is_main_process:
        write_derived(folder, DerivationConfig.of(run, config, label), networks.write)
    return networks.architectures
