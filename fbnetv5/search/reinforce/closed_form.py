"""Policies in closed form: a choice's probability follows from its benefit, its cost and the benefit's uncertainty.

For a variable that may be kept or skipped, the log-odds of keeping it are ``steepness * (benefit - price * cost) /
sd``. A steepness of 1.702 gives nearly the probability ``Phi((benefit - price * cost) / sd)`` that the variable is
worth its price (the logistic approximation of the probit; Camilli, Journal of Educational and Behavioral Statistics
19(3), 1994), which is how often Thompson sampling (Thompson, Biometrika 25, 1933) would keep it. The steepness grows
with the number of draws, from exploration to exploitation. With more choices the same utilities enter a softmax.
Benefits are multiplied by the probability that there is any signal. The price makes the policy's expected cost equal to
a target. Without signal only the cost is left, and the policy is the one of maximum entropy for its expected cost
(Jaynes, Physical Review 106, 1957).

Shape legend: T tasks, S variables, C most choices of any variable.
"""

from collections.abc import Callable

import numpy as np

from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.cost_gradient import CostFunction, expected_cost
from fbnetv5.search.reinforce.posterior import Benefits, Mask
from fbnetv5.spaces.space import SKIP

MAX_STEEPNESS = 4.0
"""Log-odds per standard deviation after many draws."""
DRAWS_PER_STEEPNESS = 2.5
"""Draws per choice and unit of steepness until then; policies that are steep too early stop exploring."""
MIN_PROBABILITY = 0.005
"""Minimum probability of a choice that exists."""
MIN_RELIABILITY = 0.3
"""Lower bound of the fit's mean reliability, which the steepness is divided by."""
MIN_NEEDED = 0.05
"""Lower bound of the share of draws in which a variable matters, which its cost and benefit are divided by."""
COST_ITERATIONS = 3
"""Costs are computed again under each new policy, since the blocks that a variable keeps alive change with it."""


def set_policy(
    controller: Controller,
    task: int,
    benefits: Benefits,
    costs: CostFunction,
    target_cost: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Set a task's policy so that its expected cost is ``target_cost``.

    Args:
        controller: of the policies.
        task: number of the task.
        benefits: of all tasks.
        costs: of the task's architectures.
        target_cost: in the unit of ``costs``.
        rng: source of randomness.

    Returns:
        The price of the target cost in units of the loss, 0 while "no signal" is more likely than a signal; and the
        expected cost before the last iteration.
    """
    price, expected = 0.0, 0.0
    for _ in range(COST_ITERATIONS):
        before = controller.probabilities()[task]
        effects, expected = expected_cost(controller, task, costs, rng)
        unexplained = expected - float((before * effects).sum())
        policy, price = solve(controller, benefits, task, effects, target_cost - unexplained)
        controller.set_policy(task, policy)
    return price * target_cost, expected


def solve(
    controller: Controller, benefits: Benefits, task: int, effects: Floats, target: float
) -> tuple[Floats, float]:
    """The policy [S, C] under which the expected sum of cost effects [S, C] is ``target``, and the price per cost."""
    exists = controller.exists
    kept = exists & (np.arange(exists.shape[1]) != SKIP)
    steepness = _steepness(benefits, task, kept)
    typical = float(steepness[kept].mean())
    relative = np.clip(steepness / typical, 0.2, 5.0)
    needed = benefits.needed[task][:, None]
    divisor = np.maximum(needed, MIN_NEEDED)
    utility = benefits.signal * steepness * benefits.mean[task] * needed / divisor
    scale = max(float(np.abs(effects[kept]).mean()), np.finfo(float).tiny)
    cost = relative * effects / scale / divisor

    def policy(cost_weight: float) -> Floats:
        logits = np.where(kept, utility - cost_weight * cost, np.where(exists, 0.0, -np.inf))
        return _softmax_with_minimum(logits, exists)

    cost_weight = _bisect(lambda weight: float((policy(weight) * effects).sum()), target)
    price = cost_weight / (typical * scale * benefits.signal) if benefits.signal > 0.5 else 0.0
    return policy(cost_weight), price


def _steepness(benefits: Benefits, task: int, kept: Mask) -> Floats:
    """[S, C]: log-odds per unit of benefit. An unreliable fit gets the same steepness as a reliable one.

    The fit shrinks benefits by its reliability, so the steepness is divided by it.
    """
    per_sd = min(MAX_STEEPNESS, max(benefits.draws, 1) / (DRAWS_PER_STEEPNESS * float(kept.sum())))
    reliability = max(float(benefits.reliability[task]), MIN_RELIABILITY)
    steepness: Floats = per_sd / reliability / benefits.sd[task]
    return steepness


def _bisect(decreasing: Callable[[float], float], target: float, *, bound: float = 1e4, steps: int = 60) -> float:
    """The argument in [-bound, bound] at which a decreasing function is ``target``; an end if it never is."""
    low, high = -bound, bound
    for _ in range(steps):
        middle = (low + high) / 2
        if decreasing(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _softmax_with_minimum(logits: Floats, exists: Mask) -> Floats:
    """Softmax over the last axis, mixed with ``MIN_PROBABILITY`` for every choice that exists."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    shares = weights / weights.sum(-1, keepdims=True)
    count = exists.sum(-1, keepdims=True)
    mixed: Floats = np.where(exists, MIN_PROBABILITY + (1 - count * MIN_PROBABILITY) * shares, 0.0)
    return mixed
