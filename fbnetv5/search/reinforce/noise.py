"""How noisy the steps of the policies are, for the history of a search.

Shape legend: T tasks, S variables, C most choices of any variable, K architectures of a step.
"""

import numpy as np

from fbnetv5.search.reinforce.baselines import moved
from fbnetv5.search.reinforce.controller import Controller, Floats

DECAY = 0.98


class Noise:
    """Moving averages over the last fifty or so policy steps; nan before the first."""

    def __init__(self, controller: Controller) -> None:
        self.mean: Floats = np.full(controller.logits.shape, np.nan)
        """[T, S, C]: of the directions."""
        self.square: Floats = np.full(controller.tasks, np.nan)
        """[T]: of their squared lengths."""
        self.weight: Floats = np.full(controller.tasks, np.nan)
        """[T]: of the sum of a step's weights."""
        self.weight_square: Floats = np.full(controller.tasks, np.nan)
        """[T]: of the sum of their squares."""

    def watch(self, weights: Floats, direction: Floats) -> None:
        """Take a step's weights [K, T] and what policies step along, cost aside, [T, S, C]."""
        new = (direction, (direction**2).sum((1, 2)), weights.sum(0), (weights**2).sum(0))
        for average, value in zip((self.mean, self.square, self.weight, self.weight_square), new, strict=True):
            average[:] = moved(average, value, DECAY)

    @property
    def effective_samples(self) -> Floats:
        """[T]: draws from the task's own policy that would be worth as much as a step's weighted ones (Kish)."""
        samples: Floats = self.weight**2 / self.weight_square
        return samples

    @property
    def gradient_variance(self) -> Floats:
        """[T]: of the direction, summed over logits."""
        variance: Floats = np.maximum(self.square - (self.mean**2).sum((1, 2)), 0.0)
        return variance

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint keeps; they are written to in place when it is read."""
        names = ("mean", "square", "weight", "weight_square")
        return {name: getattr(self, name) for name in names}
