"""The panel: losses of several hundred architectures, to which the effect of every block is fitted.

When the weights are final, architectures drawn from the policies and at random run on fixed batches of held-out images,
each on one. The level of each batch is fitted beside the effects, so that the difficulty of its images is not
attributed to the architecture. The model is a sum over LIVE blocks: a block that nothing reads adds nothing. A block
adds an effect for each choice of the variables that set it, such as its kernel. Costs are sums over live blocks too, so
a fitted model is a ``CostTable`` in units of the loss, and a local search minimises the loss table under the budget of
the cost table.

Blocks of one path and stage are related, and so are those of one path and those of one stage: the prior of the effects
has a part in common for each of these sets. What the weights of a single block happen to have learned counts less then.

The search's controller learns while the weights still change; the panel does not have to discard old losses, and its
fit is better for it (docs/results.md has both). Further random architectures run on the same few batches: their losses
are compared with the predictions of a fit to the others, which measures how reliable the fit is.

Shape legend: N observations, S variables, V nodes, P candidates of the nodes that variables set, F features, T tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from export.errors import UserError
from fbnetv5.costs.tables import CostTable
from fbnetv5.runs.checkpoint import by_group, load_tensors, save_tensors
from fbnetv5.search.reinforce.baselines import nanmean
from fbnetv5.search.reinforce.ridge import Floats, Posterior, fit_ridge
from fbnetv5.spaces.graph import Node
from fbnetv5.spaces.space import Choices, Space

BATCHES = 32
"""Maximum number of batches of held-out images; each of the architectures that a model is fitted to runs on one. Many
images matter more than many architectures: on 512 images the order of classifiers of equal cost is largely chance."""
MIN_DRAWS_PER_BATCH = 8
"""Fewer architectures per batch would leave little of their losses when the level of each batch is fitted."""
CHECK_BATCHES = 8
"""Maximum number of these batches that the architectures that check the fit run on, all on the same."""
BATCH = 64
"""Images of a batch."""
PANEL = "panel.safetensors"
"""Name of the file of a finished search's panel."""
MAX_P_VALUE = 0.05
"""Maximum one-sided p-value of a rank correlation that counts as evidence that the fit ranks networks."""


