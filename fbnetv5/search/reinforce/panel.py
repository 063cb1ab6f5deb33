"""The panel: losses of several hundred architectures, which a model of each task's loss is fitted to.

When the weights are final, architectures drawn from the policies and at random run on fixed batches of held-out images,
each on one. The level of each batch is fitted beside the effects of the model (``loss_model.py``), so that the
difficulty of its images is not attributed to the architecture.

The search's controller learns while the weights still change; the panel does not have to discard old losses, and its
fit is better for it (docs/results.md has both). Further random architectures run on the same few batches: their losses
are compared with the predictions of a fit to the others, which measures how reliable the fit is.

Shape legend: N observations, S variables, T tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from export.errors import UserError
from fbnetv5.runs.checkpoint import by_group, load_tensors, save_tensors
from fbnetv5.search.reinforce.baselines import nanmean
from fbnetv5.search.reinforce.loss_model import LossModel, fit_model
from fbnetv5.search.reinforce.ridge import Floats
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
MIN_EVIDENCE = 3.0
"""Minimum evidence of effects, in nats: strong evidence (Kass and Raftery, Journal of the American Statistical
Association 90, 1995). Panels of the demo have 26 to 787, with shuffled losses at most .3 (docs/results.md)."""


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
class FitQuality:
    """How well a fit ranks architectures that it was not fitted to."""

    architectures: int
    rank_correlation: float
    """Spearman's, of predicted and measured losses; 0 if all predictions are equal or no image is labelled."""
    p_value: float
    """One-sided: the probability of a correlation at least as high between unrelated losses."""
    evidence: float
    """Of effects of blocks in the losses that the fit was made to, in nats."""

    @property
    def has_effects(self) -> bool:
        """Whether the evidence of effects is strong. Otherwise the network of the lowest prediction is one of noise."""
        return self.evidence >= MIN_EVIDENCE

    @property
    def has_signal(self) -> bool:
        """Whether there are effects, and the rank correlation is significantly above 0."""
        return self.has_effects and self.p_value <= MAX_P_VALUE

    def to_json(self) -> dict[str, Any]:
        return {
            "architectures": self.architectures,
            "rank_correlation": self.rank_correlation,
            "p_value": self.p_value,
            "evidence": self.evidence,
            "has_signal": self.has_signal,
        }


def fit_losses(space: Space, paths: Sequence[int], observations: Observations, task: int) -> LossModel:
    """The model of one task's losses, fitted to the observations with a loss of that task."""
    labelled = ~np.isnan(observations.losses[:, task])
    losses, batches = observations.losses[labelled, task], observations.batches[labelled]
    return fit_model(space, paths, observations.choices[labelled], losses, batches)


def measure_fit(model: LossModel, held_out: Observations, task: int) -> FitQuality:
    """Compare a model's ranking with the measured losses of architectures that each ran on the same batches in turn.

    Batches that no architecture has a loss of this task on do not count.
    """
    evidence = model.posterior.evidence
    of_task = np.unique(held_out.batches[~np.isnan(held_out.losses[:, task])])
    if not len(of_task):
        return FitQuality(architectures=0, rank_correlation=0.0, p_value=1.0, evidence=evidence)
    rows = np.isin(held_out.batches, of_task)
    measured = nanmean(held_out.losses[rows, task].reshape(-1, len(of_task)), axis=1)
    predicted = model.table(held_out.choices[rows][:: len(of_task)])
    if np.isnan(measured).any() or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return FitQuality(architectures=len(measured), rank_correlation=0.0, p_value=1.0, evidence=evidence)
    test = spearmanr(predicted, measured, alternative="greater")
    correlation, p_value = float(test.statistic), float(test.pvalue)
    return FitQuality(architectures=len(measured), rank_correlation=correlation, p_value=p_value, evidence=evidence)
