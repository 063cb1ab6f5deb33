from itertools import pairwise, permutations, product

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.search.bmtas.trees import (
    Groups,
    TreeCosts,
    best_tree,
    copies_of_groups,
    hull,
    partitions,
    refinements,
    routing_scores,
)


def test_the_partitions_are_counted_by_the_bell_numbers() -> None:
    assert [len(partitions(tasks)) for tasks in range(1, 8)] == [1, 2, 5, 15, 52, 203, 877]
    assert partitions(3) == [(0, 0, 0), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 1, 2)]


def refines(coarse: Groups, fine: Groups) -> bool:
    tasks = range(len(fine))
    return all(coarse[a] == coarse[b] for a in tasks for b in tasks if fine[a] == fine[b])


def test_refinements_are_all_pairs_of_partitions_that_refine() -> None:
    every = partitions(4)
    expected = {(a, b) for a, coarse in enumerate(every) for b, fine in enumerate(every) if refines(coarse, fine)}
    pairs = list(zip(*(numbers.tolist() for numbers in refinements(4)), strict=True))
    assert set(pairs) == expected
    assert len(pairs) == len(expected) == 60
    assert [len(refinements(tasks)[0]) for tasks in range(1, 8)] == [1, 3, 12, 60, 358, 2471, 19302]


def score_of(log_probabilities: np.ndarray, groups: tuple[Groups, ...]) -> float:
    """By enumeration of all different copies."""
    total = 0.0
    for of_layer, row in zip(log_probabilities, groups, strict=True):
        names = sorted(set(row))
        total += max(
            sum(of_layer[task, copies[names.index(own)]] for task, own in enumerate(row))
            for copies in permutations(range(of_layer.shape[1]), len(names))
        )
    return total


def random_case(seed: int, layers: int = 4, tasks: int = 3) -> tuple[np.ndarray, TreeCosts]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(layers, tasks, tasks))
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    needed = np.ones((layers, tasks), dtype=np.bool_)
    return log_probabilities, TreeCosts(layers=rng.uniform(1, 3, layers), needed=needed, fixed=5.0)


@pytest.mark.parametrize("seed", range(6))
def test_trees_of_the_hull_are_the_best_of_all_trees_of_their_cost(seed: int) -> None:
    log_probabilities, costs = random_case(seed)
    trees = [
        chain
        for chain in product(partitions(3), repeat=4)
        if all(refines(coarse, fine) for coarse, fine in pairwise(chain))
    ]
    scores = routing_scores(log_probabilities)
    for sign in (1, -1):
        for tree in hull(scores, costs, [0.0, sign * 1.0, sign * 4.0, sign * 16.0]):
            others = [other for other in trees if sign * costs.of(other) <= sign * tree.cost + 1e-9]
            assert tree.score == pytest.approx(max(score_of(log_probabilities, other) for other in others))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_the_best_tree_uses_its_budget_up(share: float) -> None:
    log_probabilities, costs = random_case(3, layers=12, tasks=4)
    budget = costs.all_shared + share * (costs.all_separate - costs.all_shared)
    tree = best_tree(routing_scores(log_probabilities), costs, budget)
    assert budget - costs.layers.max() <= tree.cost <= budget
    assert all(refines(coarse, fine) for coarse, fine in pairwise(tree.groups))
    assert tree.cost == costs.of(tree.groups)


def test_the_extremes_cost_one_encoder_and_one_per_task() -> None:
    _, costs = random_case(0)
    assert costs.all_shared == pytest.approx(5 + costs.layers.sum())
    assert costs.all_separate == pytest.approx(5 + 3 * costs.layers.sum())


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_a_routing_of_a_given_cost_costs_that_and_treats_all_tasks_alike(share: float) -> None:
    _, costs = random_case(1, layers=10, tasks=4)
    limit = costs.all_shared + share * (costs.uniform - costs.all_shared)
    logits = costs.logits_at(limit)
    assert costs.expected(logits) == pytest.approx(limit)
    assert (logits == logits[:1, :1]).all()
    assert not costs.logits_at(costs.all_separate).any()
    assert costs.expected(costs.logits_at(costs.all_shared)) == pytest.approx(costs.all_shared, rel=1e-3)


def test_a_layer_that_a_task_does_not_need_runs_for_the_others() -> None:
    needed = np.array([[True, True], [True, False]])
    costs = TreeCosts(layers=np.array([1.0, 10.0]), needed=needed, fixed=0.0)
    assert costs.all_separate == 2 + 10


def test_a_group_gets_the_copy_that_its_tasks_find_most_likely_together() -> None:
    log_probabilities = np.log(np.array([[[0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.1, 0.1, 0.8]]]))
    assert copies_of_groups(log_probabilities, [(0, 0, 2)]) == [{0: 1, 2: 2}]


def test_groups_get_different_copies_if_all_prefer_the_same() -> None:
    log_probabilities = np.log(np.array([[[0.7, 0.2, 0.1], [0.8, 0.1, 0.1], [0.6, 0.1, 0.3]]]))
    assert copies_of_groups(log_probabilities, [(0, 1, 2)]) == [{0: 1, 1: 0, 2: 2}]
    _, costs = random_case(0, layers=1)
    tree = best_tree(routing_scores(log_probabilities), costs, costs.all_shared + costs.layers.sum())
    assert tree.groups == ((0, 0, 2),)  # the last task leaves, with its second choice


def test_a_budget_below_the_cost_of_sharing_everything_is_refused() -> None:
    log_probabilities, costs = random_case(0)
    with pytest.raises(UserError, match="no tree costs 1 macs or less: sharing every layer costs"):
        best_tree(routing_scores(log_probabilities), costs, 1.0)