Feature = tuple[int, int, int]
"""A choice of a variable that sets a node and skips nothing: number of the node, of the variable, and of the choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Losses of architectures on the panel's batches."""

    choices: Choices
    """[N, S]."""
    batches: NDArray[np.int64]
    """[N], the number of the batch of each observation."""
    losses: Floats
    """[N, T], mean over the batch's labelled images; nan where none is labelled or the task did not run."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name of the field."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def check_types(self) -> None:
        """Raise TypeError unless choices and batches are whole numbers and losses are not."""
        kinds = {name: array.dtype.kind for name, array in self.arrays().items()}
        if kinds != {"choices": "i", "batches": "i", "losses": "f"}:
            raise TypeError(f"the arrays are of other types: {kinds}")

    def part(self, start: int, end: int) -> Self:
        """Observations ``start`` to ``end`` - 1."""
        kept = slice(start, end)
        return type(self)(choices=self.choices[kept], batches=self.batches[kept], losses=self.losses[kept])

    def joined(self, other: Self) -> Self:
        """These observations, then the others."""
        return type(self)(
            choices=np.concatenate([self.choices, other.choices]),
            batches=np.concatenate([self.batches, other.batches]),
            losses=np.concatenate([self.losses, other.losses]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The panel's losses; a finished search keeps them, so that networks of other budgets need no new passes."""

    drawn: Observations
    """Of the architectures that a model is fitted to, from a policy or at random, each on one batch."""
    checks: Observations
    """Of the random architectures that check the fit, each on the same batches of its tasks in turn."""

    def save(self, file: Path) -> None:
        """Write the losses as a safetensors file."""
        parts = {"drawn": self.drawn, "checks": self.checks}
        arrays = {f"{part}/{name}": array for part, rows in parts.items() for name, array in rows.arrays().items()}
        save_tensors(file, {name: torch.from_numpy(array) for name, array in arrays.items()})

    def pooled(self, others: Sequence[Self]) -> Self:
        """This panel with the losses of other searches' panels, of the same space and tasks, among the drawn ones.

        Every batch of every search has a level of its own. The checks remain those of this panel.
        """
        drawn = self.drawn
        for other in others:
            own = other.drawn.joined(other.checks)
            drawn = drawn.joined(replace(own, batches=own.batches + drawn.batches.max() + 1))
        return replace(self, drawn=drawn)

    @classmethod
    def load(cls, file: Path, *, variables: int, tasks: int) -> Self:
        """Read the losses of architectures with so many variables and of so many tasks.

        Raises:
            UserError: the file is missing or damaged, or of another search.
        """
        groups = by_group(load_tensors(file))
        try:
            parts = {
                part: Observations(**{name: t.numpy() for name, t in rows.items()}) for part, rows in groups.items()
            }
            panel = cls(**parts)
            for rows in parts.values():
                rows.check_types()
        except TypeError:
            raise UserError(f"{file} has not the panel of a search: restore it, or search again") from None
        for rows in parts.values():
            if rows.choices.shape[1:] != (variables,) or rows.losses.shape != (len(rows.choices), tasks):
                raise UserError(f"{file} has the panel of another search: restore that of this run, or search again")
        return panel


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

    def sample_tables(self, count: int, rng: np.random.Generator) -> list[CostTable]:
        """Tables drawn from the posterior (Thompson sampling; Thompson, Biometrika 25, 1933)."""
        return [self._table(effects) for effects in self.posterior.sample(count, rng)]

    def expected_losses(self, choices: Choices, losses: Floats, images: int) -> Floats:
        """[K]: losses given the panel and a measurement, whose mean they keep.

        The prediction is the prior of the differences between networks, and all residuals of the panel count as noise
        of ``BATCH`` images. What is particular to a network under these weights is among them: it is shrunk on purpose,
        because it carries over to other weights worse than the sum of effects does (docs/lab-notes.md). The images of
        the measurement may be among the panel's; that both have their errors in common is neglected.

        Args:
            choices: [K, S], networks.
            losses: [K], measured on the same images.
            images: number of these images.
        """
        features = live_features(self.space, self.paths, choices)
        features -= features.mean(0)
        predicted, covariance = features @ self.posterior.effects, features @ self.posterior.covariance @ features.T
        noise = self.posterior.noise**2 * BATCH / images
        if noise < np.finfo(np.float64).eps:  # nothing was observed, or no difference
            return losses
        surprise = losses - losses.mean() - predicted
        update = covariance @ np.linalg.solve(covariance + noise * np.eye(len(losses)), surprise)
        expected: Floats = losses.mean() + predicted + update
        return expected

    def _table(self, effects: Floats) -> CostTable:
        nodes, candidates = candidate_positions(self.space)
        blocks = np.zeros((len(self.space.nodes), max(len(node.candidates) for node in self.space.nodes)))
        blocks[nodes, candidates] = candidate_features(self.space) @ effects
        return CostTable(space=self.space, paths=self.paths, unit="loss", blocks=blocks, head=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuality:
    """How well a fit ranks architectures that it was not fitted to."""

    architectures: int
    rank_correlation: float
    """Spearman's, of predicted and measured losses; 0 if all predictions are equal or no image is labelled."""
    p_value: float
    """One-sided: the probability of a correlation at least as high between unrelated losses."""

    @property
    def has_signal(self) -> bool:
        """Whether the rank correlation is significantly above 0."""
        return self.p_value <= MAX_P_VALUE

    def to_json(self) -> dict[str, Any]:
        return {
            "architectures": self.architectures,
            "rank_correlation": self.rank_correlation,
            "p_value": self.p_value,
            "has_signal": self.has_signal,
        }


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


def live_features(space: Space, paths: Sequence[int], choices: Choices) -> Floats:
    """[N, F]: the features of the candidates that are live in architectures [N, S] for the features of ``paths``."""
    nodes, candidates = candidate_positions(space)
    live = space.live_candidates(choices, paths)[:, nodes] == candidates
    features: Floats = live.astype(np.float64) @ candidate_features(space)
    return features


def fit_losses(space: Space, paths: Sequence[int], observations: Observations, task: int) -> LossModel:
    """The model of one task's losses, fitted to the observations with a loss of that task."""
    labelled = ~np.isnan(observations.losses[:, task])
    features = live_features(space, paths, observations.choices[labelled])
    losses, batches = observations.losses[labelled, task], observations.batches[labelled]
    posterior = fit_ridge(features, losses, batches, related_features(space))
    return LossModel(space=space, paths=tuple(paths), posterior=posterior)


def measure_fit(model: LossModel, held_out: Observations, task: int) -> FitQuality:
    """Compare a model's ranking with the measured losses of architectures that each ran on the same batches in turn.

    Batches that no architecture has a loss of this task on do not count.
    """
    of_task = np.unique(held_out.batches[~np.isnan(held_out.losses[:, task])])
    if not len(of_task):
        return FitQuality(architectures=0, rank_correlation=0.0, p_value=1.0)
    rows = np.isin(held_out.batches, of_task)
    measured = nanmean(held_out.losses[rows, task].reshape(-1, len(of_task)), axis=1)
    predicted = model.table(held_out.choices[rows][:: len(of_task)])
    if np.isnan(measured).any() or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return FitQuality(architectures=len(measured), rank_correlation=0.0, p_value=1.0)
    test = spearmanr(predicted, measured, alternative="greater")
    return FitQuality(architectures=len(measured), rank_correlation=float(test.statistic), p_value=float(test.pvalue))
