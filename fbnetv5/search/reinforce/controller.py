"""The controller: a policy per task, the proposal they share, and importance weights.

A policy is an independent categorical over the choices of every variable. All tasks learn from the same sampled
architecture ``a``: it is drawn from the uniform mixture of the policies, ``q = (1/T) sum_t p_t``, and task t weighs its
loss by ``gamma_t = p_t(a) / q(a)`` (importance sampling as in FBNetV5, arXiv 2111.10007, section 3.3; the mixture is
this project's, and these weights are the balance heuristic of Veach and Guibas, SIGGRAPH 1995). Under the mixture the
weights are ``T softmax_t(log p_t(a))``: they lie in [0, T] and sum to T, however many variables there are. In long
searches a share of the draws explores, from flattened policies, and ``q`` is the mixture of both.

Shape legend: T tasks, S variables, C most choices of any variable, B architectures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from fbnetv5.spaces.space import SKIP, Choices, Space

Floats = NDArray[np.float64]

EXPLORING_EXPONENT = 0.3
"""Power of the probabilities in draws that explore; 0 would be uniform, 1 the policy."""
FULL_BIAS = 6.0
"""Logit bias at which an untrained policy keeps 99.8 % of the blocks."""


class Controller:
    """Policies over a space's variables. The caller passes the source of randomness, so a resumed run repeats draws."""

    def __init__(
        self, choice_counts: Sequence[int], tasks: int, *, lr: float, skipping: NDArray[np.bool_] | None = None
    ) -> None:
        """Start with uniform policies.

        Args:
            choice_counts: [S], the number of choices of each variable.
            tasks: number of tasks.
            lr: learning rate of policies that step along a gradient.
            skipping: bool [S], whether choice 0 of the variable skips a node; None if it does for all.
        """
        self.choice_counts = np.asarray(choice_counts)
        self.skipping = np.ones(len(choice_counts), dtype=np.bool_) if skipping is None else skipping
        self.tasks = tasks
        max_choices = int(self.choice_counts.max())
        self.exists = np.arange(max_choices)[None] < self.choice_counts[:, None]
        """bool [S, C]: whether the variable has that choice."""
        self.logits = torch.zeros(tasks, len(choice_counts), max_choices, dtype=torch.float64)
        self.optimizer = torch.optim.Adam([self.logits], lr=lr)

    def log_table(self, exponent: float = 1.0) -> Floats:
        """[T, S, C]: log-probability of each choice, -inf where a variable has no such choice.

        With an exponent above 0, of the probabilities to that power, normalised.
        """
        return _log_softmax(np.where(self.exists, exponent * self.logits.numpy(), -np.inf))

    def probabilities(self) -> Floats:
        """[T, S, C]."""
        p: Floats = np.exp(self.log_table())
        return p

    def entropy(self) -> Floats:
        """[T]: mean entropy of a variable, in nats."""
        p = self.probabilities()
        per_variable = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
        mean: Floats = per_variable.mean(-1)
        return mean

    def sample(self, task: int, count: int, rng: np.random.Generator) -> Choices:
        """[count, S] drawn from one task's policy."""
        return draw(self.probabilities()[task], count, rng)

    def propose(self, rng: np.random.Generator, *, exploring: float = 0.0) -> Choices:
        """[S]: one architecture from the mixture: drawn from the policy of a task picked at random.

        With probability ``exploring`` that policy is flattened, its probabilities to the power ``EXPLORING_EXPONENT``.
        """
        exponent = EXPLORING_EXPONENT if exploring and rng.random() < exploring else 1.0
        policy = np.exp(self.log_table(exponent)[int(rng.integers(self.tasks))])
        first: Choices = draw(policy, 1, rng)[0]
        return first

    def log_probs(self, choices: Choices, exponent: float = 1.0) -> Floats:
        """[B, T]: log-probability of each architecture [B, S] under each policy, to a power as in ``log_table``."""
        table = self.log_table(exponent)
        log_probs: Floats = table[:, np.arange(choices.shape[1]), choices].sum(-1).T
        return log_probs

    def importance(self, choices: Choices, *, exploring: float = 0.0) -> Floats:
        """[B, T]: the importance weights gamma of draws that ``propose`` made with the same share that explores."""
        log_probs = self.log_probs(choices)
        highest = log_probs.max(axis=1, keepdims=True)
        log_probs -= highest  # which may be far below 0, where sums of logarithms are rounded coarsely
        proposed = logsumexp(log_probs, axis=1)
        if exploring:
            explored = logsumexp(self.log_probs(choices, EXPLORING_EXPONENT) - highest, axis=1)
            proposed = np.logaddexp(np.log1p(-exploring) + proposed, np.log(exploring) + explored)
        weights: Floats = self.tasks * np.exp(log_probs - proposed[:, None])
        return weights

    def score(self, choices: Choices, task: int) -> Floats:
        """[B, S, C]: the score function, the gradient of log p_t(a) with respect to the task's logits."""
        one_hot = choices[..., None] == np.arange(self.exists.shape[1])
        gradient: Floats = one_hot - self.probabilities()[task]
        return gradient

    def step(self, gradient: Floats) -> None:
        """One Adam step down ``gradient`` [T, S, C]."""
        self.logits.grad = torch.from_numpy(gradient)
        self.optimizer.step()

    def set_policy(self, task: int, probabilities: Floats) -> None:
        """Set the task's policy to [S, C], which is 0 only where a variable has no such choice."""
        logits = np.log(np.where(self.exists, probabilities, 1.0))
        self.logits[task] = torch.from_numpy(logits)

    def biased_probabilities(self, task: int, logit_bias: float) -> Floats:
        """[S, C]: the task's probabilities after ``logit_bias`` is added to the logit of every choice but skipping.

        Variables that skip nothing keep their probabilities between biases of -``FULL_BIAS`` and ``FULL_BIAS``, at
        which nearly no or all blocks run; what lies beyond moves them towards their first or last choices.
        """
        logits, numbers = self.log_table()[task], np.arange(self.exists.shape[1])
        excess = np.sign(logit_bias) * max(0.0, abs(logit_bias) - FULL_BIAS)
        logits += np.where(self.skipping[:, None], logit_bias * (numbers != SKIP), excess * numbers)
        return np.exp(_log_softmax(logits))


def uniform_controller(space: Space, tasks: int) -> Controller:
    """Policies under which all choices of a variable are equally probable; their logits are not trained."""
    return Controller(space.choice_counts, tasks, lr=1.0, skipping=space.skipping)


def draw(probabilities: Floats, count: int, rng: np.random.Generator) -> Choices:
    """[count, S] independent draws from [S, C]."""
    uniform = rng.random((count, len(probabilities), 1))
    cumulative = probabilities.cumsum(-1)
    cumulative /= cumulative[
        :, -1:
    ]  # exactly 1 at the last choice, or rounding could draw a choice that does not exist
    choices: Choices = (uniform >= cumulative[:, :-1]).sum(-1).astype(np.int64)
    return choices


def expectation_gradient(probabilities: Floats, effects: Floats) -> Floats:
    """Gradient [..., S, C] with respect to logits of the expected sum of effects [..., S, C] of the drawn choices."""
    mean = (probabilities * effects).sum(-1, keepdims=True)
    gradient: Floats = probabilities * (effects - mean)
    return gradient


def _log_softmax(x: Floats) -> Floats:
    """Logarithm of the softmax over the last axis."""
    shifted = x - x.max(-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
