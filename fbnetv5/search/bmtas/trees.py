"""Trees of tasks: which tasks share which layers, and the best tree within a budget under a trained routing.

A tree has a partition of the tasks per layer, and every partition refines the one before. Its score under a routing is

    sum over layers, max over copies i_g, all different, of sum over groups g, sum_{t in g} log p[layer, t, i_g],

the log probability of the most likely copies that make this tree. Groups must differ in their copies: two with the
same copy would compute the same twice. A finer partition may score lower, and often the most likely tree of all shares
every layer. The best tree of a budget is the most likely one that uses the budget up, exactly on the convex hull of
cost and score: dynamic programming over partitions with a price of cost, or a reward for it, and then filled up by
moving branch points one layer at a time. The authors take the most likely copy of each task and layer, whatever the
cost (arXiv 2008.10292).

Shape legend: L layers, T tasks, C copies, P partitions of the tasks (Bell numbers: 2, 5, 15, 52, 203, 877, 4140), R
pairs of a partition and one that refines it.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.errors import UserError
from fbnetv5.search.bmtas.tree_cost import expected_cost

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Groups = tuple[int, ...]
"""A partition: for each task the number of the first task of its group."""
BISECTIONS = 60
MAX_PRICE = 1e6
"""Of the cost of one run of all layers, in units of log probability: more than any routing's preference."""
MAX_PREFERENCE = 15.0
"""Maximum logit of the first copy in a routing of a given cost: the others have a probability of some 1e-6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Which tasks share which layers."""

    groups: tuple[Groups, ...]
    """By layer; each refines the one before."""
    cost: float
    """Of the whole network, in the unit of the costs."""
    score: float
    """Under the routing that it was found with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCosts:
    """The costs of the trees of an encoder."""

    layers: Floats
    """[L], cost of one run of each layer."""
    needed: NDArray[np.bool_]
    """[L, T], whether the task needs the layer."""
    fixed: float
    """Cost of the stem and all heads."""
    unit: str = "macs"
    """"macs", "ms" or "estimated ms"."""

    def of(self, groups: Sequence[Groups]) -> float:
        """The cost of a tree."""
        runs = [
            len({group for group, needs in zip(of_layer, row, strict=True) if needs})
            for of_layer, row in zip(groups, self.needed.tolist(), strict=True)
        ]
        return float(np.dot(runs, self.layers)) + self.fixed

    @property
    def all_shared(self) -> float:
        """The cost if all tasks share every layer: the minimum."""
        return self.of([(0,) * self.needed.shape[1]] * len(self.layers))

    @property
    def all_separate(self) -> float:
        """The cost if no task shares a layer: the maximum."""
        return self.of([tuple(range(self.needed.shape[1]))] * len(self.layers))

    @property
    def uniform(self) -> float:
        """The expected cost if every task chooses each copy with the same probability."""
        return self.expected(np.zeros((*self.needed.shape, self.needed.shape[1])))

    def expected(self, logits: Floats) -> float:
        """The expected cost under a routing of these logits, [L, T, C]."""
        probabilities = torch.from_numpy(logits).softmax(-1)
        encoder = expected_cost(probabilities, torch.from_numpy(self.layers), torch.from_numpy(self.needed))
        return float(encoder) + self.fixed

    def logits_at(self, cost: float) -> Floats:
        """[L, T, C]: logits whose expected cost is at most ``cost``, and equal to it if the uniform one is higher.

        All tasks prefer the first copy of every layer to the same degree: in a draw, each task leaves the others at a
        random layer.
        """
        layers, tasks = self.needed.shape
        first = np.zeros((layers, tasks, tasks))
        first[:, :, 0] = 1.0
        low, high = 0.0, MAX_PREFERENCE
        if self.uniform <= cost:
            return 0.0 * first
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.expected(middle * first) > cost else (low, middle)
        return high * first


def partitions(tasks: int) -> list[Groups]:
    """All partitions of the tasks, each as the number of the first task of every task's group."""
    result: list[Groups] = [()]
    for task in range(tasks):
        result = [(*groups, group) for groups in result for group in sorted({*groups, task})]
    return result


