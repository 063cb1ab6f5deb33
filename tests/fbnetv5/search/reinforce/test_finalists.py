import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.memory import MemoryLimit, PeakMemory
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.local import descend
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.finalists import (
    best_finalist,
    find_finalists,
    find_logit_bias,
    pareto_front,
    policy_near_budgets,
    pool_in_window,
    sample_in_window,
)
from fbnetv5.search.reinforce.loss_model import LossModel, depth_features, live_features
from fbnetv5.search.reinforce.ridge import Posterior
from fbnetv5.search.scoring import Finalist
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks import make_tasks

SPACE = FourPathSpace(stages=2, blocks_per_path=1, strict=True)
EVERYTHING: Choices = np.array(list(itertools.product(range(2), repeat=len(SPACE.variables))))


def cost_table(seed: int = 0) -> CostTable:
    values = np.random.default_rng(seed).uniform(5, 15, (len(SPACE.nodes), 1))
    fixed = np.array([not node.variables for node in SPACE.nodes])
    values[fixed] = 0.1
    return CostTable(space=SPACE, paths=(4, 8, 16, 32), unit="macs", blocks=values, head=1.0)


def make_controller(seed: int = 0) -> Controller:
    controller = Controller(SPACE.choice_counts, 2, lr=0.1)
    controller.logits.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=controller.logits.shape)))
    return controller


def expected_cost(probabilities: Floats, table: CostTable) -> tuple[float, float]:
    """Mean and standard deviation over all architectures."""
    p = probabilities[np.arange(len(SPACE.variables)), EVERYTHING].prod(1)
    costs = table(EVERYTHING)
    mean = float(p @ costs)
    return mean, float(np.sqrt(p @ (costs - mean) ** 2))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_the_logit_bias_brings_the_expected_cost_to_the_target(share: float) -> None:
    controller, table = make_controller(), cost_table()
    target = table.min_cost + share * (table.max_cost - table.min_cost)
    logit_bias = find_logit_bias(controller, 1, table, target, np.random.default_rng(0))
    mean, deviation = expected_cost(controller.biased_probabilities(1, logit_bias), table)
    assert abs(mean - target) < 4 * deviation / np.sqrt(256)


@pytest.mark.parametrize(("target", "bound"), [(0.0, -12.0), (1e9, 12.0)], ids=["below all", "above all"])
def test_the_logit_bias_is_bounded_if_the_target_is_out_of_reach(target: float, bound: float) -> None:
    logit_bias = find_logit_bias(make_controller(), 0, cost_table(), target, np.random.default_rng(0))
    assert logit_bias == pytest.approx(bound, abs=1e-3)


def test_samples_are_distinct_and_within_the_window() -> None:
    table, rng = cost_table(), np.random.default_rng(0)
    limit = 0.7 * table.max_cost
    networks = sample_in_window(make_controller().probabilities()[0], constrained(table, limit), 9, rng)
    assert len({tuple(choices) for choices in networks}) == len(networks) == 9
    costs = table(np.stack(networks))
    assert (costs <= limit).all()
    assert (costs >= 0.85 * limit).all()


def test_sampling_finds_every_architecture_of_a_small_window() -> None:
    table, rng = cost_table(), np.random.default_rng(0)
    limit = table.max_cost
    fitting = int((table(EVERYTHING) >= 0.85 * limit).sum())
    uniform = np.full((len(SPACE.variables), 2), 0.5)
    assert len(sample_in_window(uniform, constrained(table, limit), 10**6, rng)) == fitting


def test_a_budget_that_no_network_meets_is_refused() -> None:
    table, uniform = cost_table(), np.full((len(SPACE.variables), 2), 0.5)
    budget = constrained(table, table.min_cost / 2)
    with pytest.raises(UserError, match=r"no network for det costs between .* choose a larger budget"):
        pool_in_window("det", uniform, budget, np.random.default_rng(0))


def constrained(table: CostTable, limit: float) -> Constraints:
    """One budget."""
    return Constraints(budgets=[Budget(limit=limit, unit="macs")], tables=[table])


