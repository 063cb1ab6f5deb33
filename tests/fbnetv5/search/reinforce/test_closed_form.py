from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fbnetv5.search.reinforce.baselines import MovingAverage
from fbnetv5.search.reinforce.closed_form import MAX_STEEPNESS, MIN_PROBABILITY, set_policy, solve
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.estimators import OnePass
from fbnetv5.search.reinforce.posterior import Benefits, PosteriorFit, zero_benefits
from fbnetv5.spaces.space import Choices

BLOCKS = 30
COSTS = np.random.default_rng(0).uniform(0.5, 1.5, BLOCKS) / BLOCKS


def cost_of(choices: Choices) -> Floats:
    costs: Floats = choices @ COSTS
    return costs


def sure(controller: Controller, mean: Floats, sd: float = 0.1) -> Benefits:
    """Benefits [S, C] of one task."""
    none = zero_benefits(controller)
    return replace(none, mean=mean[None], sd=np.full_like(none.sd, sd), draws=1000, reliability=np.ones(1), signal=1.0)


def test_the_binary_form_is_the_steeper_probit() -> None:
    controller, effects = Controller((2, 2), 1, lr=0.1), np.array([[0.0, 1.0], [0.0, 1.0]])
    policy, price = solve(
        controller, sure(controller, np.array([[0.0, 0.10], [0.0, 0.04]])), 0, effects[None], np.ones(1)
    )
    inner = (policy[:, 1] - MIN_PROBABILITY) / (1 - 2 * MIN_PROBABILITY)
    np.testing.assert_allclose(np.log(inner / (1 - inner)), MAX_STEEPNESS * np.array([0.3, -0.3]), rtol=1e-6)
    assert price[0] == pytest.approx(0.07)


@given(st.integers(0, 2**16), st.floats(0.15, 0.85))
@settings(max_examples=25, deadline=None)
def test_costs_meet_the_target_and_choices_keep_the_minimum_probability(seed: int, share: float) -> None:
    rng, counts = np.random.default_rng(seed), np.array([2, 3, 4, 2])
    controller = Controller(counts.tolist(), 1, lr=0.1)
    effects = np.where(controller.exists, np.arange(4) * rng.uniform(0.5, 1.5, (4, 1)), 0.0)
    min_cost, max_cost = 0.0, float(((counts - 1) * effects[:, 1]).sum())
    target = min_cost + share * (max_cost - min_cost)
    policy, _ = solve(controller, sure(controller, rng.normal(size=(4, 4))), 0, effects[None], np.array([target]))
    assert (policy * effects).sum() == pytest.approx(target, rel=1e-6)
    assert (policy[controller.exists] >= MIN_PROBABILITY * (1 - 1e-9)).all()
    assert not policy[~controller.exists].any()
    np.testing.assert_allclose(policy.sum(1), 1.0)


@given(st.integers(0, 2**16), st.lists(st.floats(0.15, 1.2), min_size=2, max_size=3))
@settings(max_examples=15, deadline=None)
@example(131, [0.15625, 0.1875])  # both bind
@example(22, [1.125, 1.125])  # none binds, and to spend either exceeds the other
def test_prices_of_several_costs_are_zero_where_a_budget_does_not_bind(seed: int, shares: list[float]) -> None:
    """The conditions of Karush, Kuhn and Tucker, where some budget holds the policy back."""
    rng, counts = np.random.default_rng(seed), np.array([2, 3, 4, 2, 2, 3])
    controller = Controller(counts.tolist(), 1, lr=0.1)
    effects = np.where(controller.exists, np.arange(4) * rng.uniform(0.2, 2.0, (len(shares), 6, 1)), 0.0)
    benefits = sure(controller, rng.uniform(0.0, 1.0, size=(6, 4)))
    with np.errstate(over="ignore"):  # nothing costs anything
        unpriced, _ = solve(controller, benefits, 0, np.zeros((1, *controller.exists.shape)), np.ones(1))
    targets = np.array(shares) * (unpriced * effects).sum((1, 2))
    policy, prices = solve(controller, benefits, 0, effects, targets)
    costs = (policy * effects).sum((1, 2))
    assert (costs <= targets * 1.005).all()
    if min(shares) < 0.99:
        assert (np.abs(costs / targets - 1) < 0.005).any()
        assert (prices >= 0).all()
        slack = costs < targets * 0.99
        np.testing.assert_allclose(prices[slack], 0.0, atol=1e-6 * prices.max())


def test_a_second_budget_that_does_not_bind_changes_no_policy() -> None:
    controller, effects = Controller((2, 2), 1, lr=0.1), np.array([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 3.0]]])
    benefits = sure(controller, np.array([[0.0, 0.10], [0.0, 0.04]]))
    alone, price = solve(controller, benefits, 0, effects[:1], np.ones(1))
    both, prices = solve(controller, benefits, 0, effects, np.array([1.0, 4.0]))
    np.testing.assert_array_equal(alone, both)
    assert prices.tolist() == [price[0], 0.0]


def test_unused_budgets_are_spent_until_one_is_used_up() -> None:
    controller, effects = Controller((2, 2), 1, lr=0.1), np.array([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 3.0]]])
    poor = sure(controller, np.full((2, 2), [0.0, -0.5]))
    policy, prices = solve(controller, poor, 0, effects, np.array([1.5, 2.0]))
    costs = (policy * effects).sum((1, 2))
    assert costs[1] == pytest.approx(2.0, rel=1e-6)
    assert costs[0] < 1.5
    assert prices[1] < 0 == prices[0]


def test_without_signal_a_policy_has_the_largest_entropy_of_its_cost() -> None:
    """Its log-odds are proportional to costs (Lagrange)."""
    controller = Controller([2] * BLOCKS, 1, lr=0.1)
    set_policy(controller, 0, zero_benefits(controller), [cost_of], [0.4], np.random.default_rng(0))
    p = controller.probabilities()[0, :, 1]
    inner = (p - MIN_PROBABILITY) / (1 - 2 * MIN_PROBABILITY)
    ratio = np.log(inner / (1 - inner)) / COSTS
    np.testing.assert_allclose(ratio, ratio[0])
    assert p @ COSTS == pytest.approx(0.4)


def searched(effects: Floats, noise: float, draws: int) -> Controller:
    """Policies of two tasks after a search on a sum of effects [S]."""
    controller, rng = Controller([2] * BLOCKS, 2, lr=0.1), np.random.default_rng(1)
    estimator = OnePass(MovingAverage(2), PosteriorFit(controller))
    for task in range(2):
        set_policy(controller, task, zero_benefits(controller), [cost_of], [0.475], rng)
    for _ in range(draws):
        choices = estimator.draw(controller, rng)
        losses = (choices @ effects)[:, None, None] + noise * rng.normal(size=(1, 1, 2))
        estimator.estimate(controller, choices, losses, np.zeros(1, dtype=np.int64))
        benefits = estimator.benefits(controller)
        for task in range(2 if benefits is not None else 0):
            assert benefits is not None
            set_policy(controller, task, benefits, [cost_of], [0.475], rng)
    return controller


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_without_effects_policies_keep_their_entropy(noise: float) -> None:
    start = searched(np.zeros(BLOCKS), noise, 0).entropy()
    assert (searched(np.zeros(BLOCKS), noise, 450).entropy() >= 0.95 * start).all()


def test_clear_effects_are_found() -> None:
    helps = np.arange(BLOCKS) % 3 == 0
    kept = searched(np.where(helps, -0.01, 0.0), 0.01, 300).probabilities()[:, :, 1]
    assert kept[:, helps].min() > 0.9
    assert kept[:, ~helps].mean() < 0.4
