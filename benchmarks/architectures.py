"""The architectures that searched ones are compared with: random, bad on purpose, best by chance, and scaled FBNetV3-A.

All lie in one narrow cost window, ``MATCHED``, so that a difference between groups is not one of cost.

Shape legend: S variables, C most choices of any variable.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import CostTable
from fbnetv5.search.local import descend, prune
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.controller import Controller, draw, uniform_controller
from fbnetv5.search.reinforce.finalists import find_logit_bias
from fbnetv5.search.reinforce.panel import MIN_EVIDENCE, PANEL, Observations, Panel, fit_losses
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.graph import Node
from fbnetv5.spaces.space import SKIP, Choices, Space

MATCHED = (0.93, 0.99)
"""Minimum and maximum cost of a compared network, as shares of its task's budget."""
RANDOM_SEED, CONTROL_SEED, PLANTED_SEED, SHUFFLE_SEED = 2026, 2027, 2028, 2029
"""Seeds that the benchmarks share, so that one can look up a network that another has measured."""
CERTAIN = 60.0
"""Logit of a choice that is made whatever the logit bias, which is at most 12."""
EXTREME_STARTS = 4
"""Local searches for the best or the worst network by a fit."""
TRIES = 400
"""Maximum number of batches of draws."""


def architecture_key(choices: Iterable[int]) -> str:
    """A name for an architecture: the first 12 hexadecimal digits of the SHA-256 of its choices, comma-separated."""
    return hashlib.sha256(",".join(str(int(choice)) for choice in choices).encode()).hexdigest()[:12]


def matched(costs: NDArray[np.float64], budget: Budget) -> NDArray[np.bool_]:
    """Whether each cost lies in the window ``MATCHED`` of the budget."""
    inside: NDArray[np.bool_] = (costs >= MATCHED[0] * budget.limit) & (costs <= MATCHED[1] * budget.limit)
    return inside


def density(controller: Controller, table: CostTable, budget: Budget) -> NDArray[np.float64]:
    """[S, C]: the first policy, with the logit bias that sets its expected cost to the middle of the window."""
    rng = np.random.default_rng(0)
    logit_bias = find_logit_bias(controller, 0, table, sum(MATCHED) / 2 * budget.limit, rng)
    return controller.biased_probabilities(0, logit_bias)


def random_matched(table: CostTable, budget: Budget, count: int, *, seed: int) -> list[Choices]:
    """Distinct architectures whose blocks are kept with one probability; the first ones are the same for any count.

    Raises:
        UserError: the window has too few architectures.
    """
    controller = uniform_controller(table.space, 1)
    return draw_matched(density(controller, table, budget), table, budget, count, np.random.default_rng(seed))