def loss_model(seed: int = 0, *, noise: float = 0.0, depth: float = 0.0) -> LossModel:
    """A model of seg's loss whose blocks and depths each bring something, known up to ``noise``."""
    live = SPACE.live_candidates(EVERYTHING[:1], (4,))
    blocks, depths = (of(SPACE, live).shape[1] for of in (live_features, depth_features))
    effects = np.concatenate([-np.random.default_rng(seed).uniform(0.1, 1.0, blocks), np.full(depths, depth)])
    return model_of(SPACE, (4, 8, 16, 32), effects, noise=noise)


def model_of(space: FourPathSpace, paths: tuple[int, ...], effects: Floats, *, noise: float = 0.0) -> LossModel:
    """A model with these effects, known up to ``noise``."""
    covariance = noise**2 * np.eye(len(effects))
    posterior = Posterior(effects=effects, covariance=covariance, strength=1.0, set_scale=0.0, noise=1.0, evidence=9.0)
    return LossModel(space=space, paths=paths, posterior=posterior)


def found(model: LossModel, policy: Floats, budget: Constraints, count: int) -> list[Choices]:
    """The finalists of a pool drawn from the policy."""
    rng = np.random.default_rng(0)
    return find_finalists(model, pool_in_window("seg", policy, budget, rng), budget, count, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rare(PeakMemory):
    """A peak that is lowest in networks with the first three blocks."""

    def __call__(self, choices: Choices) -> NDArray[np.int64]:
        peaks: NDArray[np.int64] = 10 + np.count_nonzero(choices[:, :3] == 0, axis=1)
        return peaks


def test_networks_are_walked_below_a_limit_of_memory_that_no_draw_meets() -> None:
    table, policy = cost_table(), np.full((len(SPACE.variables), 2), 0.5)
    policy[:3] = (1.0, 0.0)
    empty = np.zeros(1, dtype=np.int64)
    task = make_tasks(("seg",), CLASSES)["seg"]
    peak = Rare(space=SPACE, task=task, resolution=(64, 64), inside=empty, outputs=empty)
    memory = MemoryLimit(budget=Budget(limit=10, unit="bytes"), peak=peak)
    constraints = replace(constrained(table, 0.9 * table.max_cost), memory=memory)
    networks = np.stack(found(loss_model(), policy, constraints, 3))
    assert constraints.in_window(networks).all()
    assert (networks[:, :3] != 0).all()


@pytest.mark.parametrize("depth", [0.0, 0.05, 0.2])
def test_the_first_finalist_is_the_best_of_the_window_by_the_model(depth: float) -> None:
    table, model, uniform = cost_table(), loss_model(depth=depth), np.full((len(SPACE.variables), 2), 0.5)
    budget = constrained(table, 0.7 * table.max_cost)
    networks = found(model, uniform, budget, 5)
    inside = EVERYTHING[budget.in_window(EVERYTHING)]
    assert model.table.cost_of(networks[0]) == pytest.approx(model.table(inside).min())
    assert len(networks) == 1  # a model without doubt has one favourite


@pytest.mark.parametrize("seed", [1, 2])
def test_the_first_finalist_is_as_good_as_the_best_of_many_local_searches(seed: int) -> None:
    """Classification reads one path: most blocks run only behind fusions, so single local searches end anywhere."""
    space, rng = FourPathSpace(stages=2, blocks_per_path=2), np.random.default_rng(seed)
    table = replace(cost_table(), space=space, paths=(32,), blocks=rng.uniform(5, 15, (len(space.nodes), 1)))
    live = space.live_candidates(space.full()[None], (32,))
    blocks, depths = (of(space, live).shape[1] for of in (live_features, depth_features))
    model = model_of(space, (32,), np.concatenate([rng.normal(-0.3, 1.0, blocks), np.full(depths, 0.03)]))
    budget = constrained(table, (table.min_cost + table.max_cost) / 2)
    uniform = np.full((len(space.variables), 2), 0.5)
    (best,) = found(model, uniform, budget, 1)
    starts = sample_in_window(uniform, budget, 128, np.random.default_rng(1))
    ends = np.stack([descend(start, model.table, budget) for start in starts])
    assert model.table.cost_of(best) <= model.table(ends).min() + 1e-9


def test_finalists_differ_where_the_model_is_unsure() -> None:
    table, uniform = cost_table(), np.full((len(SPACE.variables), 2), 0.5)
    budget = constrained(table, 0.7 * table.max_cost)
    networks = found(loss_model(noise=0.5), uniform, budget, 5)
    assert len({network.tobytes() for network in networks}) == len(networks) == 5
    assert budget.in_window(np.stack(networks)).all()


def both(macs: float, params: float) -> Constraints:
    """Limits of two costs that rank blocks differently, as shares of the largest."""
    tables = [cost_table(), replace(cost_table(), unit="params", blocks=cost_table(1).blocks)]
    limits = [share * table.max_cost for share, table in zip((macs, params), tables, strict=True)]
    return Constraints(
        budgets=[Budget(limit=limits[0], unit="macs"), Budget(limit=limits[1], unit="params")], tables=tables
    )


@pytest.mark.parametrize(("macs", "params"), [(0.7, 0.95), (0.95, 0.7), (0.8, 0.8)])
def test_finalists_meet_several_budgets_and_the_first_is_the_best(macs: float, params: float) -> None:
    constraints, model = both(macs, params), loss_model(noise=0.1)
    uniform = np.full((len(SPACE.variables), 2), 0.5)
    networks = np.stack(found(model, uniform, constraints, 5))
    limits = [budget.limit for budget in constraints.budgets]
    shares = np.stack([table(networks) / limit for table, limit in zip(constraints.tables, limits, strict=True)])
    assert (shares <= 1).all()
    assert (shares.max(0) >= 0.85).all()
    inside = EVERYTHING[constraints.in_window(EVERYTHING)]
    assert model.table.cost_of(networks[0]) == pytest.approx(model.table(inside).min())


def test_the_policy_near_several_budgets_exceeds_none_of_them() -> None:
    constraints, controller = both(0.7, 0.95), make_controller()
    for task in range(2):
        policy = policy_near_budgets(controller, task, constraints, np.random.default_rng(0))
        means = [expected_cost(policy, table)[0] for table in constraints.tables]
        shares = np.array(means) / [0.95 * budget.limit for budget in constraints.budgets]
        assert shares.max() == pytest.approx(1.0, abs=0.02)


def test_several_budgets_that_no_network_meets_are_named() -> None:
    uniform = np.full((len(SPACE.variables), 2), 0.5)
    message = r"no network for seg costs at most .* multiply-adds and .* parameters and 85 % of one of them"
    with pytest.raises(UserError, match=message):
        pool_in_window("seg", uniform, both(0.01, 0.9), np.random.default_rng(0))


def finalists_of(costs: Sequence[float], losses: Sequence[float]) -> list[Finalist]:
    rows = enumerate(zip(costs, losses, strict=True))
    return [
        Finalist(choices=(number,), costs=(cost,), loss=7.0, expected_loss=loss, score=0.5)
        for number, (cost, loss) in rows
    ]


points = st.lists(st.tuples(st.integers(70, 110), st.integers(0, 6)), min_size=1, max_size=25)


@given(points)
def test_the_front_has_every_finalist_that_is_not_beaten(drawn: list[tuple[int, int]]) -> None:
    front = pareto_front(finalists_of(*zip(*drawn, strict=True)))
    beaten = {
        (cost, loss)
        for cost, loss in drawn
        for c, other in drawn
        if c <= cost and other <= loss and (c, other) != (cost, loss)
    }
    assert [(*s.costs, s.expected_loss) for s in front] == sorted(set(drawn) - beaten)


def test_the_front_of_several_costs_keeps_what_is_best_in_one_of_them() -> None:
    rows = [((1.0, 9.0), 5.0), ((2.0, 8.0), 6.0), ((2.0, 9.0), 6.0), ((3.0, 9.0), 4.0)]
    finalists = [Finalist(choices=(), costs=costs, loss=7.0, expected_loss=loss, score=0.5) for costs, loss in rows]
    assert pareto_front(finalists) == [finalists[0], finalists[1], finalists[3]]


@given(points)
def test_the_best_finalist_has_the_lowest_expected_loss_and_then_the_lowest_cost(drawn: list[tuple[int, int]]) -> None:
    best = best_finalist(finalists_of(*zip(*drawn, strict=True)))
    assert (best.expected_loss, *best.costs) == min((loss, cost) for cost, loss in drawn)
