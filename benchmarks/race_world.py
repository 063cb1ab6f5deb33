"""What the searchers of race.py search: the space of ground_truth.py, its truth, and a meter on every evaluation."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.ground_truth import GroundTruth
from fbnetv5.costs.budgets import WINDOW
from fbnetv5.spaces.space import Choices

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class World:
    """Every architecture by its number: the slots' choices are its binary digits."""

    def __init__(self, known: GroundTruth) -> None:
        self.losses = known.losses
        """[A, chunks, T]."""
        self.macs = known.macs
        """[A, T]."""
        self.chunks, self.tasks = self.losses.shape[1:]
        self.slots = int(np.log2(len(self.losses)))
        self.truth = self.losses.mean(1)
        """[A, T]."""
        self.budgets = np.median(self.macs, axis=0)
        self.fits = (self.macs >= WINDOW[0] * self.budgets) & (self.macs <= WINDOW[1] * self.budgets)
        """bool [A, T]: within the part of the task's budget that a derived network may cost."""

    def rows(self, choices: Choices) -> Rows:
        """[B]: the numbers of architectures [B, F]."""
        numbers: Rows = choices @ (1 << np.arange(self.slots)[::-1])
        return numbers

    def choices(self, rows: Rows) -> Choices:
        """[B, F]."""
        return rows[:, None] >> np.arange(self.slots)[::-1] & 1

    def regret(self, answers: Rows) -> Floats:
        """[T], of one architecture per task: 0 for the best within the budget, 1 for the median one."""
        found = np.zeros(self.tasks)
        for task, answer in enumerate(answers):
            inside = self.truth[self.fits[:, task], task]
            found[task] = (self.truth[answer, task] - inside.min()) / (np.median(inside) - inside.min())
        return found


class Meter:
    """Evaluates, and counts."""

    def __init__(self, world: World, limit: int) -> None:
        self.world = world
        self.left = limit
        """Evaluations."""

    def __call__(self, row: int, chunk: int) -> Floats:
        """[T]: every task's loss of an architecture on a chunk."""
        if self.left < 1:
            raise RuntimeError("a searcher asked for more evaluations than it has")
        self.left -= 1
        losses: Floats = self.world.losses[row, chunk]
        return losses

    def mean(self, row: int, chunks: Rows) -> Floats:
        """[T]: over several chunks, an evaluation each."""
        losses: Floats = np.mean([self(row, int(chunk)) for chunk in chunks], axis=0)
        return losses


class Book:
    """What a searcher estimates of architectures, and so its answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.estimates: Floats = np.full(world.truth.shape, np.inf)
        """[A, T]; inf where nothing is known."""

    def best(self) -> Rows:
        """[T]: per task the best estimated architecture of those within its budget."""
        answers: Rows = np.where(self.world.fits, self.estimates, np.inf).argmin(0)
        return answers
