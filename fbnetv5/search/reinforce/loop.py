"""The one-pass search loop: shared weights and all policies, one trunk pass a step whatever the number of tasks.

A step of the warm-up trains the weights under an architecture of random depth, nearly full at first. After it, every
few steps one trains the policies on held-out images without a backward pass, the others train the weights; both draw
their architecture from the policies' mixture. The default estimator sets policies in closed form, at the price that
makes their expected cost meet the budget's aim. For the others the multiplier of each task's cost rises while its
expected cost is above the aim and falls, below zero if need be, while it is under it (dual ascent, damped by a
quadratic penalty). Either way an unused budget is spent.

A task's loss is divided by its own moving average, so that all tasks pull alike (the gradient is that of the sum of the
logarithms of the losses) and their scales need no tuning. Every task's loss counts fully in a step of the weights,
whichever policy proposed the architecture; ``SearchConfig.importance`` brings the importance weights back.

Whatever is random is a function of (seed, step), so a resumed run repeats what an undisturbed one would have done. With
several processes all draw the same architecture, share the images of a step, and average gradients and losses.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.errors import UserError
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.loading import evenly_spaced
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.data.splits import Splits, Subset
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import load_weights, optimizer_tensors, restore_optimizer
from fbnetv5.runs.loop import CHECKPOINT, LOG_EVERY, Loop
from fbnetv5.runs.optimization import half_cosine, parameter_groups
from fbnetv5.runs.processes import average_gradients
from fbnetv5.search.reinforce.closed_form import set_policy
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.cost_gradient import cost_gradient
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.estimators import make_estimator
from fbnetv5.search.reinforce.finalists import AIM, find_tilt
from fbnetv5.search.reinforce.noise import Noise
from fbnetv5.search.reinforce.posterior import Benefits, Mask, no_benefits
from fbnetv5.spaces.space import Choices, Space

WARMUP_LR_STEPS = 50
SCALE_DECAY = 0.98
SCALE_FLOOR = 1e-3
"""Losses below it are not scaled up further: a task whose images all look alike may reach 0."""
PENALTY = 20.0
"""Of the squared excess over the aim (augmented Lagrangian); without it multipliers swing, see docs/lab-notes.md."""
VISITS = 8
"""How often policies meet each of their images at least, if there are more images than that leaves room for."""


def warm_architecture(space: Space, progress: float, rng: np.random.Generator) -> Choices:
    """[S]: an architecture whose variables are kept with one random probability, from [0.9, 1] widening to [0.2, 1].

    Args:
        space: the search space.
        progress: 0..1, how much of the warm-up is over; the widening ends half-way.
        rng: source of randomness.
    """
    lowest = 0.9 - 0.7 * min(1.0, 2 * progress)
    kept = rng.random(len(space.variables)) < rng.uniform(lowest, 1.0)
    filled = rng.integers(1, np.asarray(space.choice_counts))
    return np.where(kept, filled, 0)


def revisited(images: ImageSet, config: SearchConfig) -> ImageSet:
    """The held-out images that policies learn from: no more than they meet ``VISITS`` times.

    An image's first loss only says what the later ones are held against, so of a large set that is seen once
    nothing would be learned.
    """
    draws = config.policy_steps(config.steps) * config.policy_batch
    most = max(config.policy_batch, draws // VISITS)
    return images if len(images) <= most else Subset(images, evenly_spaced(len(images), most))


class SearchLoop(Loop[SearchEntry]):
    """The state of a search and its steps."""

    title = "search"
    advice = "Start again with a smaller learning rate (weight_lr) or check the images"

    def __init__(
        self, config: SearchConfig, folder: Path, supernet: Supernet, parts: Splits, tables: Mapping[str, CostTable]
    ) -> None:
        super().__init__(
            folder,
            steps=config.total_steps,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
            num_workers=config.data.num_workers,
        )
        self.config = config
        self.parts = parts
        self.held_out = revisited(parts.policies, config)
        self.tables = tables
        self.supernet = supernet.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in supernet.named_parameters()}
        # Parameters that no live block holds get no gradient and stay.
        groups = parameter_groups(self.names, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.weight_lr, fused=True)
        self.controller = Controller(supernet.space.choice_counts, len(config.tasks), lr=config.policy_lr)
        self.estimator = make_estimator(config.estimator, self.controller, images=len(self.held_out))
        self.noise = Noise(self.controller)
        self.scale: Floats = np.full(len(config.tasks), np.nan)
        """[T]: moving average of each task's training loss; nan until its first."""
        self.multiplier: Floats = np.zeros(len(config.tasks))
        self.expected_cost: Floats = np.zeros(len(config.tasks))
        self._aim_policies()

    def phase(self, step: int) -> str:
        """What the step of that number trains."""
        after = step - self.config.warmup_steps
        if after < 0:
            return "warm-up"
        return "policies" if after % self.config.policy_every == 0 else "weights"

    def step(self) -> None:
        """Train weights or policies, as the step's phase says."""
        rng = np.random.default_rng([self.config.seed, self.done])
        phase = self.phase(self.done)
        if phase == "policies":
            self.train_policies(next(self.policy_batches), self.estimator.draw(self.controller, rng), rng)
            return
        batch = next(self.weight_batches)
        if phase == "warm-up":
            choices = warm_architecture(self.supernet.space, self.done / self.config.warmup_steps, rng)
            self.train_weights(batch, choices, np.ones(len(self.config.tasks)))
            return
        choices = self.controller.propose(rng)
        share = self.config.importance
        self.train_weights(batch, choices, 1 - share + share * self.controller.importance(choices[None])[0])

    @cached_property
    def weight_batches(self) -> Iterator[Batch]:
        """Batches for the steps left that train weights."""
        first = self._passes("weights")
        return self.batches(self.parts.weights, self.config.batch, first_step=first, stream=1)

    @cached_property
    def policy_batches(self) -> Iterator[Batch]:
        """Batches for the steps left that train policies."""
        first = self._passes("policies")
        return self.batches(self.held_out, self.config.policy_batch, first_step=first, stream=2)

    def train_weights(self, batch: Batch, choices: Choices, gamma: Floats) -> None:
        """One pass and one step of the shared weights on ``sum_t gamma_t l_t``, each loss relative to its average."""
        self.supernet.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        with self.accelerator.autocast():
            losses, labelled = self._losses(batch, choices)
        sums, counts = losses.sum(0), labelled.sum(0).to(losses)
        means = self._mean_losses(sums.detach(), counts)
        seen = ~np.isnan(means)
        self.scale = np.where(np.isnan(self.scale), np.maximum(means, SCALE_FLOOR), self.scale)
        factor = np.where(seen, gamma / np.where(np.isnan(self.scale), 1.0, self.scale), 0.0)
        totals = self.accelerator.reduce(counts, "mean").clamp(min=1e-9)
        objective = (sums / totals * torch.from_numpy(factor).to(sums)).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(objective)
        live = [parameter for parameter in self.supernet.parameters() if parameter.grad is not None]
        average_gradients(self.accelerator, live)
        norm = torch.nn.utils.clip_grad_norm_(live, self.config.clip_norm)
        if not torch.isfinite(norm):
            raise self.diverged("the gradient")
        self.optimizer.step()
        moved = SCALE_DECAY * self.scale + (1 - SCALE_DECAY) * np.maximum(means, SCALE_FLOOR)
        self.scale = np.where(seen, moved, self.scale)

    @torch.no_grad()
    def train_policies(self, batch: Batch, choices: Choices, rng: np.random.Generator) -> None:
        """A pass without gradients for each architecture [K, S], and what it teaches the policies."""
        self.supernet.train()
        losses = np.stack([self._policy_losses(batch, one) for one in choices])
        images = self.accelerator.gather(batch.indices).cpu().numpy()
        matters = self._matters(choices)
        gradient = self.estimator.estimate(self.controller, choices, losses / self.scale, images, matters)
        self.noise.watch(self.estimator.weights(self.controller, choices), gradient)
        if not self.estimator.closed_form:
            self._step_policies(gradient, rng)
        elif (benefits := self.estimator.benefits(self.controller)) is not None:
            self._set_policies(benefits, rng)

    def _matters(self, choices: Choices) -> Mask:
        """[K, T, S]: whether a task's loss depends on the variable, given what else was drawn."""
        space, tasks = self.supernet.space, self.supernet.tasks
        return np.stack([space.needed(choices, tasks[name].paths) for name in self.config.tasks], axis=1)

    def _step_policies(self, gradient: Floats, rng: np.random.Generator) -> None:
        """One Adam step along the gradient [T, S, C] and the cost's, and one step of every multiplier."""
        direction = gradient.copy()
        for task, (name, budget) in enumerate(self.config.budgets.items()):
            # The excess before these draws: their own would be correlated with the gradient that it scales.
            excess = self.expected_cost[task] / (AIM * budget.limit) - 1
            of_cost, self.expected_cost[task] = cost_gradient(self.controller, task, self.tables[name], rng)
            direction[task] += (self.multiplier[task] + PENALTY * excess) * of_cost / budget.limit
            self.multiplier[task] += self.config.multiplier_lr * excess
        self.controller.step(direction)

    def _set_policies(self, benefits: Benefits, rng: np.random.Generator) -> None:
        """Every policy in closed form; the multiplier becomes the price of the aimed cost."""
        for task, (name, budget) in enumerate(self.config.budgets.items()):
            self.multiplier[task], self.expected_cost[task] = set_policy(
                self.controller, task, benefits, self.tables[name], AIM * budget.limit, rng
            )

    def _policy_losses(self, batch: Batch, choices: Choices) -> Floats:
        """[N, T]: every image's losses under one architecture [S], over all processes; nan where not labelled."""
        with self.accelerator.autocast():
            losses, labelled = self._losses(batch, choices)
        self._mean_losses(losses.sum(0), labelled.sum(0).to(losses))
        known = self.accelerator.gather(losses.float().masked_fill(~labelled, torch.nan))
        everyone: Floats = known.cpu().double().numpy()  # some accelerators have no doubles
        return everyone

    def _losses(self, batch: Batch, choices: Choices) -> tuple[Tensor, Tensor]:
        """Every image's loss of every task [N, T], 0 where it is not labelled, and whether it is, bool [N, T]."""
        raw = self.supernet(normalise(batch.images), choices)
        tasks = {name: self.supernet.tasks[name] for name in self.config.tasks}
        losses = torch.stack([task.losses(raw[name], batch) for name, task in tasks.items()], dim=1)
        return losses, torch.stack([task.labelled(batch) for task in tasks.values()], dim=1)

    def _mean_losses(self, sums: Tensor, counts: Tensor) -> Floats:
        """[T]: mean loss over all processes, from each one's sums and counts [T]; nan for a task without labels.

        Raises:
            VerificationError: a loss is not finite.
        """
        total, count = self.accelerator.reduce(torch.stack([sums, counts]), "sum").cpu().double().numpy()
        for name, value in zip(self.config.tasks, total, strict=True):
            if not np.isfinite(value):
                raise self.diverged(f"the loss of {name}")
        mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return mean

    def _learning_rate(self) -> float:
        """Linear rise, then half a cosine down to 1 % over the steps that train weights."""
        config = self.config
        index = self._passes("weights")
        total = config.warmup_steps + config.steps - config.policy_steps(config.steps)
        rise = min(1.0, (index + 1) / WARMUP_LR_STEPS)
        return config.weight_lr * rise * half_cosine(index / max(1, total))

    def _passes(self, kind: str) -> int:
        """How many steps before the current one trained that kind."""
        policies = self.config.policy_steps(max(0, self.done - self.config.warmup_steps))
        return policies if kind == "policies" else self.done - policies

    def _aim_policies(self) -> None:
        """Start every policy where its expected cost meets the budget's aim.

        For policies that step along a gradient all variables are equal; policies in closed form have the largest
        entropy.
        """
        for task, (name, budget) in enumerate(self.config.budgets.items()):
            rng = np.random.default_rng([self.config.seed, task])
            tilt = find_tilt(self.controller, task, self.tables[name], AIM * budget.limit, rng)
            self.controller.logits[task, :, 1:] += float(np.clip(tilt, -3.0, 3.0))
            if self.estimator.closed_form:
                benefits = no_benefits(self.controller)
                set_policy(self.controller, task, benefits, self.tables[name], AIM * budget.limit, rng)
            self.expected_cost[task] = self.tables[name](self.controller.sample(task, 256, rng)).mean()

    def entry(self, *, last: bool) -> SearchEntry | None:
        """The state after ``done`` steps, every ``LOG_EVERY`` steps and after the last."""
        if self.done == 0 or (self.done % LOG_EVERY and not last):
            return None
        return SearchEntry(
            step=self.done,
            phase=self.phase(self.done - 1),
            losses=self._by_task(self.scale),
            expected_cost=self._by_task(self.expected_cost),
            entropy=self._by_task(self.controller.entropy()),
            multiplier=self._by_task(self.multiplier),
            effective_samples=self._by_task(self.noise.effective_samples),
            gradient_variance=self._by_task(self.noise.gradient_variance),
        )

    def _by_task(self, values: Floats) -> dict[str, float]:
        """By task; those that are nan are left out."""
        return {name: float(v) for name, v in zip(self.config.tasks, values, strict=True) if not np.isnan(v)}

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights/{name}": value for name, value in self.supernet.state_dict().items()}
        for name, value in optimizer_tensors(self.optimizer, self.names).items():
            tensors[f"optimizer/{name}"] = value
        tensors["policies/logits"] = self.controller.logits
        for name, value in optimizer_tensors(self.controller.optimizer, {self.controller.logits: "logits"}).items():
            tensors[f"policy_optimizer/{name}"] = value
        for name in ("scale", "multiplier", "expected_cost"):
            tensors[f"state/{name}"] = torch.from_numpy(getattr(self, name))
        for name, array in self._arrays().items():
            tensors[f"arrays/{name}"] = torch.from_numpy(array)
        return tensors

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        """What estimator and noise remember, written to in place when a checkpoint is read."""
        return {**self.estimator.state(), **{f"noise.{name}": array for name, array in self.noise.state().items()}}

    def identity(self) -> dict[str, Any]:
        parts = {"weights": len(self.parts.weights), "policies": len(self.parts.policies)}
        return {
            "space": self.supernet.space.to_json(),
            "tasks": list(self.config.tasks),
            "estimator": self.config.estimator,
            "images": parts,
        }

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        load_weights(self.supernet, groups["weights"], self.folder / CHECKPOINT)
        restore_optimizer(self.optimizer, self.names, groups.get("optimizer", {}))
        self.controller.logits.copy_(groups["policies"]["logits"])
        names = {self.controller.logits: "logits"}
        restore_optimizer(self.controller.optimizer, names, groups.get("policy_optimizer", {}))
        for name in ("scale", "multiplier", "expected_cost"):
            setattr(self, name, groups["state"][name].numpy().copy())
        for name, array in self._arrays().items():
            kept = groups["arrays"].get(name)
            if kept is None or kept.shape != array.shape:
                raise UserError(
                    f"the checkpoint in {self.folder} is of another version or configuration: its {name} does not fit. "
                    "Start a new search"
                )
            array[:] = kept.numpy()
