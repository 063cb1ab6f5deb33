"""A running fit of each task's loss as a sum of what every slot's choice adds to it.

The expectation of such a sum under a policy, and its gradient, are known exactly. So the fit serves as a control
variate: REINFORCE learns from what the fit does not explain, and the exact gradient of what it does is added back.
It learns from every draw, whichever task's policy proposed it.

Shape legend: T tasks, S slots, C most choices of any slot, K architectures, F features.
"""

import numpy as np

from fbnetv5.search.controller import Controller, Floats
from fbnetv5.space import SKIP, Choices

RIDGE = 10.0
"""As many draws that say "no effect" each slot starts with; in the simulation 3 to 30 served alike."""
DECAY = 0.998
"""A draw's weight falls to 1/e in 500 draws: weights learn and policies move, and effects change with both."""
LEVEL_RIDGE = 1e-6
"""Of the level, which needs no prior but a solvable equation."""


class AdditiveFit:
    """Ridge regression ``value_t ~ level_t + sum_s effect_t[s, a_s]``, relative to skipping, older draws fading."""

    def __init__(self, controller: Controller, *, ridge: float = RIDGE, decay: float = DECAY) -> None:
        self.decay = decay
        self.slots, self.kept = np.nonzero(controller.exists[:, SKIP + 1 :])
        self.kept += SKIP + 1
        features = len(self.slots) + 1
        self.penalty = np.diag([*[ridge] * len(self.slots), LEVEL_RIDGE])
        self.moments: Floats = np.zeros((controller.tasks, features, features))
        """[T, F, F]: faded sum of outer products of the features; the last feature is 1."""
        self.products: Floats = np.zeros((controller.tasks, features))
        """[T, F]: faded sum of features times values."""
        self.effects: Floats = np.zeros(controller.logits.shape)
        """[T, S, C]; 0 for skipping."""
        self.level: Floats = np.zeros(controller.tasks)
        self.seen: Floats = np.zeros(controller.tasks)
        """[T]: how many draws were learned from, none faded."""

    def predict(self, choices: Choices) -> Floats:
        """[K, T]: what the fit expects of architectures [K, S]."""
        found: Floats = self.effects[:, np.arange(choices.shape[1]), choices].sum(-1).T + self.level
        return found

    def gradient(self, controller: Controller) -> Floats:
        """[T, S, C]: exact gradient of the prediction's expectation under each task's policy."""
        return expectation_gradient(controller.probabilities(), self.effects)

    def learn(self, choices: Choices, values: Floats) -> None:
        """Take what architectures [K, S] came to, [K, T]; nan for "not known"."""
        features = np.ones((len(choices), len(self.slots) + 1))
        features[:, :-1] = choices[:, self.slots] == self.kept
        known = ~np.isnan(values)
        self.seen += known.sum(axis=0)
        for task in np.nonzero(known.any(axis=0))[0].tolist():
            rows = features[known[:, task]]
            self.moments[task] = self.decay * self.moments[task] + rows.T @ rows
            self.products[task] = self.decay * self.products[task] + rows.T @ values[known[:, task], task]
            self._solve(task)

    def state(self) -> dict[str, Floats]:
        """The arrays that a checkpoint keeps; they are written to in place when it is read."""
        names = ("moments", "products", "effects", "level", "seen")
        return {name: getattr(self, name) for name in names}

    def _solve(self, task: int) -> None:
        solution = np.linalg.solve(self.moments[task] + self.penalty, self.products[task])
        self.effects[task, self.slots, self.kept] = solution[:-1]
        self.level[task] = solution[-1]


def expectation_gradient(probabilities: Floats, effects: Floats) -> Floats:
    """Gradient with respect to logits [..., S, C] of the expected sum of effects [..., S, C] of the choices drawn."""
    mean = (probabilities * effects).sum(-1, keepdims=True)
    gradient: Floats = probabilities * (effects - mean)
    return gradient
