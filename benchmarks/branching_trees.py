"""Trees for ``benchmarks/branching.py``: by a search, by representation similarity, and at random.

The released code of BMTAS is represented by its resource loss, derived again from its mechanism: its recursion takes
the probability that the layer's own partition EQUALS k times the probability that the groups before are k or coarser,
and gives the rest to "no task shares". It is no expectation for three tasks or more, and is above it.

Branching by representation similarity (RSA): Vandenhende et al., arXiv 1904.02920. Networks of single tasks are
compared by the correlation distances of their features between images; two tasks with similar rankings of these
distances at a layer can share it. Their beam search is replaced by the exact search of trees.

Shape legend: L layers, T tasks, P partitions of the tasks, K images.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.branching_world import TASKS, Plan, Weights, scenes, search_config
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.splits import Splits
from fbnetv5.networks.backbone import Network
from fbnetv5.search.bmtas.loop import BranchLoop
from fbnetv5.search.bmtas.prepare import Prepared, prepare
from fbnetv5.search.bmtas.results import log_probabilities_of
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.search.bmtas.trees import Floats, Tree, TreeCosts, best_tree, partitions, refinements, routing_scores

RSA_IMAGES = 200


def costs_of(plan: Plan) -> tuple[TreeCosts, float]:
    """The costs of all trees of the five tasks, and the budget."""
    costs = prepare(search_config(plan, 1.0)).costs
    return costs, plan.budget(costs.all_shared, costs.all_separate)


class ReleasedLoop(BranchLoop):
    """A search with the resource loss of the released code."""

    def _expected_share(self) -> Tensor:
        groups = released_groups(self.logits.softmax(-1))
        return ((groups * self._layer_costs).sum()) + self.costs.fixed / self.config.budget.limit


def released_groups(probabilities: Tensor) -> Tensor:
    """[L]: what the released recursion takes for the expected number of groups; probabilities are [L, T, T]."""
    own, tasks = own_partitions(probabilities), probabilities.shape[1]
    coarse, fine = (torch.from_numpy(numbers) for numbers in refinements(tasks))
    counts = torch.tensor([len(set(groups)) for groups in partitions(tasks)]).to(own)
    previous, expected = own[0], [(own[0] * counts).sum()]
    for row in own[1:]:
        coarser = torch.zeros_like(row).index_add(0, fine, previous[coarse])
        together = (row * coarser)[:-1]  # the last partition is that of no sharing
        previous = torch.cat([together, 1 - together.sum().reshape(1)])
        expected.append((previous * counts).sum())
    return torch.stack(expected)


def own_partitions(probabilities: Tensor) -> Tensor:
    """[L, P]: the distribution of the partition that each layer alone makes, whatever the layers before do."""
    tasks = probabilities.shape[1]
    copies, numbers = assignments(tasks)
    of_draw = torch.stack([probabilities[:, task, copies[:, task]] for task in range(tasks)]).prod(0)  # [L, T^T]
    return torch.zeros(len(of_draw), int(numbers.max()) + 1).to(of_draw).index_add(1, numbers, of_draw)


@cache
def assignments(tasks: int) -> tuple[Tensor, Tensor]:
    """All ways to give each task a copy, [T^T, T], and the number of the partition that each makes, [T^T]."""
    number_of = {groups: number for number, groups in enumerate(partitions(tasks))}
    every = list(itertools.product(range(tasks), repeat=tasks))
    return torch.tensor(every), torch.tensor([number_of[tuple(map(copies.index, copies))] for copies in every])


def search(plan: Plan, folder: Path, seed: int, weights: Weights, kind: str) -> dict[str, Any]:
    """The tree that a search finds; ``kind`` is one of ``SEARCHES``."""
    _, budget = costs_of(plan)
    config = search_config(plan, budget, seed=seed, **SEARCHES[kind](plan))
    prepared = on_planted_scenes(prepare(config), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supernet = BranchedSupernet(prepared.space, prepared.tasks)
    supernet.load_encoder([weights[node.name] for node in prepared.space.nodes])
    loop = (ReleasedLoop if kind == "released" else BranchLoop)(prepared, folder, supernet)
    loop.run(lambda entry: None)
    log_probabilities = log_probabilities_of(loop.logits)
    tree = best_tree(routing_scores(log_probabilities), prepared.costs, budget)
    entropy = float(-(np.exp(log_probabilities) * log_probabilities).sum(-1).mean() / np.log(len(TASKS)))
    return document(tree) | {"entropy": entropy, "log_probabilities": log_probabilities.round(4).tolist()}


def _soft(plan: Plan) -> dict[str, Any]:
    return {"routing": "soft", "start": "uniform", "steps": plan.soft_steps}


def _sampled(plan: Plan) -> dict[str, Any]:
    return {"routing": "sampled", "steps": plan.sampled_steps}


SEARCHES: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "soft": _soft,
    "sampled": _sampled,
    "released": _soft,
    "uniform start": lambda plan: _sampled(plan) | {"start": "uniform"},
    "no warm-up": lambda plan: _sampled(plan) | {"warmup_share": 0.0},
    "no resource term": lambda plan: _sampled(plan) | {"cost_weight": 0.0},
    "half size": lambda plan: _sampled(plan) | {"data": DataConfig(size=(32, 32))},
}
"""By name of the method, the fields of the search's configuration."""


