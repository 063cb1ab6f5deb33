"""Finalists: from a fitted panel to architectures, by local search under the budget and a comparison on more images.

The panel's model gives the loss of every block; a local search minimises the sum inside the budget's window, once for
the posterior's mean and once for each of several tables drawn from the posterior (Thompson sampling; Thompson,
Biometrika 25, 1933), so finalists differ where the panel is uncertain. Every finalist then runs alone, batch norm
recalibrated, on the same held-out images, and the lowest mean loss wins: on few images a loss ranks networks better
than a metric does (docs/results.md).

Shape legend: S variables, C most choices of any variable.
"""

from collections.abc import Sequence

import numpy as np

from export.errors import UserError
from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET, BUDGET_WINDOW, Budget, format_cost, in_window
from fbnetv5.costs.tables import CostTable
from fbnetv5.search.local import descend, prune
from fbnetv5.search.reinforce.controller import Controller, Floats, draw
from fbnetv5.search.reinforce.panel import LossModel
from fbnetv5.search.scoring import Finalist
from fbnetv5.spaces.space import Choices

LOCAL_SEARCHES = 4
"""Local searches for the posterior's mean; they start from the drawn architectures of the lowest predicted loss."""
POOL_DRAWS = 512
"""Architectures drawn to choose these starts from."""


def find_logit_bias(
    controller: Controller, task: int, table: CostTable, target_cost: float, rng: np.random.Generator
) -> float:
    """The logit bias of all choices but skipping at which the task's expected cost is ``target_cost``; within +-12."""
    low, high = -12.0, 12.0
    seed = int(
        rng.integers(2**32)
    )  # with the same uniform numbers for every bias the mean cost increases with the bias
    for _ in range(24):
        middle = (low + high) / 2
        drawn = draw(controller.biased_probabilities(task, middle), 256, np.random.default_rng(seed))
        if table(drawn).mean() > target_cost:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def sample_in_window(
    probabilities: Floats, table: CostTable, budget: Budget, count: int, rng: np.random.Generator, *, tries: int = 40
) -> list[Choices]:
    """Up to ``count`` distinct architectures whose cost lies in the budget's window, in the order drawn."""
    distinct: dict[bytes, Choices] = {}
    for _ in range(tries):
        drawn = draw(probabilities, 512, rng)
        for choices in drawn[in_window(table(drawn), budget)]:
            distinct.setdefault(choices.tobytes(), choices)
            if len(distinct) == count:
                return list(distinct.values())
    return list(distinct.values())


def policy_near_budget(
    controller: Controller, task: int, cost: CostTable, budget: Budget, rng: np.random.Generator
) -> Floats:
    """[S, C]: a task's policy with the logit bias at which its expected cost is ``AIMED_SHARE_OF_BUDGET``."""
    target_cost = AIMED_SHARE_OF_BUDGET * budget.limit
    return controller.biased_probabilities(task, find_logit_bias(controller, task, cost, target_cost, rng))


def pool_in_window(name: str, policy: Floats, cost: CostTable, budget: Budget, rng: np.random.Generator) -> Choices:
    """[B, S]: up to ``POOL_DRAWS`` distinct architectures of a task in its budget's window, drawn from a policy [S, C].

    Raises:
        UserError: no drawn network lies in the window.
    """
    drawn = sample_in_window(policy, cost, budget, POOL_DRAWS, rng)
    if not drawn:
        low, high = (format_cost(share * budget.limit, budget.unit) for share in BUDGET_WINDOW)
        raise UserError(f"no network for {name} costs between {low} and {high}; choose a larger budget or space")
    return np.stack(drawn)


def find_finalists(
    name: str,
    model: LossModel,
    policy: Floats,
    cost: CostTable,
    budget: Budget,
    count: int,
    rng: np.random.Generator,
) -> list[Choices]:
    """Up to ``count`` distinct networks of a task in its budget's window, the best by the posterior's mean first.

    Args:
        name: of the task, for the error.
        model: of its loss.
        policy: [S, C], from which the starts of local searches are drawn.
        cost: of its networks.
        budget: of the same unit.
        count: maximum number of networks.
        rng: source of randomness.

    Raises:
        UserError: no drawn network lies in the window.
    """
    loss, pool = model.table, prune(pool_in_window(name, policy, cost, budget, rng), cost)
    starts = pool[loss(pool).argsort(kind="stable")[:LOCAL_SEARCHES]]
    best = min((prune(descend(start, loss, cost, budget)[None], cost)[0] for start in starts), key=loss.cost_of)
    networks = {best.tobytes(): best}
    for sampled_loss in model.sample_tables(2 * count, rng):
        if len(networks) >= count:
            break
        network = prune(descend(best, sampled_loss, cost, budget)[None], cost)[0]
        networks.setdefault(network.tobytes(), network)
    return list(networks.values())


def best_finalist(finalists: Sequence[Finalist]) -> Finalist:
    """The finalist of the lowest loss; of equal losses, the one of the lowest cost."""
    return min(finalists, key=lambda finalist: (finalist.loss, finalist.cost))


def pareto_front(finalists: Sequence[Finalist]) -> list[Finalist]:
    """The finalists that no other beats in both cost and loss, in order of cost."""
    front: list[Finalist] = []
    for candidate in sorted(finalists, key=lambda finalist: (finalist.cost, finalist.loss)):
        if not front or candidate.loss < front[-1].loss:
            front.append(candidate)
    return front
