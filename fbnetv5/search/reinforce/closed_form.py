"""Policies in closed form: a choice's probability follows from its benefit, its cost and the benefit's uncertainty.

For a variable that may be kept or skipped, the log-odds of keeping it are ``steepness * (benefit - price * cost) /
sd``. A steepness of 1.702 gives nearly the probability ``Phi((benefit - price * cost) / sd)`` that the variable is
worth its price (the logistic approximation of the probit; Camilli, Journal of Educational and Behavioral Statistics
19(3), 1994), which is how often Thompson sampling (Thompson, Biometrika 25, 1933) would keep it. The steepness grows
with the number of draws, from exploration to exploitation. With more choices the same utilities enter a softmax.
Benefits are multiplied by the probability that there is any signal. The price makes the policy's expected cost equal to
a target. Without signal only the cost is left, and the policy is the one of maximum entropy for its expected cost
(Jaynes, Physical Review 106, 1957).

With several costs the sum of price * cost takes the place of the product. One budget binds in most cases: its price
alone keeps all expected costs within their targets, and the other prices are 0 (complementary slackness). Otherwise
prices of 0 or more are found by bisection of one after the other: over-relaxed coordinate descent on the dual of the
policy's entropy-regularised choice, which is convex (Boyd and Vandenberghe, Convex Optimization, 2004, section 5.5).

Shape legend: T tasks, S variables, C most choices of any variable, K costs.
"""

from collections.abc import Callable, Sequence

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
MAX_SWEEPS = 60
"""Maximum number of bisections of every price where several budgets bind."""
TOLERANCE = 1e-3
"""Relative excess over a target cost that counts as meeting it, where there are several."""
OVER_RELAXATION = 1.6
"""Factor of a price's change in these sweeps: costs are correlated, and plain bisections in turn converge slowly."""
EFFECT_DRAWS = (2, 8)
"""Draws that effects on costs are averaged over: where all variables may skip a node, and elsewhere. There a choice has
no effect in draws that skip its block; with 2 draws expected costs of the wide space were 2 % above the budget."""
COST_ITERATIONS = 3
"""Costs are computed again under each new policy, since the blocks that a variable keeps alive change with it."""


def set_policy(
    controller: Controller,
    task: int,
    benefits: Benefits,
    costs: Sequence[CostFunction],
    target_costs: Sequence[float],
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Set a task's policy so that its expected cost is the target cost; of several, that one is and none is above its.

    Args:
        controller: of the policies.
        task: number of the task.
        benefits: of all tasks.
        costs: K of the task's architectures.
        target_costs: [K], in the units of ``costs``.
        rng: source of randomness.

    Returns:
        [K], the price of each target cost in units of the loss, 0 while "no signal" is more likely than a signal; and
        [K], the expected costs before the last iteration.
    """
    targets = np.array(target_costs)
    draws = EFFECT_DRAWS[0 if controller.skipping.all() else 1]
    prices, expected = np.zeros(len(costs)), np.zeros(len(costs))
    for _ in range(COST_ITERATIONS):
        before = controller.probabilities()[task]
        estimates = [expected_cost(controller, task, cost, rng, draws=draws) for cost in costs]
        effects, expected = np.stack([e for e, _ in estimates]), np.array([mean for _, mean in estimates])
        unexplained = expected - (before * effects).sum((1, 2))
        policy, prices = solve(controller, benefits, task, effects, targets - unexplained)
        controller.set_policy(task, policy)
    return prices * targets, expected


def solve(
    controller: Controller, benefits: Benefits, task: int, effects: Floats, targets: Floats
) -> tuple[Floats, Floats]:
    """The policy [S, C] under which the expected sums of cost effects [K, S, C] meet ``targets`` [K], and the prices.

    One expected sum is its target, no other is above its; prices [K] are per cost. Where no target of several holds the
    policy back, and each can only be reached by exceeding another, all sums are below and all prices are 0.
    """
    exists = controller.exists
    kept = exists & (np.arange(exists.shape[1]) != SKIP)
    steepness = _steepness(benefits, task, kept)
    typical = float(steepness[kept].mean())
    relative = np.clip(steepness / typical, 0.2, 5.0)
    needed = benefits.needed[task][:, None]
    divisor = np.maximum(needed, MIN_NEEDED)
    utility = benefits.signal * steepness * benefits.mean[task] * needed / divisor
    scales = np.maximum(np.abs(effects[:, kept]).mean(1), np.finfo(float).tiny)
    costs = relative * effects / scales[:, None, None] / divisor

    def policy(weights: Floats) -> Floats:
        paid = sum(weight * cost for weight, cost in zip(weights, costs, strict=True))
        logits = np.where(kept, utility - paid, np.where(exists, 0.0, -np.inf))
        return _softmax_with_minimum(logits, exists)

    weights = _find_weights(lambda weights: (policy(weights) * effects).sum((1, 2)), targets)
    prices = weights / (typical * scales * benefits.signal) if benefits.signal > 0.5 else np.zeros(len(scales))
    return policy(weights), prices


def _find_weights(expected: Callable[[Floats], Floats], targets: Floats) -> Floats:
    """[K]: the weights of costs at which the expected costs [K] meet the targets [K]; see the module's docstring."""

    def bisected(weights: Floats, number: int) -> Floats:
        def at(weight: float) -> Floats:
            return np.where(np.arange(len(targets)) == number, weight, weights)

        return at(_bisect(lambda weight: float(expected(at(weight))[number]), float(targets[number])))

    nothing = np.zeros(len(targets))
    alone = [bisected(nothing, number) for number in range(len(targets))]
    if len(targets) == 1:
        return alone[0]
    slack = TOLERANCE * np.abs(targets)
    enough = [weights for weights in alone if (expected(weights) <= targets + slack).all()]
    if enough:
        return max(enough, key=lambda weights: float(weights.min()))
    weights = nothing
    for _ in range(MAX_SWEEPS):
        before = weights
        for number in range(len(targets)):
            change = bisected(weights, number) - weights
            weights = np.maximum(weights + OVER_RELAXATION * change, 0.0)
        if np.allclose(weights, before, rtol=0.0, atol=0.1 * TOLERANCE):
            break
    for number in range(len(targets)):
        weights = np.maximum(bisected(weights, number), 0.0)
    return weights


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
