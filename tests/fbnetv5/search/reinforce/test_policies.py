"""The policies of a search and their updates, by the loop of a tiny search."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET, Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import Counter
from fbnetv5.data.loading import in_order
from fbnetv5.runs.checkpoint import by_group
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.policies import Policies
from fbnetv5.search.reinforce.posterior import zero_benefits
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks import make_tasks

MakeConfig = Callable[..., SearchConfig]
MakeLoop = Callable[..., SearchLoop]
SEG = (Budget(limit=450e6, unit="macs"),)


def test_policies_start_at_their_target_cost(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    for task, own in enumerate(loop.constraints.values()):
        (table,), (budget,) = own.tables, own.budgets
        drawn = loop.policies.controller.sample(task, 4000, np.random.default_rng(1))
        reachable = np.clip(AIMED_SHARE_OF_BUDGET * budget.limit, table.min_cost, table.max_cost)
        assert table(drawn).mean() == pytest.approx(reachable, rel=0.01)


def test_policies_in_closed_form_reach_the_target_cost_and_store_its_price(make_loop: MakeLoop) -> None:
    loop = make_loop("cls", "seg")
    benefits = replace(zero_benefits(loop.policies.controller), signal=1.0)
    benefits.mean[:, :, 1] = 0.01
    benefits.sd[:, :, 1] = 0.01
    loop.policies._set(benefits, np.random.default_rng(0))
    for task, own in enumerate(loop.constraints.values()):
        (table,), (budget,) = own.tables, own.budgets
        drawn = loop.policies.controller.sample(task, 4000, np.random.default_rng(1))
        assert table(drawn).mean() == pytest.approx(AIMED_SHARE_OF_BUDGET * budget.limit, rel=0.02)
    assert (loop.policies.multiplier != 0).all()


@pytest.mark.parametrize("limit", [20e6, 60e6])
def test_policies_of_the_wide_space_start_at_their_target_cost(limit: float) -> None:
    space = WideSpace()
    task = make_tasks(("cls",), {"label": ("a", "b")})["cls"]
    budget, table = Budget(limit=limit, unit="macs"), Counter((64, 64)).table(space, task, "macs")
    constraints, shares = {"cls": Constraints(budgets=[budget], tables=[table])}, []
    for seed in range(4):
        config = SearchConfig(budgets={"cls": (budget,)}, space=space, seed=seed)
        policies = Policies(config, space, constraints, images=16)
        shares.append(table(policies.controller.sample(0, 2000, np.random.default_rng(1))).mean() / limit)
    assert max(shares) < 1.0
    assert np.mean(shares) == pytest.approx(AIMED_SHARE_OF_BUDGET, abs=0.02)


@pytest.mark.parametrize("estimator", ["average", "pair"])
def test_policies_that_step_start_with_all_kernels_alike(
    estimator: str, make_config: Callable[..., SearchConfig]
) -> None:
    space = WideSpace(stages=1, blocks_per_path=1)
    prepared = prepare(make_config("cls", space=space, estimator=estimator))
    controller = Policies(prepared.config, space, prepared.constraints, images=16).controller
    probabilities = controller.probabilities()[0]
    np.testing.assert_allclose(probabilities[~space.skipping, 0], 1 / controller.choice_counts[~space.skipping])
    assert np.ptp(probabilities[space.skipping, 1]) < 1e-12


@pytest.mark.parametrize(("logit", "sign"), [(4.0, 1), (-4.0, -1)], ids=["over the budget", "under it"])
def test_the_multiplier_rises_over_the_budget_and_falls_under_it(
    make_loop: MakeLoop, constraints: dict[str, Constraints], logit: float, sign: int
) -> None:
    (table,) = constraints["cls"].tables
    half_way = (table.min_cost + table.max_cost) / 2
    budget = Budget(limit=half_way / AIMED_SHARE_OF_BUDGET, unit="macs")
    loop = make_loop("cls", budgets={"cls": (budget,)}, policy_lr=0.5, estimator="average")
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


def both(constraints: dict[str, Constraints], macs: float, params: float) -> tuple[Budget, Budget]:
    """Budgets of cls at these shares of its range of multiply-adds and of parameters."""
    task = make_tasks(("cls",), {"label": ("a", "b")})["cls"]
    tables = [constraints["cls"].tables[0], Counter((224, 224)).table(constraints["cls"].space, task, "params")]
    limits = [
        (table.min_cost + share * (table.max_cost - table.min_cost)) / AIMED_SHARE_OF_BUDGET
        for table, share in zip(tables, (macs, params), strict=True)
    ]
    return Budget(limit=limits[0], unit="macs"), Budget(limit=limits[1], unit="params")


@pytest.mark.parametrize(("macs", "params"), [(0.3, 0.9), (0.9, 0.3)], ids=["macs bind", "params bind"])
@pytest.mark.parametrize("estimator", ["control", "average"])
def test_policies_meet_several_budgets_and_the_binding_one_has_the_price(
    make_loop: MakeLoop, constraints: dict[str, Constraints], estimator: str, macs: float, params: float
) -> None:
    loop = make_loop("cls", "seg", budgets={"cls": both(constraints, macs, params), "seg": SEG}, estimator=estimator)
    policies, binding = loop.policies, 0 if macs < params else 1
    assert policies.budget_names == ["cls/macs", "cls/params", "seg"]
    benefits = replace(zero_benefits(policies.controller), signal=1.0)
    benefits.mean[:, :, 1] = benefits.sd[:, :, 1] = 0.01
    if estimator == "control":
        policies._set(benefits, np.random.default_rng(0))
    for step in range(0 if estimator == "control" else 60):
        policies._step(np.zeros_like(benefits.mean), np.random.default_rng(step))
    own = loop.constraints["cls"]
    drawn = policies.controller.sample(0, 4000, np.random.default_rng(1))
    shares = [t(drawn).mean() / (AIMED_SHARE_OF_BUDGET * b.limit) for t, b in zip(own.tables, own.budgets, strict=True)]
    assert shares[binding] == pytest.approx(1.0, rel=0.02)
    assert shares[1 - binding] < 0.99
    assert policies.multiplier[1 - binding] == 0.0
    entry = loop.entry(last=True) if loop.done else None
    assert entry is None
    assert list(loop._by_budget(policies.expected_cost)) == policies.budget_names


def test_policies_of_several_budgets_are_restored(make_loop: MakeLoop, constraints: dict[str, Constraints]) -> None:
    budgets = {"cls": both(constraints, 0.3, 0.9), "seg": SEG}
    first = make_loop("cls", "seg", budgets=budgets).policies
    first.multiplier[:] = [0.5, 0.25, 1.5]
    groups = by_group(first.tensors())
    second = make_loop("cls", "seg", budgets=budgets).policies
    second.load(groups, Path("run"))
    np.testing.assert_array_equal(first.multiplier, second.multiplier)
    np.testing.assert_array_equal(first.expected_cost, second.expected_cost)
