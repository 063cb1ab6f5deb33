"""Policies in closed form: how likely a choice is follows from its benefit, its cost and how sure the benefit is.

For a variable that may be kept or skipped, the log-odds of keeping it are ``steepness * (benefit - price * cost) /
sd``. A steepness of 1.7 gives nearly the probability ``Phi((benefit - price * cost) / sd)`` that the variable is worth
its price; the steepness grows with the draws, from exploring to exploiting. With more choices the same utilities enter
a softmax. Benefits count by the probability that there is a signal at all. The price makes the policy's expected cost
meet an aim. Without signal only the cost is left, and the policy is the one of maximum entropy for its expected cost.

Shape legend: T tasks, S variables, C most choices of any variable.
"""

from collections.abc import Callable

import numpy as np

from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.cost_gradient import Costs, expected_cost
from fbnetv5.search.reinforce.posterior import Benefits, Mask
from fbnetv5.spaces.space import SKIP

SHARPNESS = 4.0
"""Log-odds per standard deviation in the end; 1.702 is the logistic approximation of the probit."""
RAMP = 2.5
"""Draws per choice and unit of log-odds until then; policies that are steep too early stop exploring."""
FLOOR = 0.005
"""Least probability of a choice."""
LEAST_RELIABILITY = 0.3
"""The steepness is divided by the fit's mean reliability, but at least by this."""
LEAST_NEEDED = 0.05
"""Costs of a variable are set against its effect where it matters, which is a share of draws; no smaller share
counts."""
ROUNDS = 3
"""How often costs are taken anew at the policy found, since blocks die with others."""


def set_policy(
    controller: Controller, task: int, benefits: Benefits, costs: Costs, aim: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Set a task's policy so that its expected cost is ``aim``.

    Returns:
        The price of the aimed cost in units of the loss, 0 while a signal is less likely than none; and the expected
        cost before the last round.
    """
    price, expected = 0.0, 0.0
    for _ in range(ROUNDS):
        before = controller.probabilities()[task]
        effects, expected = expected_cost(controller, task, costs, rng)
        rest = expected - float((before * effects).sum())
        found, price = solve(controller, benefits, task, effects, aim - rest)
        controller.set_policy(task, found)
    return price * aim, expected


def solve(controller: Controller, benefits: Benefits, task: int, effects: Floats, aim: float) -> tuple[Floats, float]:
    """The policy [S, C] whose sum of cost effects [S, C] is expected to be ``aim``, and the price of a unit of cost."""
    exists = controller.exists
    kept = exists & (np.arange(exists.shape[1]) != SKIP)
    sharpness = _sharpness(benefits, task, kept)
    typical = float(sharpness[kept].mean())
    relative = np.clip(sharpness / typical, 0.2, 5.0)
    needed = benefits.needed[task][:, None]
    least = np.maximum(needed, LEAST_NEEDED)
    utility = benefits.signal * sharpness * benefits.mean[task] * needed / least
    scale = max(float(np.abs(effects[kept]).mean()), np.finfo(float).tiny)
    charge = relative * effects / scale / least

    def policy(force: float) -> Floats:
        return _floored(np.where(kept, utility - force * charge, np.where(exists, 0.0, -np.inf)), exists)

    force = _bisect(lambda tried: float((policy(tried) * effects).sum()), aim)
    price = force / (typical * scale * benefits.signal) if benefits.signal > 0.5 else 0.0
    return policy(force), price


def _sharpness(benefits: Benefits, task: int, kept: Mask) -> Floats:
    """[S, C]: log-odds per unit of benefit; an unreliable fit is followed as firmly as a reliable one."""
    steepness = min(SHARPNESS, max(benefits.draws, 1) / (RAMP * float(kept.sum())))
    reliability = max(float(benefits.reliability[task]), LEAST_RELIABILITY)
    sharpness: Floats = steepness / reliability / benefits.sd[task]
    return sharpness


def _bisect(spent: Callable[[float], float], aim: float, *, most: float = 1e4, steps: int = 60) -> float:
    """The force at which what is spent, which falls with it, is ``aim``; an end of the range if it never is."""
    low, high = -most, most
    for _ in range(steps):
        middle = (low + high) / 2
        if spent(middle) > aim:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _floored(logits: Floats, exists: Mask) -> Floats:
    """Softmax over the last axis, mixed with ``FLOOR`` for every choice that exists."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    shares = weights / weights.sum(-1, keepdims=True)
    count = exists.sum(-1, keepdims=True)
    mixed: Floats = np.where(exists, FLOOR + (1 - count * FLOOR) * shares, 0.0)
    return mixed
