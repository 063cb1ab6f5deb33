"""The policies of a search and their updates, by the loop of a tiny search."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET, Budget
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.loading import in_order
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.posterior import zero_benefits

MakeLoop = Callable[..., SearchLoop]


def test_policies_start_at_their_target_cost(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    for task, (name, budget) in enumerate(loop.config.budgets.items()):
        table = loop.tables[name]
        drawn = loop.policies.controller.sample(task, 4000, np.random.default_rng(1))
        reachable = np.clip(
            AIMED_SHARE_OF_BUDGET * budget.limit, loop.tables[name].min_cost, loop.tables[name].max_cost
        )
        assert table(drawn).mean() == pytest.approx(reachable, rel=0.01)


def test_policies_in_closed_form_reach_the_target_cost_and_store_its_price(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    benefits = replace(zero_benefits(loop.policies.controller), signal=1.0)
    benefits.mean[:, :, 1] = 0.01
    benefits.sd[:, :, 1] = 0.01
    loop.policies._set(benefits, np.random.default_rng(0))
    for task, (name, budget) in enumerate(loop.config.budgets.items()):
        drawn = loop.policies.controller.sample(task, 4000, np.random.default_rng(1))
        assert loop.tables[name](drawn).mean() == pytest.approx(AIMED_SHARE_OF_BUDGET * budget.limit, rel=0.02)
    assert (loop.policies.multiplier != 0).all()


@pytest.mark.parametrize(("logit", "sign"), [(4.0, 1), (-4.0, -1)], ids=["over the budget", "under it"])
def test_the_multiplier_rises_over_the_budget_and_falls_under_it(
    make_loop: MakeLoop, cost_tables: dict[str, CostTable], logit: float, sign: int
) -> None:
    half_way = (cost_tables["cls"].min_cost + cost_tables["cls"].max_cost) / 2
    budget = Budget(limit=half_way / AIMED_SHARE_OF_BUDGET, unit="macs")
    loop = make_loop("cls", budgets={"cls": budget}, policy_lr=0.5, estimator="average")
    loop.policies.controller.logits[0, :, 1] = logit
    batch = next(in_order(loop.splits.weights, batch=2))
    costs, multipliers = [], [0.0]
    for _ in range(4):  # the same architecture on the same images: no advantage, so only costs move the policy
        loop.train_policies(batch, loop.supernet.space.full()[None], np.random.default_rng(0))
        costs.append(loop.policies.expected_cost[0])
        multipliers.append(float(loop.policies.multiplier[0]))
    # A step goes by the expected cost before it, which at first is that of the policies as they were made.
    assert (np.sign(np.diff(multipliers[1:])) == sign).all()
    assert np.sign(costs[0] - costs[-1]) == sign
