import itertools

import numpy as np
import pytest

from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import CostTable
from fbnetv5.search.local import descend, neighbours, prune
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices

SPACE = FourPathSpace(stages=2, blocks_per_path=1, strict=True)
EVERYTHING: Choices = np.array(list(itertools.product(range(2), repeat=len(SPACE.variables))))


def table(seed: int, low: float, high: float, paths: tuple[int, ...] = (8, 16, 32)) -> CostTable:
    values = np.random.default_rng(seed).uniform(low, high, (len(SPACE.nodes), 1))
    values[[not node.variables for node in SPACE.nodes]] = 0.1
    return CostTable(space=SPACE, paths=paths, unit="macs", blocks=values, head=0.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_network_of_the_window_is_found(seed: int) -> None:
    loss, cost = table(seed, -1, 0.2), table(seed + 100, 5, 15)
    budget = Constraints(budgets=[Budget(limit=0.7 * cost.max_cost, unit="macs")], tables=[cost])
    inside = EVERYTHING[budget.in_window(EVERYTHING)]
    network = min((descend(start, loss, budget) for start in inside[:: 1 + len(inside) // 6]), key=loss.cost_of)
    assert budget.in_window(network[None])[0]
    assert loss.cost_of(network) == pytest.approx(loss(inside).min())


def test_a_descent_never_ends_worse_and_is_a_local_optimum() -> None:
    loss, cost = table(1, -1, 0.2), table(101, 5, 15)
    budget = Constraints(budgets=[Budget(limit=0.7 * cost.max_cost, unit="macs")], tables=[cost])
    start = EVERYTHING[budget.in_window(EVERYTHING)][0]
    network = descend(start, loss, budget)
    near = neighbours(network, SPACE.choice_counts)
    assert loss.cost_of(network) <= loss.cost_of(start)
    assert loss(near[budget.in_window(near)]).min() >= loss.cost_of(network) - 1e-9


def test_neighbours_differ_in_a_variable_or_in_one_gained_and_one_lost() -> None:
    near = neighbours(np.array([0, 1, 0]), (2, 3, 2))
    expected = {(1, 1, 0), (0, 0, 0), (0, 2, 0), (0, 1, 1), (1, 0, 0), (0, 0, 1)}
    assert {tuple(row) for row in near.tolist()} == expected
    assert len(near) == len(expected)


def test_pruning_changes_no_network() -> None:
    cost = table(0, 5, 15, paths=(32,))
    pruned = prune(EVERYTHING, cost)
    np.testing.assert_array_equal(SPACE.live(pruned, (32,)), SPACE.live(EVERYTHING, (32,)))
    assert len({row.tobytes() for row in pruned}) < len(EVERYTHING)