def routing_scores(log_probabilities: Floats) -> Floats:
    """[L, P]: the score of each partition in each layer, under a routing [L, T, C]."""
    layers, tasks, _ = log_probabilities.shape
    every = np.array(partitions(tasks))
    counts = np.array([len(set(groups)) for groups in every.tolist()])
    scores = np.zeros((layers, len(every)))
    for count in range(1, tasks + 1):
        numbers = np.flatnonzero(counts == count)
        names = np.array([sorted(set(groups)) for groups in every[numbers].tolist()])
        members = (every[numbers][:, None] == names[:, :, None]).astype(np.float64)  # [P of count, count, T]
        scores[:, numbers] = _best_assignments(np.einsum("pgt,ltc->lpgc", members, log_probabilities))
    return scores


def _best_assignments(values: Floats) -> Floats:
    """The maximum sum of values [..., G, C] over all ways to give the G groups different copies.

    Dynamic programming over the sets of copies that the first groups have: 2^C sets instead of C! ways.
    """
    groups, copies = values.shape[-2:]
    best = {0: np.zeros(values.shape[:-2])}
    for group in range(groups):
        best = {
            _number_of(used): np.max([best[_number_of(set(used) - {own})] + values[..., group, own] for own in used], 0)
            for used in itertools.combinations(range(copies), group + 1)
        }
    totals: Floats = np.max(list(best.values()), axis=0)
    return totals


def _number_of(copies: Iterable[int]) -> int:
    """The number of a set of copies: bit c is set for copy c."""
    return sum(1 << copy for copy in copies)


def best_tree(scores: Floats, costs: TreeCosts, budget: float) -> Tree:
    """The tree of the highest score that uses ``budget`` up, as the module describes.

    Args:
        scores: [L, P], of each of the ``partitions`` in each layer.
        costs: of all trees.
        budget: in the unit of the costs.

    Raises:
        UserError: the budget is below the cost of sharing everything.
    """
    if budget < costs.all_shared:
        raise UserError(
            f"no tree costs {budget:g} {costs.unit} or less: sharing every layer costs {costs.all_shared:g}"
        )
    search = _TreeSearch(scores, costs)
    if budget >= costs.all_separate:
        return search.at_price(-MAX_PRICE)
    low, high = -MAX_PRICE, MAX_PRICE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if search.at_price(middle).cost > budget else (low, middle)
    return search.filled(search.at_price(high), budget)


def hull(scores: Floats, costs: TreeCosts, prices: Sequence[float]) -> list[Tree]:
    """The best trees at these prices of cost, which may be negative, from cheap to costly; ``scores`` as above."""
    search = _TreeSearch(scores, costs)
    trees = {tree.groups: tree for tree in map(search.at_price, prices)}
    return sorted(trees.values(), key=lambda tree: tree.cost)


@cache
def refinements(tasks: int) -> tuple[Numbers, Numbers]:
    """All pairs of a partition and one that refines it, as numbers in ``partitions``: (coarse [R], fine [R]).

    Sorted by the finer one, which every partition is for itself. R is 1, 3, 12, 60, 358, 2471, 19302, 167894.
    """
    every = partitions(tasks)
    number_of = {groups: number for number, groups in enumerate(every)}
    coarse: list[int] = []
    fine: list[int] = []
    for number, groups in enumerate(every):
        firsts = sorted(set(groups))
        for merged in partitions(len(firsts)):
            joined = {first: firsts[merged[position]] for position, first in enumerate(firsts)}
            coarse.append(number_of[tuple(joined[group] for group in groups)])
            fine.append(number)
    return np.array(coarse), np.array(fine)


