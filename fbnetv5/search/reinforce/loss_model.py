"""The model of a task's loss that a panel is fitted to: effects of live blocks, and the depths of paths.

One part of the model is a sum over LIVE blocks: a block that nothing reads adds nothing. A block adds an effect for
each choice of the variables that set it, such as its kernel. Blocks of one path and stage are related, and so are those
of one path and those of one stage: the prior of the effects has a part in common for each of these sets. What the
weights of a single block happen to have learned counts less then.

Blocks of one path also make up for each other: the first ones lower the loss by more than the later ones. So the model
has further effects, of ``exp(-n / DEPTH_BLOCKS)`` for the ``n`` live blocks of a stride, and for those of its first
stage and of its later stages. A sum of blocks alone would spend all of the budget on the path whose blocks are worth
most on average, where the last ones are worth next to nothing (docs/results.md).

Costs are sums over live blocks, too. A fitted model gives a ``LossTable``, a table of costs in units of the loss with
the terms of the depths, and a local search minimises it under the budget of the cost table.

Shape legend: B architectures, N observations, S variables, V nodes, P candidates of the nodes that variables set,
F features of blocks, H sets of features, D depths.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fbnetv5.blocks.specs import Fusion
from fbnetv5.costs.tables import CostTable
from fbnetv5.search.reinforce.ridge import Floats, Posterior, fit_ridge
from fbnetv5.spaces.graph import SKIPPED, Node
from fbnetv5.spaces.space import Choices, Space

DEPTH_BLOCKS = 2.0
"""Number of blocks over which the effect of a depth falls to 1 / e; 1.5 and 2 explain panels about equally well."""
DEPTH_SCALE = 30.0
"""Prior's standard deviation of the effect of a depth, from no block to many, over that of a block's own effect."""

Feature = tuple[int, int, int]
"""A choice of a variable that sets a node and skips nothing: number of the node, of the variable, and of the choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTable(CostTable):
    """Predicted losses: sums over live blocks, and a term for each depth; the level is left out.

    Its extremes by ``min_cost`` and ``max_cost`` are not exact, and ``weighted_sum`` would drop the depths.
    """

    depth_effects: Floats
    """[D], of the features of ``depth_features``: the loss of no block, over that of many, is ``DEPTH_SCALE`` times
    the effect."""

    def _of_live(self, live: NDArray[np.int64]) -> Floats:
        losses: Floats = CostTable._of_live(self, live) + depth_features(self.space, live) @ self.depth_effects
        return losses


@dataclass(frozen=True, slots=True, kw_only=True)
class LossModel:
    """A task's loss as a sum over live blocks, with diminishing returns of the blocks of each path."""

    space: Space
    paths: tuple[int, ...]
    posterior: Posterior
    """Of the effects [F + D]."""

    @property
    def table(self) -> LossTable:
        """The posterior mean."""
        return self._table(self.posterior.effects)

    def sample_tables(self, count: int, rng: np.random.Generator) -> list[LossTable]:
        """Tables drawn from the posterior (Thompson sampling; Thompson, Biometrika 25, 1933)."""
        return [self._table(effects) for effects in self.posterior.sample(count, rng)]

    def _table(self, effects: Floats) -> LossTable:
        nodes, candidates = candidate_positions(self.space)
        of_candidates = candidate_features(self.space)
        blocks = np.zeros((len(self.space.nodes), max(len(node.candidates) for node in self.space.nodes)))
        blocks[nodes, candidates] = of_candidates @ effects[: of_candidates.shape[1]]
        return LossTable(
            space=self.space,
            paths=self.paths,
            unit="loss",
            blocks=blocks,
            head=0.0,
            depth_effects=effects[of_candidates.shape[1] :],
        )


def fit_model(
    space: Space, paths: Sequence[int], choices: Choices, losses: Floats, batches: NDArray[np.int64]
) -> LossModel:
    """The model of one task's losses [N] of architectures [N, S], where each batch [N] of images has its own level."""
    features, related = model_features(space, paths, choices), related_features(space)
    unrelated = np.zeros((features.shape[1] - len(related), related.shape[1]))
    posterior = fit_ridge(features, losses, batches, np.concatenate([related, unrelated]))
    return LossModel(space=space, paths=tuple(paths), posterior=posterior)


