"""The posterior of the benefit of every variable's choice: a Gaussian process over architectures, one per task.

The loss of an architecture is modelled as a level, plus an effect per kept choice, plus an effect per pair of choices
of two variables, plus noise. Effects of choices have a normal prior with a mean common to all variables, effects of
pairs a normal prior with mean 0. In the space of draws this is a kernel (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, section 2.1), so all pairs cost no more than the draws themselves. The scales of effects, pairs
and noise maximise the marginal likelihood (ibid., section 5.4.1). Without signal the scale of effects goes to 0, and so
does the probability that there is any signal.

Shape legend: T tasks, S variables, C most choices of any variable, F kept choices of all variables, M capacity, N
stored draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.spaces.space import SKIP, Choices

Mask = NDArray[np.bool_]

CAPACITY = 4096
"""Stored draws; policies fitted to fewer end worse (docs/lab-notes.md)."""
MIN_DRAWS = 20
"""Draws before the first fit."""
REFIT_DIVISOR = 8
"""The next fit is due when the stored draws have grown by one part in so many."""
RESCALE_GROWTH = 1.3
"""Scales are estimated again when the number of draws has grown by this factor."""
SCALE_DRAWS = 768
"""The newest draws, which scales are estimated from."""
COMMON_VARIANCE = 1.0
"""Prior variance of the mean effect, relative to the variance of effects around it."""
LEVEL_VARIANCE = 100.0
"""Prior variance of the level, relative to the noise variance."""
LOG_EFFECT_RANGE = (np.log(1e-6), np.log(10.0))
"""Range of the logarithm of the variance of effects, relative to the noise variance."""
LOG_PAIR_RANGE = (np.log(1e-3), -0.5)
"""Range of the logarithm of the variance of pairs, relative to that of effects."""
LOG_PAIR_PRIOR = (-3.0, 2.0)
"""Mean and standard deviation of the normal prior of that logarithm."""
MIN_GAIN = 2.0
"""Gain of the log evidence over "no effects at all", in nats, above which a signal is more likely than none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benefits:
    """Benefits of kept choices relative to skipping, in units of the loss; a positive benefit lowers the loss."""

    mean: Floats
    """[T, S, C]; 0 for skipping."""
    sd: Floats
    """[T, S, C]: posterior standard deviation; 1 for skipping."""
    reliability: Floats
    """[T]: mean share of the choices' prior variance that the draws removed, 0 to 1."""
    needed: Floats
    """[T, S]: share of recent draws in which the variable mattered."""
    draws: int
    """Number of draws that were ever added."""
    signal: float
    """Posterior probability that choices have any effect."""


def zero_benefits(controller: Controller) -> Benefits:
    """The benefits before any draw: none is known, and there is no signal."""
    shape = controller.logits.shape
    zeros, ones = np.zeros(shape), np.ones(shape)
    reliability, needed = np.zeros(shape[0]), np.ones(shape[:2])
    return Benefits(mean=zeros, sd=ones, reliability=reliability, needed=needed, draws=0, signal=0.0)


@dataclass(frozen=True, slots=True)
class _Solution:
    """One task's posterior for one pair of scales, in units of the noise variance."""

    evidence: float
    factor: Floats
    """[N, N]: lower Cholesky factor of the kernel matrix."""
    whitened: Floats
    """[N]: the values after the triangular solve with the factor."""


