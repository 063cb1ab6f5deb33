"""The released resource loss against the exact expectation, and trees by representation similarity."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.branching_trees import layer_distances, own_partitions, random_tree, released_groups, similarity_scores
from benchmarks.branching_world import Plan, space_of, tree_network
from fbnetv5.search.bmtas.tree_cost import expected_groups
from fbnetv5.search.bmtas.trees import partitions, refinements

PLAN = Plan(
    folder=Path("unused"),
    pretraining_steps=1,
    training_steps=1,
    soft_steps=1,
    sampled_steps=1,
    batch=2,
    lr=1e-3,
    budget_share=0.4,
)


def probabilities(tasks: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.dirichlet(np.ones(tasks), size=(6, tasks)))


def test_the_distribution_of_a_layers_own_partition_equals_frequencies_of_draws() -> None:
    weights, rng = probabilities(3)[:1], np.random.default_rng(1)
    draws = np.stack([rng.choice(3, size=40000, p=row) for row in weights[0].numpy()], axis=1)
    firsts = [tuple(row.index(copy) for copy in row) for row in draws.tolist()]
    frequencies = [firsts.count(groups) / len(firsts) for groups in partitions(3)]
    assert own_partitions(weights)[0].tolist() == pytest.approx(frequencies, abs=0.01)


@pytest.mark.parametrize("tasks", [2, 3, 4, 5])
def test_the_released_loss_is_too_high_for_three_tasks_or_more(tasks: int) -> None:
    for seed in range(5):
        weights = probabilities(tasks, seed)
        exact = expected_groups(weights, torch.ones(6, tasks, dtype=torch.bool))
        excess = (released_groups(weights) / exact - 1).numpy()
        assert excess.min() > -1e-9
        assert excess.max() < 1e-9 if tasks == 2 else 1e-3 < excess.max() < 0.1


def test_random_trees_use_the_budget_up_and_differ() -> None:
    trees = [random_tree(PLAN, seed) for seed in range(3)]
    costs = [tree["cost"] for tree in trees]
    assert min(costs) > 0.97 * max(costs)
    assert trees[0]["groups"] != trees[1]["groups"]


def test_distances_between_features_are_those_of_their_correlations() -> None:
    network = tree_network(("cls",), [(0,)] * len(space_of(("cls",)).layers), 0, None).eval()
    images = torch.randn(4, 3, 64, 64)
    first = layer_distances(network, images)[0]
    stem, layer = list(network.backbone.blocks.children())[:2]
    features = layer(stem(images)).flatten(1).detach().numpy()
    assert len(first) == 6
    assert first[0] == pytest.approx(1 - np.corrcoef(features[0], features[1])[0, 1], abs=1e-5)


def test_a_finer_partition_never_has_a_lower_similarity_score() -> None:
    values = np.random.default_rng(0).uniform(size=(3, 4, 4))
    scores = similarity_scores((values + values.transpose(0, 2, 1)) * (1 - np.eye(4)))
    coarse, fine = refinements(4)
    assert (scores[:, fine] >= scores[:, coarse]).all()
    assert scores[:, -1].tolist() == [0.0] * 3  # every task alone
    pair = partitions(4).index((0, 1, 0, 3))
    assert scores[:, pair].tolist() == pytest.approx((-(values + values.transpose(0, 2, 1))[:, 0, 2] * 2).tolist())