class _TreeSearch:
    """Scores [L, P] and runs [L, P] of every partition in every layer, and which partitions refine which."""

    def __init__(self, scores: Floats, costs: TreeCosts) -> None:
        layers, tasks = costs.needed.shape
        self._costs = costs
        self._partitions = partitions(tasks)
        self._number = {groups: number for number, groups in enumerate(self._partitions)}
        self._scores = scores
        self._runs = np.zeros((layers, len(self._partitions)))
        for number, groups in enumerate(self._partitions):
            for group in set(groups):
                members = [task for task in range(tasks) if groups[task] == group]
                self._runs[:, number] += costs.needed[:, members].any(1)
        self._coarse, self._fine = refinements(tasks)
        self._starts = np.searchsorted(self._fine, np.arange(len(self._partitions)))

    def at_price(self, price: float) -> Tree:
        """The tree of the highest score less ``price`` times its relative cost."""
        relative = self._costs.layers / self._costs.layers.sum()
        gains = self._scores - price * self._runs * relative[:, None]
        value = gains[0]
        values = [value]
        for row in gains[1:]:
            value = np.maximum.reduceat(value[self._coarse], self._starts) + row
            values.append(value)
        path = [int(values[-1].argmax())]
        for value in reversed(values[:-1]):
            sources = self._coarser(path[-1])
            path.append(int(sources[value[sources].argmax()]))
        return self._tree(path[::-1])

    def _coarser(self, number: int) -> Numbers:
        """The partitions that a partition refines."""
        return self._coarse[self._starts[number] : np.searchsorted(self._fine, number, side="right")]

    def filled(self, tree: Tree, budget: float) -> Tree:
        """The tree after moves of single layers to costlier partitions, the best first, as long as the budget lasts."""
        path, cost = [self._number[groups] for groups in tree.groups], tree.cost
        while moves := [move for layer in range(len(path)) if (move := self._best_move(path, layer, budget - cost))]:
            _, added, layer, to = max(moves)
            path[layer] = to
            cost += added
        return self._tree(path)

    def _best_move(self, path: Sequence[int], layer: int, left: float) -> tuple[float, float, int, int] | None:
        """(score gained, cost added, layer, partition) of the best costlier partition of a layer; None if none fits.

        It must lie between the partitions of the layers before and after.
        """
        now = path[layer]
        added = (self._runs[layer] - self._runs[layer, now]) * self._costs.layers[layer]
        allowed = (added > 0) & (added <= left)
        if layer > 0:
            finer = np.zeros_like(allowed)
            finer[self._fine[self._coarse == path[layer - 1]]] = True
            allowed &= finer
        if layer < len(path) - 1:
            coarser = np.zeros_like(allowed)
            coarser[self._coarser(path[layer + 1])] = True
            allowed &= coarser
        gained = self._scores[layer] - self._scores[layer, now]
        return max(((gained[to], added[to], layer, int(to)) for to in np.flatnonzero(allowed)), default=None)

    def _tree(self, path: Sequence[int]) -> Tree:
        groups = tuple(self._partitions[number] for number in path)
        score = float(self._scores[np.arange(len(path)), path].sum())
        return Tree(groups=groups, cost=self._costs.of(groups), score=score)


def copies_of_groups(log_probabilities: Floats, groups: Sequence[Groups]) -> list[dict[int, int]]:
    """By layer: group -> its copy, whose weights it gets: the most likely ones of which each serves one group."""
    return [_assigned(of_layer, row) for of_layer, row in zip(log_probabilities, groups, strict=True)]


def _assigned(log_probabilities: Floats, groups: Groups) -> dict[int, int]:
    """The copy of each group of a partition, in a layer of log probabilities [T, C]."""
    names = sorted(set(groups))
    of_groups = np.stack([log_probabilities[[own == name for own in groups]].sum(0) for name in names])
    _, copies = linear_sum_assignment(of_groups, maximize=True)
    return dict(zip(names, copies.tolist(), strict=True))
