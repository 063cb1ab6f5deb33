"""Statistics of the noise in the policies' steps, for the history of a search.

Shape legend: T tasks, S variables, C most choices of any variable, K architectures of a step.
"""

import numpy as np

from fbnetv5.search.reinforce.baselines import ema_update
from fbnetv5.search.reinforce.controller import Controller, Floats

DECAY = 0.98


class Noise:
    """Moving averages over about the last fifty policy steps; nan before the first."""

    def __init__(self, controller: Controller) -> None:
        self.mean: Floats = np.full(controller.logits.shape, np.nan)
        """[T, S, C]: average gradient."""
        self.square: Floats = np.full(controller.tasks, np.nan)
        """[T]: average squared length of the gradient."""
        self.weight: Floats = np.full(controller.tasks, np.nan)
        """[T]: average sum of a step's weights."""
        self.weight_square: Floats = np.full(controller.tasks, np.nan)
        """[T]: average sum of their squares."""

    def update(self, weights: Floats, gradient: Floats) -> None:
        """Add a step's importance weights [K, T] and its gradient [T, S, C], without the cost's."""
        values = (gradient, (gradient**2).sum((1, 2)), weights.sum(0), (weights**2).sum(0))
        for average, value in zip((self.mean, self.square, self.weight, self.weight_square), values, strict=True):
            average[:] = ema_update(average, value, DECAY)

    @property
    def effective_samples(self) -> Floats:
        """[T]: Kish's effective sample size (Survey Sampling, 1965) of a step's draws under importance weights."""
        samples: Floats = self.weight**2 / self.weight_square
        return samples

    @property
    def gradient_variance(self) -> Floats:
        """[T]: variance of the gradient, summed over logits."""
        variance: Floats = np.maximum(self.square - (self.mean**2).sum((1, 2)), 0.0)
        return variance

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint stores; loading one writes to them in place."""
        names = ("mean", "square", "weight", "weight_square")
        return {name: getattr(self, name) for name in names}