class PosteriorFit:
    """Stores draws and fits every task's Gaussian process to them."""

    def __init__(self, controller: Controller, *, capacity: int = CAPACITY) -> None:
        self.shape = controller.logits.shape
        tasks, variables, _ = self.shape
        self.variables, self.kept = np.nonzero(controller.exists[:, SKIP + 1 :])
        self.kept += SKIP + 1
        self.chance: Floats = 1.0 / controller.choice_counts[self.variables]
        self.same: Floats = (self.variables[:, None] == self.variables).astype(np.float64)
        """[F, F]: 1 where two features belong to the same variable."""
        first, second = np.nonzero(np.triu(self.same))
        self.within = (first, second, np.where(first == second, 1.0, 2.0))
        """Pairs of features of one variable, and their multiplicity in a square."""
        self.choices: Choices = np.zeros((capacity, variables), dtype=np.int64)
        self.matters: Mask = np.ones((capacity, tasks, variables), dtype=np.bool_)
        self.values: Floats = np.full((capacity, tasks), np.nan)
        """[M, T]: losses; nan where there is none."""
        self.level: Floats = np.zeros(tasks)
        self.slopes: Floats = np.zeros((tasks, len(self.variables)))
        """[T, F]: of the last fit, for other features of 0."""
        self.pairs: Floats = np.zeros((tasks, len(self.variables), len(self.variables)))
        """[T, F, F]: of the last fit; symmetric, 0 within a variable."""
        self.log_effect: Floats = np.full(tasks, np.log(0.003))
        self.log_pair: Floats = np.full(tasks, np.log(0.03))
        self.noise: Floats = np.ones(tasks)
        """[T]: variance of the noise."""
        self.gain: Floats = np.zeros(tasks)
        """[T]: log evidence of effects over none, in nats."""
        self.counts: NDArray[np.int64] = np.array([0, 0, MIN_DRAWS, MIN_DRAWS])
        """Draws stored, draws ever added, and the latter's number at which the next fit and the next scales are due."""

    @property
    def draws(self) -> int:
        """Number of draws that were ever added."""
        return int(self.counts[1])

    @property
    def due(self) -> bool:
        """Whether enough draws have come since the last fit."""
        return bool(self.draws >= self.counts[2])

    def learn(self, choices: Choices, values: Floats, matters: Mask | None = None) -> None:
        """Store the losses [K, T] of architectures [K, S], nan where there is none; ``matters`` is [K, T, S]."""
        for row in np.nonzero((~np.isnan(values)).any(axis=1))[0].tolist():
            if self.counts[0] == len(self.choices):
                self._forget(len(self.choices) // REFIT_DIVISOR)
            position = int(self.counts[0])
            self.choices[position], self.values[position] = choices[row], values[row]
            self.matters[position] = True if matters is None else matters[row]
            self.counts[:2] += 1

    def predict(self, choices: Choices, matters: Mask | None = None) -> Floats:
        """[K, T]: expected losses of architectures [K, S] by the last fit."""
        columns = []
        for task in range(self.shape[0]):
            features = self._features(choices, None if matters is None else matters[:, task])
            pairs = ((features @ self.pairs[task]) * features).sum(1) / 2
            columns.append(self.level[task] + features @ self.slopes[task] + pairs)
        return np.stack(columns, axis=1)

    def fit(self, probabilities: Floats) -> Benefits:
        """Fit all tasks and return the benefits of choices under policies [T, S, C]."""
        stored, added = int(self.counts[0]), self.draws
        rescale = added >= self.counts[3]
        self.counts[2] = max(MIN_DRAWS, added + max(1, stored // REFIT_DIVISOR))
        if rescale:
            self.counts[3] = int(np.ceil(added * RESCALE_GROWTH))
        needed = self.matters[max(0, stored - 64) : max(1, stored)].mean(axis=0)
        mean, sd, reliability = np.zeros(self.shape), np.ones(self.shape), np.zeros(self.shape[0])
        for task in range(self.shape[0]):
            task_mean, task_sd, reliability[task] = self._fit_task(
                task, probabilities[task], needed[task], rescale=rescale
            )
            mean[task, self.variables, self.kept], sd[task, self.variables, self.kept] = task_mean, task_sd
        signal = float(1 / (1 + np.exp(np.clip(MIN_GAIN - self.gain.sum(), -50.0, 50.0))))
        return Benefits(mean=mean, sd=sd, reliability=reliability, needed=needed, draws=added, signal=signal)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The arrays that a checkpoint stores; loading one writes to them in place."""
        draws, prediction = ("choices", "matters", "values", "counts"), ("level", "slopes", "pairs")
        names = (*draws, *prediction, "log_effect", "log_pair", "noise", "gain")
        return {name: getattr(self, name) for name in names}

    def _fit_task(
        self, task: int, probabilities: Floats, needed: Floats, *, rescale: bool
    ) -> tuple[Floats, Floats, float]:
        """Benefits and their standard deviations, [F] each, and their mean reliability."""
        rows = np.nonzero(~np.isnan(self.values[: self.counts[0], task]))[0]
        if not len(rows):
            return np.zeros(len(self.variables)), np.ones(len(self.variables)), 0.0
        features = self._features(self.choices[rows], self.matters[rows, task])
        level = float(self.values[rows, task].mean())
        values = self.values[rows, task] - level
        if rescale:
            self._rescale(task, features[-SCALE_DRAWS:], values[-SCALE_DRAWS:])
        solution = self._solve(task, self._grams(features, features), values)
        self.noise[task] = max(float(solution.whitened @ solution.whitened) / len(rows), np.finfo(float).tiny)
        weights = solve_triangular(solution.factor, solution.whitened, lower=True, trans=1, check_finite=False)
        self._set_prediction(task, features, weights, level)
        centre = needed[self.variables] * (probabilities[self.variables, self.kept] - self.chance)
        return self._benefits(task, features, solution, centre)

    def _set_prediction(self, task: int, features: Floats, weights: Floats, level: float) -> None:
        """Compute the level, slopes and pairs of predictions from the weights [N] of the draws."""
        effect, pair = np.exp(self.log_effect[task]), np.exp(self.log_pair[task])
        slopes = features.T @ weights
        self.level[task] = level + LEVEL_VARIANCE * weights.sum()
        self.slopes[task] = effect * (slopes + COMMON_VARIANCE * slopes.sum())
        self.pairs[task] = effect * pair * (features.T @ (weights[:, None] * features)) * (1 - self.same)

    def _benefits(
        self, task: int, features: Floats, solution: _Solution, centre: Floats
    ) -> tuple[Floats, Floats, float]:
        """Posterior of each feature's slope, for other features at ``centre`` [F], their mean under the policy."""
        effect, pair = np.exp(self.log_effect[task]), np.exp(self.log_pair[task])
        others = (features @ centre)[:, None] - (features * centre) @ self.same
        covariance = effect * (features + COMMON_VARIANCE * features.sum(1, keepdims=True) + pair * features * others)
        prior = effect * (1 + COMMON_VARIANCE + pair * (centre @ centre - centre**2 @ self.same))
        whitened = solve_triangular(solution.factor, covariance, lower=True, check_finite=False)
        variance = np.maximum(prior - (whitened**2).sum(0), 1e-9 * prior)
        reliability = float((1 - variance / prior).mean())
        return -whitened.T @ solution.whitened, np.sqrt(variance * self.noise[task]), reliability

    def _rescale(self, task: int, features: Floats, values: Floats) -> None:
        """Increase the evidence by coordinate ascent over the two scales, and store its gain over no effects."""
        grams = self._grams(features, features)
        best = self._solve(task, grams, values).evidence
        for size in (1.0, -1.0, 0.5, -0.5):
            for scale, (low, high) in ((self.log_effect, LOG_EFFECT_RANGE), (self.log_pair, LOG_PAIR_RANGE)):
                for _ in range(3):
                    before = scale[task]
                    scale[task] = np.clip(before + size, low, high)
                    evidence = self._solve(task, grams, values).evidence
                    if evidence <= best + 1e-9:
                        scale[task] = before
                        break
                    best = evidence
        count = len(values)
        noise = max(float(values @ values) / count, np.finfo(float).tiny)
        self.gain[task] = max(0.0, best + 0.5 * (count * np.log(noise) + np.log1p(LEVEL_VARIANCE * count)))

    def _solve(self, task: int, grams: tuple[Floats, Floats], values: Floats) -> _Solution:
        """Solve for one pair of scales; the evidence is at its best noise variance and includes ``LOG_PAIR_PRIOR``."""
        count = len(values)
        kernel = self._kernel(task, *grams) + LEVEL_VARIANCE
        kernel[np.arange(count), np.arange(count)] += 1.0
        factor = cholesky(kernel, lower=True, overwrite_a=True, check_finite=False)
        whitened = solve_triangular(factor, values, lower=True, check_finite=False)
        noise = max(float(whitened @ whitened) / count, np.finfo(float).tiny)
        mean, sd = LOG_PAIR_PRIOR
        prior = ((self.log_pair[task] - mean) / sd) ** 2 / 2
        evidence = -0.5 * count * np.log(noise) - np.log(np.diag(factor)).sum() - prior
        return _Solution(float(evidence), factor, whitened)

    def _features(self, choices: Choices, matters: Mask | None) -> Floats:
        """[B, F]: 1 if the choice is made, less its uniform probability; 0 where the variable does not matter."""
        features: Floats = (choices[:, self.variables] == self.kept) - self.chance
        return features if matters is None else features * matters[:, self.variables]

    def _grams(self, left: Floats, right: Floats) -> tuple[Floats, Floats]:
        """Gram matrices [B, B'] of the features, with their common mean, and of their pairs across variables."""
        first, second, twice = self.within
        inner = left @ right.T
        within = (left[:, first] * left[:, second] * twice) @ (right[:, first] * right[:, second]).T
        return inner + COMMON_VARIANCE * np.outer(left.sum(1), right.sum(1)), (inner**2 - within) / 2

    def _kernel(self, task: int, gram: Floats, pairs: Floats) -> Floats:
        kernel: Floats = np.exp(self.log_effect[task]) * (gram + np.exp(self.log_pair[task]) * pairs)
        return kernel

    def _forget(self, count: int) -> None:
        """Drop the oldest draws."""
        for array, empty in ((self.choices, 0), (self.matters, True), (self.values, np.nan)):
            array[:-count] = array[count:].copy()
            array[-count:] = empty
        self.counts[0] -= count