def planted_bad(task: str, table: CostTable, budget: Budget, count: int, *, seed: int) -> list[Choices]:
    """Distinct architectures that spend the budget where the task can hardly use it.

    Raises:
        UserError: the task has no such plan, or the window has too few.
    """
    if task not in PLANS:
        raise UserError(f"there is no plan of bad networks for {task}; there is one for: {', '.join(PLANS)}")
    plan = PLANS[task]
    controller = uniform_controller(table.space, 1)
    for node in table.space.nodes:
        if not node.skippable:
            continue
        variable = node.variables[0]
        if node.name in plan.kept:
            controller.logits[0, variable, SKIP + 1 :] = CERTAIN
        elif not plan.allowed(node):
            controller.logits[0, variable, SKIP] = CERTAIN
    return draw_matched(density(controller, table, budget), table, budget, count, np.random.default_rng(seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedConstraints(Constraints):
    """One budget, of which networks use a share within ``MATCHED``."""

    def in_window(self, architectures: Choices) -> NDArray[np.bool_]:
        """[B, S] -> [B]."""
        return matched(self.tables[0](architectures), self.budgets[0])


def worst_by_fit(run: Path, task: str) -> Choices:
    """[S]: the network of the highest predicted loss by the panel of a finished search, dead blocks skipped.

    Raises:
        UserError: the run has no panel.
    """
    return _extreme(run, task, lambda observations: observations, -1.0)


def best_by_shuffled_fit(run: Path, task: str) -> Choices:
    """[S]: the network found where the panel's architectures swapped their losses at random.

    No block has an effect. If the fit shows none, as in a search, the network is a random one, of the seed of the run;
    otherwise it is that of the lowest predicted loss. A judge must find nothing good or bad in it.

    Raises:
        UserError: the run has no panel.
    """
    config, panel = _read(run)
    table, budget, number = _of_task(config, task)
    if fit_losses(config.space, table.paths, shuffled(panel.drawn), number).posterior.evidence < MIN_EVIDENCE:
        return random_matched(table, budget, 1, seed=SHUFFLE_SEED + config.seed)[0]
    return _extreme(run, task, shuffled, 1.0)


def shuffled(observations: Observations) -> Observations:
    """The same losses on every batch, each of another architecture."""
    rng, losses = np.random.default_rng(SHUFFLE_SEED), observations.losses.copy()
    for batch in np.unique(observations.batches):
        rows = np.flatnonzero(observations.batches == batch)
        losses[rows] = losses[rng.permutation(rows)]
    return replace(observations, losses=losses)


def _extreme(run: Path, task: str, change: Callable[[Observations], Observations], sign: float) -> Choices:
    """[S]: the network of the lowest ``sign`` times its predicted loss by a fit to the changed losses of the panel."""
    config, panel = _read(run)
    table, budget, number = _of_task(config, task)
    loss = fit_losses(config.space, table.paths, change(panel.drawn.joined(panel.checks)), number).table
    signed = replace(loss, blocks=sign * loss.blocks, depth_effects=sign * loss.depth_effects)
    window = MatchedConstraints(tables=[table], budgets=[budget])
    starts = random_matched(table, budget, EXTREME_STARTS, seed=PLANTED_SEED)
    extreme = min((descend(start, signed, window) for start in starts), key=signed.cost_of)
    pruned: Choices = prune(extreme[None], table)[0]
    return pruned


def _read(run: Path) -> tuple[SearchConfig, Panel]:
    """The configuration and the panel of a finished search."""
    config = SearchConfig.load(run)
    return config, Panel.load(run / PANEL, variables=len(config.space.variables), tasks=len(config.tasks))


def _of_task(config: SearchConfig, task: str) -> tuple[CostTable, Budget, int]:
    """A task's first table of costs and budget, and its number."""
    constraints = prepare(config).constraints[task]
    return constraints.tables[0], constraints.budgets[0], config.tasks.index(task)


def draw_matched(
    probabilities: NDArray[np.float64], table: CostTable, budget: Budget, count: int, rng: np.random.Generator
) -> list[Choices]:
    """Distinct architectures drawn from [S, C] whose cost lies in the window, dead blocks skipped.

    Raises:
        UserError: ``TRIES`` times 256 draws have fewer than ``count`` of them.
    """
    distinct: dict[bytes, Choices] = {}
    for _ in range(TRIES):
        if len(distinct) >= count:
            return list(distinct.values())[:count]
        drawn = draw(probabilities, 256, rng)
        for choices in prune(drawn[matched(table(drawn), budget)], table):
            distinct.setdefault(choices.tobytes(), choices)
    raise UserError(f"only {len(distinct)} of {count} architectures were found within {MATCHED} of {budget.limit:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The blocks of a bad network."""

    kept: frozenset[str]
    """Names of the nodes that are kept always."""
    allowed: Callable[[Node], bool]
    """Whether another node may be kept."""


def _late_blocks(*paths: int) -> Callable[[Node], bool]:
    return lambda node: _is_block(node) and node.stage > 0 and node.stride in paths


def _fine_then_coarse(node: Node) -> bool:
    """Blocks of the finest path, and late ones of the coarsest."""
    return _is_block(node) and (node.stride == 4 or (node.stage > 0 and node.stride == 32))


def _is_block(node: Node) -> bool:
    return isinstance(node.candidates[0], InvertedResidual)


EDGES_TO_COARSEST = frozenset(f"s{stage}_p32_from_p16" for stage in (1, 2, 3, 4))
PLANS: Mapping[str, Plan] = {
    "cls": Plan(kept=EDGES_TO_COARSEST, allowed=_late_blocks(16, 32)),
    "det": Plan(kept=frozenset({"s4_p8_from_p4"}), allowed=_fine_then_coarse),
    "seg": Plan(kept=frozenset(), allowed=_late_blocks(16, 32)),
}
"""By task, for variant a with four later stages.

All get a shallow trunk, and late blocks on maps that are too coarse for the task: 2x2 and 4x4 pixels for images of
64x64. Classification reads the coarsest path and gets the edges that lead there."""


def scaled_fbnetv3(macs: CostTable, limit: float) -> Choices:
    """[S]: stage 0 in full and nothing else, less the one repeat that brings it nearest below ``limit``."""
    full = stage_zero(macs.space)
    shorter = [np.where(np.arange(len(full)) == kept, SKIP, full) for kept in np.nonzero(full)[0]]
    fitting = [choices for choices in (full, *shorter) if macs.cost_of(choices) <= limit]
    if not fitting:
        raise UserError(
            f"FBNetV3 less one repeat still costs more than {limit / 1e6:.0f}M; search with a larger budget"
        )
    return max(fitting, key=macs.cost_of)


def skippable(space: Space) -> tuple[Node, ...]:
    """The nodes that a four-path space may skip, one per variable.

    Raises:
        UserError: the space has other variables.
    """
    if not isinstance(space, FourPathSpace):
        raise UserError(f"this comparison is for the default and the strict space, not for {space.label}")
    return space.skippable


def stage_zero(space: Space) -> Choices:
    """[S]: every repeat of stage 0, no later block and no fusion."""
    kept = [node.stage == 0 and isinstance(node.candidates[0], InvertedResidual) for node in skippable(space)]
    return np.array(kept, dtype=np.int64)