def on_planted_scenes(prepared: Prepared, seed: int) -> Prepared:
    """The same search on the planted scenes, of the size of its configuration."""
    size = prepared.config.data.size
    sets = {use: scenes(use, seed, size) for use in ("weights", "policies", "test")}
    return replace(prepared, splits=Splits(**sets))


def document(tree: Tree) -> dict[str, Any]:
    """A tree as JSON."""
    return {"groups": [list(groups) for groups in tree.groups], "cost": tree.cost}


def random_tree(plan: Plan, seed: int) -> dict[str, Any]:
    """A tree within the budget under a routing of random probabilities, which uses the budget up."""
    costs, budget = costs_of(plan)
    layers, tasks = costs.needed.shape
    probabilities = np.random.default_rng([seed, 3]).dirichlet(np.full(tasks, 0.3), size=(layers, tasks))
    return document(best_tree(routing_scores(np.log(probabilities.clip(1e-12))), costs, budget))


def rsa_tree(plan: Plan, networks: Mapping[str, Network], seed: int) -> dict[str, Any]:
    """The tree within the budget whose groups have the most similar features in networks of the single tasks."""
    costs, budget = costs_of(plan)
    images = next(iter(in_order(scenes("policies", seed), batch=RSA_IMAGES)))
    distances = {task: layer_distances(network, normalise(images.images)) for task, network in networks.items()}
    tasks, layers = list(networks), len(costs.layers)
    dissimilarity = np.zeros((layers, len(tasks), len(tasks)))
    for layer, (a, b) in itertools.product(range(layers), itertools.combinations(range(len(tasks)), 2)):
        value = 1 - spearmanr(distances[tasks[a]][layer], distances[tasks[b]][layer]).statistic
        dissimilarity[layer, a, b] = dissimilarity[layer, b, a] = value
    return document(best_tree(similarity_scores(dissimilarity), costs, budget))


def similarity_scores(dissimilarity: Floats) -> Floats:
    """[L, P]: of each partition, less the sum over tasks of the largest dissimilarity [L, T, T] within their group."""
    layers, tasks, _ = dissimilarity.shape
    every = np.array(partitions(tasks))
    together = every[:, :, None] == every[:, None, :]  # [P, T, T]
    return np.array([-(together * dissimilarity[layer]).max(2).sum(1) for layer in range(layers)])


@torch.no_grad()
def layer_distances(network: Network, images: Tensor) -> list[Floats]:
    """By layer, 1 - the correlation of the features of every pair of images: [K (K - 1) / 2]."""
    values, upper = images, np.triu_indices(len(images), 1)
    distances: list[Floats] = []
    for step in network.backbone.graph.steps:
        values = network.backbone.blocks[step.name](values)
        if step.stage == 0 and step.node != network.backbone.graph.steps[0].node:
            correlation = np.corrcoef(values.flatten(1).numpy())
            distances.append(np.asarray(1 - correlation[upper], dtype=np.float64))
    return distances
