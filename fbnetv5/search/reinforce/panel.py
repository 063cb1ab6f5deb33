"""The panel: what frozen shared weights say of every block, from a few hundred architectures on the same images.

When the weights are final, architectures drawn from the policies and at random run on a few fixed batches of held-out
images. A batch's level is fitted beside the effects, so that an architecture is not judged by its images. The model
is a sum over LIVE blocks: a block that nothing reads adds nothing. The same sum prices costs, so a fitted model is a
``CostTable`` in units of the loss, and a local search minimises the one table under the budget of the other.

The search's controller learns while weights still move; the panel does not have to forget, and its fit is better for it
(docs/results.md has both). Some further architectures run on all batches first: their losses are held against the fit
of the others, which tells how far to trust it.

Shape legend: N observations, S variables, V nodes, K most candidates of a node, F features, T tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from fbnetv5.costs.tables import CostTable
from fbnetv5.search.reinforce.baselines import mean_of_known
from fbnetv5.search.reinforce.ridge import Floats, Posterior, fit_ridge
from fbnetv5.spaces.space import Choices, Space

BATCHES = 8
BATCH = 64
NO_SIGNAL = 0.05
"""A rank correlation whose one-sided p-value is above this is no evidence that the fit tells networks apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What architectures came to on the panel's batches."""

    choices: Choices
    """[N, S]."""
    batches: NDArray[np.int64]
    """[N], the number of the batch that each ran on."""
    losses: Floats
    """[N, T], mean over the batch's labelled images; nan where none is labelled."""

    def part(self, start: int, end: int) -> Self:
        """Observations ``start`` to ``end`` - 1."""
        kept = slice(start, end)
        return type(self)(choices=self.choices[kept], batches=self.batches[kept], losses=self.losses[kept])

    def joined(self, other: Self) -> Self:
        """These, then the others."""
        return type(self)(
            choices=np.concatenate([self.choices, other.choices]),
            batches=np.concatenate([self.batches, other.batches]),
            losses=np.concatenate([self.losses, other.losses]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossModel:
    """A task's loss as a sum over live blocks."""

    space: Space
    paths: tuple[int, ...]
    posterior: Posterior

    @property
    def table(self) -> CostTable:
        """The posterior mean, as costs of blocks; the level is left out."""
        return self._table(self.posterior.effects)

    def sampled(self, count: int, rng: np.random.Generator) -> list[CostTable]:
        """Tables drawn from the posterior (Thompson sampling)."""
        return [self._table(effects) for effects in self.posterior.sample(count, rng)]

    def _table(self, effects: Floats) -> CostTable:
        nodes, candidates = feature_places(self.space)
        blocks = np.zeros((len(self.space.nodes), max(len(node.candidates) for node in self.space.nodes)))
        blocks[nodes, candidates] = effects
        return CostTable(space=self.space, paths=self.paths, unit="loss", blocks=blocks, head=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How well a fit orders architectures that it has not seen."""

    architectures: int
    rank_correlation: float
    """Spearman's, of predicted and measured losses; 0 if all predictions are equal or nothing is labelled."""
    p_value: float
    """One-sided: of as high a correlation without any relation."""

    @property
    def has_signal(self) -> bool:
        return self.p_value <= NO_SIGNAL

    def to_json(self) -> dict[str, Any]:
        return {
            "architectures": self.architectures,
            "rank_correlation": self.rank_correlation,
            "p_value": self.p_value,
            "has_signal": self.has_signal,
        }


def feature_places(space: Space) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([F], [F]): node and candidate of every feature, which are the candidates of the nodes that variables set."""
    places = [
        (row, column)
        for row, node in enumerate(space.nodes)
        if node.variables
        for column in range(len(node.candidates))
    ]
    nodes, candidates = np.array(places).T
    return nodes, candidates


def live_features(space: Space, paths: Sequence[int], choices: Choices) -> Floats:
    """[N, F]: 1 where a node's candidate is live in an architecture [N, S] for the features of ``paths``."""
    nodes, candidates = feature_places(space)
    features: Floats = (space.live_candidates(choices, paths)[:, nodes] == candidates).astype(np.float64)
    return features


def fit_losses(space: Space, paths: Sequence[int], observed: Observations, task: int) -> LossModel:
    """The model of one task's losses, from the observations that have one."""
    known = ~np.isnan(observed.losses[:, task])
    features = live_features(space, paths, observed.choices[known])
    posterior = fit_ridge(features, observed.losses[known, task], observed.batches[known])
    return LossModel(space=space, paths=tuple(paths), posterior=posterior)


def check_fit(model: LossModel, held_out: Observations, task: int) -> Check:
    """Hold a model against architectures that each ran on all batches, batches in the same order for every one."""
    batches = len(np.unique(held_out.batches))
    measured = mean_of_known(held_out.losses[:, task].reshape(-1, batches), axis=1)
    predicted = model.table(held_out.choices[::batches])
    if np.isnan(measured).any() or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return Check(architectures=len(measured), rank_correlation=0.0, p_value=1.0)
    found = spearmanr(predicted, measured, alternative="greater")
    return Check(architectures=len(measured), rank_correlation=float(found.statistic), p_value=float(found.pvalue))
