import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.costs.tables import CostTable
from fbnetv5.search import local
from fbnetv5.search.local import Changes, descend, promising, prune
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.wide import WideSpace

SPACE = FourPathSpace(stages=2, blocks_per_path=1, strict=True)
EVERYTHING: Choices = np.array(list(itertools.product(range(2), repeat=len(SPACE.variables))))


def table(seed: int, low: float, high: float, paths: tuple[int, ...] = (8, 16, 32)) -> CostTable:
    values = np.random.default_rng(seed).uniform(low, high, (len(SPACE.nodes), 1))
    values[[not node.variables for node in SPACE.nodes]] = 0.1
    return CostTable(space=SPACE, paths=paths, unit="macs", blocks=values, head=0.0)


def neighbours(network: Choices, choice_counts: Sequence[int], needed: NDArray[np.bool_]) -> Choices:
    changes = Changes.of(network, choice_counts, needed)
    return np.concatenate([changes.singles(), changes.applied(*changes.pairs())])


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
    near = neighbours(network, SPACE.choice_counts, np.ones(len(network), dtype=np.bool_))
    assert loss.cost_of(network) <= loss.cost_of(start)
    assert loss(near[budget.in_window(near)]).min() >= loss.cost_of(network) - 1e-9


def test_neighbours_differ_in_a_choice_or_in_one_that_rises_and_one_that_falls() -> None:
    near = neighbours(np.array([0, 1, 0]), (2, 3, 2), np.ones(3, dtype=np.bool_))
    expected = {(1, 1, 0), (0, 0, 0), (0, 2, 0), (0, 1, 1), (1, 0, 0), (0, 0, 1)}
    assert {tuple(row) for row in near.tolist()} == expected
    assert len(near) == len(expected)


def test_variables_that_do_not_matter_do_not_change() -> None:
    near = neighbours(np.array([0, 1, 0]), (2, 3, 2), np.array([True, True, False]))
    assert {tuple(row) for row in near.tolist()} == {(1, 1, 0), (0, 0, 0), (0, 2, 0), (1, 0, 0)}


def test_choices_of_a_variable_rise_and_fall() -> None:
    near = neighbours(np.array([2, 1]), (3, 3), np.ones(2, dtype=np.bool_))
    singles, pairs = {(0, 1), (1, 1), (2, 0), (2, 2)}, {(0, 2), (1, 2)}
    assert {tuple(row) for row in near.tolist()} == singles | pairs


def test_the_most_promising_pairs_meet_the_budget_with_the_lowest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    space = WideSpace(stages=1, blocks_per_path=1)
    shape, paths = (len(space.nodes), max(len(node.candidates) for node in space.nodes)), (8, 16, 32)
    loss, cost = (
        CostTable(
            space=space, paths=paths, unit="macs", blocks=np.random.default_rng(seed).uniform(5, 15, shape), head=0.0
        )
        for seed in (0, 1)
    )
    current = np.where(space.skipping, 1, space.random(space.skipping, np.random.default_rng(2)))
    nodes = [{node.name for node in space.nodes if number in node.variables} for number in range(len(current))]
    changes = Changes.of(current, space.choice_counts, ~space.skipping)
    first, second = changes.pairs()
    variables = zip(changes.variables[first], changes.variables[second], strict=True)
    apart = [nodes[one].isdisjoint(nodes[other]) for one, other in variables]
    first, second = first[apart], second[apart]
    both = changes.applied(first, second)
    budget = Constraints(budgets=[Budget(limit=cost.cost_of(current), unit="macs")], tables=[cost])
    losses = np.where(cost(both) <= budget.budgets[0].limit, loss(both), np.inf)
    monkeypatch.setattr(local, "MAX_PAIRS", len(first))
    assert promising((first, second), changes.singles(), current, loss, budget) == (first, second)
    monkeypatch.setattr(local, "MAX_PAIRS", len(first) - 1)
    monkeypatch.setattr(local, "PROMISING_PAIRS", 20)
    chosen = promising((first, second), changes.singles(), current, loss, budget)
    np.testing.assert_allclose(np.sort(loss(changes.applied(*chosen))), np.sort(losses)[:20])


def test_the_best_network_is_found_among_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, cost = table(1, -1, 0.2), table(101, 5, 15)
    budget = Constraints(budgets=[Budget(limit=0.7 * cost.max_cost, unit="macs")], tables=[cost])
    inside = EVERYTHING[budget.in_window(EVERYTHING)]
    monkeypatch.setattr(local, "MAX_PAIRS", 4)
    monkeypatch.setattr(local, "PROMISING_PAIRS", 4)
    network = min((descend(start, loss, budget) for start in inside[:: 1 + len(inside) // 6]), key=loss.cost_of)
    assert loss.cost_of(network) == pytest.approx(loss(inside).min())


def test_pruning_changes_no_network() -> None:
    cost = table(0, 5, 15, paths=(32,))
    pruned = prune(EVERYTHING, cost)
    np.testing.assert_array_equal(SPACE.live(pruned, (32,)), SPACE.live(EVERYTHING, (32,)))
    assert len({row.tobytes() for row in pruned}) < len(EVERYTHING)
