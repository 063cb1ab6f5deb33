"""From a fitted panel to architectures: local search under the budget, then paired losses on more images.

The panel's model prices every block in units of the loss; a local search minimises it inside the budget's window, once
for the posterior's mean and once for each of several tables drawn from the posterior (Thompson sampling), so finalists
differ where the panel is unsure. Every finalist then runs alone, batch norm recalibrated, on the same held-out
images, and the lowest mean loss wins: on few images a loss orders networks better than a metric does
(docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.errors import UserError
from fbnetv5.costs.budgets import WINDOW, Budget, format_cost, in_window
from fbnetv5.costs.tables import CostTable
from fbnetv5.search.local import descend, prune
from fbnetv5.search.reinforce.controller import Controller, Floats, draw
from fbnetv5.search.reinforce.panel import LossModel
from fbnetv5.spaces.space import Choices

AIM = 0.95
"""The part of the budget that expected costs are steered to: inside ``WINDOW``, with room for a draw's spread."""
STARTS = 4
"""Local searches for the posterior's mean, from the drawn architectures that it expects most of."""
DRAWN = 512
"""Architectures drawn to start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A finalist of one task and what was measured of it."""

    choices: tuple[int, ...]
    cost: float
    """Of the task's network, in its budget's unit."""
    loss: float
    """Mean over the held-out images."""
    score: float
    """The task's metric on the same images."""


def find_tilt(controller: Controller, task: int, table: CostTable, aim: float, rng: np.random.Generator) -> float:
    """What to add to the logits of all but skipping, so that the task's expected cost is ``aim``; within +-12."""
    low, high = -12.0, 12.0
    seed = int(rng.integers(2**32))  # the same uniform numbers at every tilt make the mean cost grow with it
    for _ in range(24):
        middle = (low + high) / 2
        drawn = draw(controller.tilted(task, middle), 256, np.random.default_rng(seed))
        if table(drawn).mean() > aim:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def sample_within(
    probabilities: Floats, table: CostTable, budget: Budget, count: int, rng: np.random.Generator, *, tries: int = 40
) -> list[Choices]:
    """Up to ``count`` distinct architectures whose cost lies in the budget's window, in the order drawn."""
    found: dict[bytes, Choices] = {}
    for _ in range(tries):
        drawn = draw(probabilities, 512, rng)
        for choices in drawn[in_window(table(drawn), budget)]:
            found.setdefault(choices.tobytes(), choices)
            if len(found) == count:
                return list(found.values())
    return list(found.values())


def near_budget(controller: Controller, task: int, cost: CostTable, budget: Budget, rng: np.random.Generator) -> Floats:
    """[S, C]: a task's policy, tilted so that its expected cost is ``AIM`` of the budget."""
    return controller.tilted(task, find_tilt(controller, task, cost, AIM * budget.limit, rng))


def finalists_for(
    name: str,
    model: LossModel,
    policy: Floats,
    cost: CostTable,
    budget: Budget,
    count: int,
    rng: np.random.Generator,
) -> list[Choices]:
    """Up to ``count`` distinct networks of a task in its budget's window, the model's favourite first.

    Args:
        name: of the task, for the error.
        model: of its loss.
        policy: [S, C], what local searches start from.
        cost: of its networks.
        budget: of the same unit.
        count: how many at most.
        rng: source of randomness.

    Raises:
        UserError: none was found in the window.
    """
    drawn = sample_within(policy, cost, budget, DRAWN, rng)
    if not drawn:
        low, high = (format_cost(part * budget.limit, budget.unit) for part in WINDOW)
        raise UserError(f"no network for {name} costs between {low} and {high}; choose a larger budget or space")
    loss, pool = model.table, prune(np.stack(drawn), cost)
    starts = pool[loss(pool).argsort(kind="stable")[:STARTS]]
    favourite = min((prune(descend(start, loss, cost, budget)[None], cost)[0] for start in starts), key=loss.one)
    found = {favourite.tobytes(): favourite}
    for sampled in model.sampled(2 * count, rng):
        if len(found) >= count:
            break
        other = prune(descend(favourite, sampled, cost, budget)[None], cost)[0]
        found.setdefault(other.tobytes(), other)
    return list(found.values())


def best(scored: Sequence[Scored]) -> Scored:
    """The finalist of lowest loss; of equals, the cheaper."""
    return min(scored, key=lambda one: (one.loss, one.cost))


def pareto_front(scored: Sequence[Scored]) -> list[Scored]:
    """Those that no other beats in both cost and loss, cheapest first."""
    front: list[Scored] = []
    for candidate in sorted(scored, key=lambda one: (one.cost, one.loss)):
        if not front or candidate.loss < front[-1].loss:
            front.append(candidate)
    return front