def model_features(space: Space, paths: Sequence[int], choices: Choices) -> Floats:
    """[N, F + D]: the features of the blocks that are live in architectures [N, S], then those of the depths."""
    live = space.live_candidates(choices, paths)
    return np.concatenate([live_features(space, live), depth_features(space, live)], axis=1)


def depth_features(space: Space, live: NDArray[np.int64]) -> Floats:
    """[N, D]: ``DEPTH_SCALE`` where no block of a depth is among the live candidates [N, V], and less with each."""
    depths = (live != SKIPPED).astype(np.float64) @ depth_blocks(space)
    features: Floats = DEPTH_SCALE * np.exp(-depths / DEPTH_BLOCKS)
    return features


def depth_blocks(space: Space) -> Floats:
    """[V, D]: 1 for the blocks of a depth: those of a stride, of its first stage with any, and of its later stages."""
    strides = np.array([node.stride if is_optional_block(node) else 0 for node in space.nodes])
    stages = np.array([node.stage for node in space.nodes])
    depths = []
    for stride in np.unique(strides[strides > 0]):
        of_path = strides == stride
        first = of_path & (stages == stages[of_path].min())
        depths += [of_path, first, of_path & ~first] if (of_path & ~first).any() else [of_path]
    return np.array(depths, dtype=np.float64).reshape(-1, len(space.nodes)).T


def is_optional_block(node: Node) -> bool:
    """Whether a node is a block that can be skipped; the fusion of two paths is none."""
    return node.skippable and not isinstance(node.candidates[0], Fusion)


def live_features(space: Space, live: NDArray[np.int64]) -> Floats:
    """[N, F]: the features of the live candidates [N, V]."""
    nodes, candidates = candidate_positions(space)
    features: Floats = (live[:, nodes] == candidates).astype(np.float64) @ candidate_features(space)
    return features


def candidate_positions(space: Space) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([P], [P]): node and number of every candidate of the nodes that variables set."""
    positions = [
        (row, column)
        for row, node in enumerate(space.nodes)
        if node.variables
        for column in range(len(node.candidates))
    ]
    nodes, candidates = np.array(positions).T
    return nodes, candidates


def candidate_features(space: Space) -> Floats:
    """[P, F]: 1 where a candidate has a feature.

    Of several combinations of choices with the same candidate, the first counts.
    """
    rows = _features_of_candidates(space)
    columns = {feature: column for column, feature in enumerate(_features(rows))}
    features = np.zeros((len(rows), len(columns)))
    for place, row in enumerate(rows):
        features[place, [columns[feature] for feature in row]] = 1.0
    return features


def related_features(space: Space) -> Floats:
    """[F, H]: 1 where a feature belongs to a set whose features have an effect in common.

    A set has the same choice of all blocks, or of all fusions, of one path and stage, of one path, or of one stage.
    """
    memberships = [
        [(kind, node.stage, node.stride), (kind, "path", node.stride), (kind, "stage", node.stage)]
        for node, kind in _kinds(space)
    ]
    sets = sorted({each for row in memberships for each in row}, key=str)
    return np.array([[each in row for each in sets] for row in memberships], dtype=np.float64)


def _kinds(space: Space) -> Iterator[tuple[Node, tuple[str, str, int]]]:
    """The node of each feature, and what is chosen there: the class of the block, the kind of variable, the choice."""
    for number, variable, choice in _features(_features_of_candidates(space)):
        node = space.nodes[number]
        decision = space.variables[variable].name.removeprefix(node.name)
        yield node, (type(node.candidates[0]).__name__, decision, choice)


def _features(rows: Sequence[Sequence[Feature]]) -> list[Feature]:
    """[F]: the features of all candidates, in order."""
    return sorted({feature for row in rows for feature in row})


def _features_of_candidates(space: Space) -> list[tuple[Feature, ...]]:
    """[P]: the features of every candidate of the nodes that variables set."""
    rows: list[tuple[Feature, ...]] = []
    for number, node in enumerate(space.nodes):
        if node.variables:
            combinations = list(product(*(range(space.choice_counts[variable]) for variable in node.variables)))
            for candidate in range(len(node.candidates)):
                choices = combinations[node.table.index(candidate)]
                rows.append(tuple((number, *pair) for pair in zip(node.variables, choices, strict=True)))
    return rows
