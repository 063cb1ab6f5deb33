"""Finalists: from a fitted panel to architectures, by local search under the budget.

The panel's model predicts the loss of every network; a local search minimises it inside the window of the budgets, once
for the posterior's mean and once for each of several tables drawn from the posterior (Thompson sampling; Thompson,
Biometrika 25, 1933), so finalists differ where the panel is uncertain. Every finalist then runs alone, batch norm
recalibrated, on the same held-out images, which gives its loss and metric. The lowest predicted loss wins: a measured
loss favours what these images and these weights happen to favour, and finalists chosen by it too were not better by
other weights (docs/results.md). Where the panel shows no effects of blocks, the only finalist is drawn from the
policy: an optimum of noise is an unusual network, and can be far worse than a random one (docs/results.md).

Shape legend: S variables, C most choices of any variable.
"""

from collections.abc import Sequence

import numpy as np

from export.errors import UserError
from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET, BUDGET_WINDOW, format_cost, unit_words
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import CostTable
from fbnetv5.search.local import descend, prune
from fbnetv5.search.reinforce.controller import Controller, Floats, draw
from fbnetv5.search.reinforce.loss_model import LossModel
from fbnetv5.search.scoring import Finalist
from fbnetv5.spaces.space import Choices

LOCAL_SEARCHES = 32
"""Local searches for the posterior's mean; they start from the drawn architectures of the lowest predicted loss. Four
end at a worse network in one of four fits for classification, whose blocks run only behind a fusion that is kept."""
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
    probabilities: Floats, constraints: Constraints, count: int, rng: np.random.Generator, *, tries: int = 40
) -> list[Choices]:
    """Up to ``count`` distinct architectures in the window of the budgets, in the order drawn."""
    distinct: dict[bytes, Choices] = {}
    for _ in range(tries):
        drawn = draw(probabilities, 512, rng)
        for choices in drawn[constraints.in_window(drawn)]:
            distinct.setdefault(choices.tobytes(), choices)
            if len(distinct) == count:
                return list(distinct.values())
    return list(distinct.values())


def bias_near_budgets(controller: Controller, task: int, constraints: Constraints, rng: np.random.Generator) -> float:
    """The largest logit bias at which no expected cost of a task exceeds ``AIMED_SHARE_OF_BUDGET``."""
    return min(
        find_logit_bias(controller, task, table, AIMED_SHARE_OF_BUDGET * budget.limit, rng)
        for table, budget in zip(constraints.tables, constraints.budgets, strict=True)
    )


def policy_near_budgets(
    controller: Controller, task: int, constraints: Constraints, rng: np.random.Generator
) -> Floats:
    """[S, C]: a task's policy with the logit bias of ``bias_near_budgets``."""
    return controller.biased_probabilities(task, bias_near_budgets(controller, task, constraints, rng))


def pool_in_window(name: str, policy: Floats, constraints: Constraints, rng: np.random.Generator) -> Choices:
    """[B, S]: up to ``POOL_DRAWS`` networks in the window of a task's budgets, drawn from its policy [S, C].

    They are pruned, so that two may be the same.

    Raises:
        UserError: no drawn network lies in the window.
    """
    drawn = sample_in_window(policy, constraints, POOL_DRAWS, rng)
    if not drawn and constraints.memory is not None:  # the policy does not know the limit
        drawn = list(np.unique(constraints.walked(draw(policy, POOL_DRAWS, rng), rng), axis=0))
    if not drawn:
        raise UserError(f"no network for {name} costs {_window_text(constraints)}; choose a larger budget or space")
    return prune(np.stack(drawn), constraints.tables[0])


def find_finalists(
    model: LossModel, pool: Choices, constraints: Constraints, count: int, rng: np.random.Generator
) -> list[Choices]:
    """Up to ``count`` distinct networks of a task in the window of its budgets, the best by the posterior's mean first.

    Args:
        model: of its loss.
        pool: [B, S], networks in the window, from which local searches start.
        constraints: its budgets.
        count: maximum number of networks.
        rng: source of randomness.
    """
    cost, loss = constraints.tables[0], model.table
    starts = pool[loss(pool).argsort(kind="stable")[:LOCAL_SEARCHES]]
    best = min((prune(descend(start, loss, constraints)[None], cost)[0] for start in starts), key=loss.cost_of)
    networks = {best.tobytes(): best}
    for sampled_loss in model.sample_tables(2 * count, rng):
        if len(networks) >= count:
            break
        network = prune(descend(best, sampled_loss, constraints)[None], cost)[0]
        networks.setdefault(network.tobytes(), network)
    return list(networks.values())


def _window_text(constraints: Constraints) -> str:
    """What a network may cost, in words."""
    (low, high), budgets = BUDGET_WINDOW, constraints.budgets
    memory = "" if constraints.memory is None else f", with at most {constraints.memory.text}"
    if len(budgets) == 1:
        lowest, highest = (format_cost(share * budgets[0].limit, budgets[0].unit) for share in (low, high))
        return f"between {lowest} and {highest}{memory}"
    limits = " and ".join(f"{format_cost(b.limit, b.unit)}{unit_words(b.unit)}" for b in budgets)
    return f"at most {limits} and {100 * low:.0f} % of one of them{memory}"


def best_finalist(finalists: Sequence[Finalist]) -> Finalist:
    """The finalist of the lowest expected loss; of equal losses, the one of the lowest costs."""
    return min(finalists, key=lambda finalist: (finalist.expected_loss, finalist.costs))


def pareto_front(finalists: Sequence[Finalist]) -> list[Finalist]:
    """The finalists that no other beats in all costs and expected loss, in order of cost."""
    front: list[Finalist] = []
    for candidate in sorted(finalists, key=lambda finalist: (finalist.costs, finalist.expected_loss)):
        if not any(_beats(other, candidate) for other in front):
            front.append(candidate)
    return front


def _beats(finalist: Finalist, other: Finalist) -> bool:
    """Whether a finalist is at least as good as another in all costs and expected loss."""
    no_cost_is_higher = all(own <= its for own, its in zip(finalist.costs, other.costs, strict=True))
    return no_cost_is_higher and finalist.expected_loss <= other.expected_loss
