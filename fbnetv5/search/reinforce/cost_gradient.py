"""The gradient of a policy's expected cost, without a pass of the supernet: a cost is a table lookup.

For every variable of a drawn architecture the cost of each of its choices is looked up, all else equal. The difference
is the choice's effect, exact where costs add up, and noisy only through blocks that live or die with what else was
drawn.
"""

from collections.abc import Callable

import numpy as np

from fbnetv5.search.reinforce.controller import Controller, Floats, expectation_gradient
from fbnetv5.spaces.space import Choices

Costs = Callable[[Choices], Floats]
"""Prices architectures, [B, S] -> [B]; a ``CostTable`` is one."""


def cost_gradient(
    controller: Controller, task: int, table: Costs, rng: np.random.Generator, *, draws: int = 2, more: int = 64
) -> tuple[Floats, float]:
    """Gradient [S, C] of a task's expected cost, and the expected cost; both unbiased."""
    effects, expected = expected_cost(controller, task, table, rng, draws=draws, more=more)
    return expectation_gradient(controller.probabilities()[task], effects), expected


def expected_cost(
    controller: Controller, task: int, table: Costs, rng: np.random.Generator, *, draws: int = 2, more: int = 64
) -> tuple[Floats, float]:
    """Effects [S, C] of choices on a task's cost, from ``draws`` of its policy, and the policy's expected cost.

    The expected cost is taken from ``more`` further draws, less what the effects explain of them.
    """
    probabilities = controller.probabilities()[task]
    drawn = controller.sample(task, draws, rng)
    effects = variable_effects(controller, table, drawn)
    others = controller.sample(task, more, rng)
    explained = effects[np.arange(others.shape[1]), others].sum(-1)
    expected = (table(others) - explained).mean() + (probabilities * effects).sum()
    return effects, float(expected)


def variable_effects(controller: Controller, table: Costs, drawn: Choices) -> Floats:
    """[S, C]: mean cost of the drawn architectures [K, S] with one variable's choice replaced; 0 without a choice."""
    variables, choices = np.nonzero(controller.exists)
    replaced = np.repeat(drawn[:, None], len(variables), axis=1)
    replaced[:, np.arange(len(variables)), variables] = choices
    costs = table(replaced.reshape(-1, drawn.shape[1])).reshape(len(drawn), len(variables)).mean(0)
    effects = np.zeros(controller.exists.shape)
    effects[variables, choices] = costs
    # Without the level, which all choices of a variable share, so that sums of effects stay comparable.
    effects[variables, choices] -= effects[variables, 0]
    return effects
