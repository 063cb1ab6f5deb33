"""The world of race.py: the space and losses of ground_truth.py, and a meter that counts evaluations."""

from copy import copy

import numpy as np
from numpy.typing import NDArray

from benchmarks.ground_truth import GroundTruth
from fbnetv5.costs.budgets import BUDGET_WINDOW
from fbnetv5.spaces.space import Choices

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class World:
    """The losses and costs of every architecture by row; the choices of its variables are the row's binary digits."""

    def __init__(self, truth: GroundTruth, *, unseen: int = 0) -> None:
        """Keep the last ``unseen`` chunks from the searchers: regret is measured on them, or on all chunks if 0."""
        self.losses = truth.losses[:, : truth.losses.shape[1] - unseen]
        """[A, chunks, T], of the chunks that searchers see."""
        self.macs = truth.macs
        """[A, T]."""
        self.chunks, self.tasks = self.losses.shape[1:]
        self.variables = int(np.log2(len(self.losses)))
        self.truth = truth.losses[:, -unseen:].mean(1)
        """[A, T]."""
        self.budgets = np.median(self.macs, axis=0)
        self.fits = (self.macs >= BUDGET_WINDOW[0] * self.budgets) & (self.macs <= BUDGET_WINDOW[1] * self.budgets)
        """bool [A, T]: whether the cost lies in the window of the task's budget."""

    def only(self, task: int) -> "World":
        """The same world with one task alone."""
        alone = copy(self)
        alone.tasks = 1
        for name in ("losses", "macs", "truth", "budgets", "fits"):
            setattr(alone, name, getattr(self, name)[..., [task]])
        return alone

    def rows(self, choices: Choices) -> Rows:
        """[B]: the numbers of architectures [B, F]."""
        numbers: Rows = choices @ (1 << np.arange(self.variables)[::-1])
        return numbers

    def choices(self, rows: Rows) -> Choices:
        """[B, F]."""
        return rows[:, None] >> np.arange(self.variables)[::-1] & 1

    def regret(self, networks: Rows) -> Floats:
        """[T], of one architecture per task: 0 for the best within the budget, 1 for the median one."""
        regrets = np.zeros(self.tasks)
        for task, network in enumerate(networks):
            inside = self.truth[self.fits[:, task], task]
            regrets[task] = (self.truth[network, task] - inside.min()) / (np.median(inside) - inside.min())
        return regrets


class Meter:
    """Evaluates architectures, up to a limit of evaluations."""

    def __init__(self, world: World, limit: int) -> None:
        self.world = world
        self.left = limit
        """Remaining evaluations."""

    def __call__(self, row: int, chunk: int) -> Floats:
        """[T]: every task's loss of an architecture on a chunk."""
        if self.left < 1:
            raise RuntimeError("a searcher requested more evaluations than its limit")
        self.left -= 1
        losses: Floats = self.world.losses[row, chunk]
        return losses

    def mean(self, row: int, chunks: Rows) -> Floats:
        """[T]: over several chunks, an evaluation each."""
        losses: Floats = np.mean([self(row, int(chunk)) for chunk in chunks], axis=0)
        return losses


class Estimates:
    """A searcher's estimated losses of architectures, and its result."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.losses: Floats = np.full(world.truth.shape, np.inf)
        """[A, T]; inf without an estimate."""

    def best(self) -> Rows:
        """[T]: per task the best estimated architecture of those within its budget."""
        networks: Rows = np.where(self.world.fits, self.losses, np.inf).argmin(0)
        return networks
