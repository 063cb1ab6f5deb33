"""The policies of a search and everything that updates them from losses.

The default estimator sets policies in closed form, at the price that makes their expected cost meet the share
``AIMED_SHARE_OF_BUDGET`` of the budget. The other estimators step along a gradient; then the multiplier of each task's
cost rises while its expected cost is above that target and falls, below zero if need be, while it is under it (dual
ascent on an augmented Lagrangian; Nocedal and Wright, Numerical Optimization, 2006, section 17.3). Either way an unused
budget is spent. Of several budgets of a task, the one with the largest excess is treated like this; the multipliers of
the others, which are inequalities, stay at 0 or above.

The supernet is not needed here: costs are table lookups, and losses arrive as arrays.

Shape legend: T tasks, S variables, C most choices of any variable, K architectures of a step, N images, B budgets of
all tasks, in order of tasks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.errors import UserError
from fbnetv5.costs.budgets import AIMED_SHARE_OF_BUDGET
from fbnetv5.costs.constraints import Constraints
from fbnetv5.runs.checkpoint import optimizer_tensors, restore_optimizer
from fbnetv5.search.reinforce.closed_form import set_policy
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.cost_gradient import cost_gradient
from fbnetv5.search.reinforce.estimators import make_estimator
from fbnetv5.search.reinforce.finalists import bias_near_budgets
from fbnetv5.search.reinforce.noise import Noise
from fbnetv5.search.reinforce.posterior import Benefits, Mask, zero_benefits
from fbnetv5.spaces.space import Choices, Space

PENALTY = 20.0
"""Weight of the squared relative excess over the target cost; without it multipliers swing, see docs/lab-notes.md."""


class Policies:
    """A policy per task, with the estimator, the cost multipliers and the noise statistics that belong to them."""

    def __init__(
        self, config: SearchConfig, space: Space, constraints: Mapping[str, Constraints], *, images: int
    ) -> None:
        """Start every policy at its target cost.

        Args:
            config: of the search.
            space: the search space.
            constraints: task -> its budgets with the tables of their costs.
            images: number of held-out images that the policies learn from.
        """
        self.config = config
        self.space = space
        self.constraints = {name: constraints[name] for name in config.tasks}
        self.budget_names = [label for name, own in self.constraints.items() for label in own.names(name)]
        """[B]: the task, and the unit where it has several budgets."""
        self.controller = Controller(
            space.choice_counts, len(config.tasks), lr=config.policy_lr, skipping=space.skipping
        )
        self.estimator = make_estimator(config.estimator, self.controller, images=images)
        self.noise = Noise(self.controller)
        self.multiplier: Floats = np.zeros(len(self.budget_names))
        """[B]: of the cost; for policies in closed form the price of the target cost."""
        self.expected_cost: Floats = np.zeros(len(self.budget_names))
        """[B]: in the unit of the budget."""
        self._start_at_target_costs()

    def draw(self, rng: np.random.Generator) -> Choices:
        """[K, S]: the architectures of a step that trains policies."""
        return self.estimator.draw(self.controller, rng)

    def update(self, choices: Choices, losses: Floats, images: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Update the policies from the losses of architectures.

        Args:
            choices: [K, S], from ``draw``.
            losses: [K, N, T], relative to each task's usual loss; nan where an image lacks the task's labels.
            images: [N], the index of each image among the held-out images.
            rng: source of randomness for estimates of costs.
        """
        weights = self.estimator.weights(self.controller, choices)  # as they were when these choices were drawn
        gradient = self.estimator.estimate(self.controller, choices, losses, images, self._matters(choices))
        self.noise.update(weights, gradient)
        if not self.estimator.closed_form:
            self._step(gradient, rng)
        elif (benefits := self.estimator.benefits(self.controller)) is not None:
            self._set(benefits, rng)

    def _matters(self, choices: Choices) -> Mask:
        """[K, T, S]: whether a task's loss depends on the variable, given the other variables' choices."""
        paths = [own.tables[0].paths for own in self.constraints.values()]
        return np.stack([self.space.needed(choices, each) for each in paths], axis=1)

    def _step(self, gradient: Floats, rng: np.random.Generator) -> None:
        """One Adam step along the gradient [T, S, C] and the cost's, and one step of every multiplier."""
        direction = gradient.copy()
        for task, rows, own in self._tasks():
            targets = np.array(_targets(own))
            # The excess before these draws: their own would be correlated with the gradient that it scales.
            excess = self.expected_cost[rows] / targets - 1
            slope = self.multiplier[rows] + PENALTY * excess
            others = np.arange(len(excess)) != excess.argmax()
            slope[others] = np.maximum(slope[others], 0.0)
            for number, (budget, table) in enumerate(zip(own.budgets, own.tables, strict=True)):
                of_cost, self.expected_cost[rows.start + number] = cost_gradient(self.controller, task, table, rng)
                direction[task] += slope[number] * of_cost / budget.limit
            multiplier = self.multiplier[rows] + self.config.multiplier_lr * excess
            multiplier[others] = np.maximum(multiplier[others], 0.0)
            self.multiplier[rows] = multiplier
        self.controller.step(direction)

    def _set(self, benefits: Benefits, rng: np.random.Generator) -> None:
        """Set every policy in closed form; the multiplier becomes the price of the target cost."""
        for task, rows, own in self._tasks():
            self.multiplier[rows], self.expected_cost[rows] = set_policy(
                self.controller, task, benefits, own.tables, _targets(own), rng
            )

    def _start_at_target_costs(self) -> None:
        """Start every policy where its expected cost is the target cost, and no other is above its.

        Policies that step along a gradient start with the same probability for all blocks, and for all choices of
        variables that skip nothing; policies in closed form with the largest entropy.
        """
        for task, rows, own in self._tasks():
            rng = np.random.default_rng([self.config.seed, task])
            logit_bias = bias_near_budgets(self.controller, task, own, rng)
            skipping = torch.from_numpy(self.controller.skipping)
            self.controller.logits[task, skipping, 1:] += float(np.clip(logit_bias, -3.0, 3.0))
            if self.estimator.closed_form:
                set_policy(self.controller, task, zero_benefits(self.controller), own.tables, _targets(own), rng)
            drawn = self.controller.sample(task, 256, rng)
            self.expected_cost[rows] = [table(drawn).mean() for table in own.tables]

    def _tasks(self) -> Iterator[tuple[int, slice, Constraints]]:
        """The number of every task, the rows of its budgets, and the budgets."""
        start = 0
        for task, own in enumerate(self.constraints.values()):
            rows = slice(start, start + len(own.budgets))
            yield task, rows, own
            start = rows.stop

    def tensors(self) -> dict[str, Tensor]:
        """The part of a checkpoint that belongs to the policies, as GROUP/NAME."""
        tensors = {"policies/logits": self.controller.logits}
        for name, value in optimizer_tensors(self.controller.optimizer, {self.controller.logits: "logits"}).items():
            tensors[f"policy_optimizer/{name}"] = value
        for name in ("multiplier", "expected_cost"):
            tensors[f"state/{name}"] = torch.from_numpy(getattr(self, name))
        for name, array in self._arrays().items():
            tensors[f"arrays/{name}"] = torch.from_numpy(array)
        return tensors

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
        """Restore the tensors of a checkpoint, by group and name.

        Args:
            groups: as ``tensors`` returned them.
            folder: of the run, for the error.

        Raises:
            UserError: the checkpoint is of another version or configuration.
        """
        self.controller.logits.copy_(groups["policies"]["logits"])
        names = {self.controller.logits: "logits"}
        restore_optimizer(self.controller.optimizer, names, groups.get("policy_optimizer", {}))
        for name in ("multiplier", "expected_cost"):
            setattr(self, name, groups["state"][name].numpy().copy())
        for name, array in self._arrays().items():
            stored = groups["arrays"].get(name)
            if stored is None or stored.shape != array.shape:
                raise UserError(
                    f"the checkpoint in {folder} is of another version or configuration: its {name} does not fit. "
                    "Start a new search"
                )
            array[:] = stored.numpy()

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        """Arrays of the estimator and the noise statistics, written to in place when a checkpoint is loaded."""
        return {**self.estimator.state(), **{f"noise.{name}": array for name, array in self.noise.state().items()}}


def _targets(constraints: Constraints) -> list[float]:
    """The expected costs that policies are set to."""
    return [AIMED_SHARE_OF_BUDGET * budget.limit for budget in constraints.budgets]
