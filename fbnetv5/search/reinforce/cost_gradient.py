"""The gradient of a policy's expected cost. No pass of the supernet is needed: a cost is a table lookup.

For every variable of a drawn architecture the cost of each of its choices is looked up, all else equal. The difference
to choice 0 is the choice's effect. It is exact where costs add up; its only noise comes from blocks that live or die
with the other choices. The expected cost uses the sum of effects as a control variate, whose expectation under a policy
of independent variables is known exactly.

Shape legend: B architectures, S variables, C most choices of any variable, K draws.
"""

from collections.abc import Callable

import numpy as np

from fbnetv5.search.reinforce.controller import Controller, Floats, expectation_gradient
from fbnetv5.spaces.space import Choices

CostFunction = Callable[[Choices], Floats]
"""Architectures [B, S] -> their costs [B]; a ``CostTable`` is one."""


def cost_gradient(
    controller: Controller,
    task: int,
    costs: CostFunction,
    rng: np.random.Generator,
    *,
    draws: int = 2,
    extra_draws: int = 64,
) -> tuple[Floats, float]:
    """Gradient [S, C] of a task's expected cost, and the expected cost; both unbiased."""
    effects, expected = expected_cost(controller, task, costs, rng, draws=draws, extra_draws=extra_draws)
    return expectation_gradient(controller.probabilities()[task], effects), expected


def expected_cost(
    controller: Controller,
    task: int,
    costs: CostFunction,
    rng: np.random.Generator,
    *,
    draws: int = 2,
    extra_draws: int = 64,
) -> tuple[Floats, float]:
    """Effects [S, C] of choices on a task's cost, from ``draws`` of its policy, and the policy's expected cost.

    The expected cost is the mean over ``extra_draws`` further draws, less the sum of effects of their choices, plus the
    expectation of that sum (control variate).
    """
    probabilities = controller.probabilities()[task]
    drawn = controller.sample(task, draws, rng)
    effects = variable_effects(controller, costs, drawn)
    others = controller.sample(task, extra_draws, rng)
    explained = effects[np.arange(others.shape[1]), others].sum(-1)
    expected = (costs(others) - explained).mean() + (probabilities * effects).sum()
    return effects, float(expected)


def variable_effects(controller: Controller, costs: CostFunction, drawn: Choices) -> Floats:
    """[S, C]: mean cost of the drawn architectures [K, S] after one choice is replaced, less that of choice 0."""
    variables, choices = np.nonzero(controller.exists)
    replaced = np.repeat(drawn[:, None], len(variables), axis=1)
    replaced[:, np.arange(len(variables)), variables] = choices
    means = costs(replaced.reshape(-1, drawn.shape[1])).reshape(len(drawn), len(variables)).mean(0)
    effects = np.zeros(controller.exists.shape)
    effects[variables, choices] = means
    # All choices of a variable share its level; without it sums of effects stay comparable.
    effects[variables, choices] -= effects[variables, 0]
    return effects
