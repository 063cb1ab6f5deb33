"""The search loop: trains shared weights and all policies, with one trunk pass a step whatever the number of tasks.

A step of the warm-up trains the weights under an architecture of random depth. After the warm-up one step of every few
trains the policies on held-out images without a backward pass, the others train the weights; both draw their
architecture from the mixture of the policies. In long searches a part of the policy steps explores instead.
``policies.py`` updates the policies, this module the weights. FBNetV5 (arXiv 2111.10007) also learns both in one run;
the warm-up by depth, the alternation and the mixture are this project's.

A task's loss is divided by its own moving average, so that the losses of all tasks have the same scale and need no
weights: the gradient is that of the sum of the logarithms of the losses. Every task's loss counts fully in a step of
the weights, whichever policy proposed the architecture; ``SearchConfig.importance`` brings the importance weights back.

All randomness is a function of (seed, step), so a resumed run repeats what an uninterrupted run would have done. With
several processes all draw the same architecture, share the images of a step, and average gradients and losses.

Shape legend: T tasks, S variables, K architectures of a step, N images.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbnetv5.costs.constraints import Constraints, latency_identity
from fbnetv5.data.loading import some_indices
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.data.splits import Splits, Subset
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import load_weights, optimizer_tensors, restore_optimizer
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.runs.loss_scale import Floats
from fbnetv5.runs.optimization import half_cosine
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.policies import Policies
from fbnetv5.search.supernet_loop import SupernetLoop
from fbnetv5.spaces.space import Choices, Space

WARMUP_KEPT = (0.2, 0.7)
"""Minimum and maximum probability that a step of the warm-up keeps a block. With fuller networks
steps take longer, and after as many of them the losses are no lower (docs/lab-notes.md)."""
WARMUP_LR_STEPS = 50
"""Steps over which the learning rate rises linearly."""
MIN_REPETITIONS = 8
"""Minimum number of policy steps that use each held-out image; a larger set of images is reduced to reach it."""


def warmup_architecture(space: Space, rng: np.random.Generator) -> Choices:
    """[S]: an architecture whose blocks are kept with one random probability, of ``WARMUP_KEPT``.

    Variables that skip nothing have a uniformly random choice.
    """
    return space.random(rng.random(len(space.variables)) < rng.uniform(*WARMUP_KEPT), rng)


def policy_images(images: ImageSet, config: SearchConfig, *, processes: int) -> ImageSet:
    """The held-out images that policies learn from: few enough to use each ``MIN_REPETITIONS`` times.

    An image's first loss is only the reference that its later losses are compared with, so nothing would be learned
    from a large set that is used once; and what is stored for each image is bounded by the length of the search.

    Args:
        images: all held-out images.
        config: of the search.
        processes: that share the images of a step, each with a batch of its own.
    """
    batch = config.policy_batch * processes
    max_images = max(batch, config.policy_steps(config.steps) * batch // MIN_REPETITIONS)
    return images if len(images) <= max_images else Subset(images, some_indices(images, max_images))


class SearchLoop(SupernetLoop[SearchEntry, Supernet]):
    """The state of a search and its steps."""

    title = "search"

    def __init__(
        self,
        config: SearchConfig,
        folder: Path,
        supernet: Supernet,
        splits: Splits,
        constraints: Mapping[str, Constraints],
    ) -> None:
        super().__init__(config, folder, supernet, steps=config.total_steps, max_fan_in=config.max_fan_in)
        self.config = config
        self.splits = splits
        self.held_out = policy_images(splits.policies, config, processes=self.accelerator.num_processes)
        self.constraints = constraints
        self.policies = Policies(config, supernet.space, constraints, images=len(self.held_out))
        self.controller = self.policies.controller

    def phase(self, step: int) -> str:
        """What the step of that number trains."""
        after = step - self.config.warmup_steps
        if after < 0:
            return "warm-up"
        return "policies" if after % self.config.policy_every == 0 else "weights"

    def step(self) -> None:
        """Train weights or policies, according to the step's phase."""
        rng = np.random.default_rng([self.config.seed, self.done])
        phase = self.phase(self.done)
        if phase == "policies":
            self.train_policies(next(self.policy_batches), self.policies.draw(rng), rng)
            return
        batch = next(self.weight_batches)
        if phase == "warm-up":
            choices = warmup_architecture(self.supernet.space, rng)
            self.train_weights(batch, choices, np.ones(len(self.config.tasks)))
            return
        controller, share = self.policies.controller, self.config.importance
        choices = controller.propose(rng)
        self.train_weights(batch, choices, 1 - share + share * controller.importance(choices[None])[0])

    @cached_property
    def weight_batches(self) -> Iterator[Batch]:
        """Batches for the remaining steps that train weights."""
        first = self._passes("weights")
        return self.batches(self.splits.weights, self.config.batch, first_step=first, stream=1)

    @cached_property
    def policy_batches(self) -> Iterator[Batch]:
        """Batches for the remaining steps that train policies."""
        first = self._passes("policies")
        return self.batches(self.held_out, self.config.policy_batch, first_step=first, stream=2)

    def train_weights(self, batch: Batch, choices: Choices, gamma: Floats) -> None:
        """Run one pass and update the shared weights on ``sum_t gamma_t l_t``, each loss relative to its average.

        Args:
            batch: of this process.
            choices: [S], the architecture that runs.
            gamma: [T], weight of each task's loss.

        Raises:
            VerificationError: too many steps were skipped, see ``step``.
        """
        with self.accelerator.autocast():
            losses, labelled = self._losses(batch, choices)
        counts = labelled.sum(0).to(losses)
        self.update_weights(losses.sum(0), counts, gamma, lr=self._learning_rate())

    @torch.no_grad()
    def train_policies(self, batch: Batch, choices: Choices, rng: np.random.Generator) -> None:
        """Run each architecture [K, S] without gradients, and update the policies from the losses."""
        gathered, sums = zip(*(self._policy_losses(batch, architecture) for architecture in choices), strict=True)
        images = self.accelerator.gather(batch.indices).cpu().numpy()
        if self.guard.check_now(self.named(torch.stack(sums).sum(0)), self.done):
            return
        losses = np.stack([each.cpu().double().numpy() for each in gathered])  # some accelerators have no doubles
        self.policies.update(choices, losses / self.scale.on_host(), images, rng)

    def _policy_losses(self, batch: Batch, choices: Choices) -> tuple[Tensor, Tensor]:
        """Every image's losses under one architecture [S], over all processes.

        Returns:
            [N, T], nan where not labelled; and the sum of the labelled ones, [T].
        """
        with self.accelerator.autocast():
            losses, labelled = self._losses(batch, choices)
        sums = self.accelerator.reduce(losses.sum(0), "sum")
        return self.accelerator.gather(losses.float().masked_fill(~labelled, torch.nan)), sums

    def _losses(self, batch: Batch, choices: Choices) -> tuple[Tensor, Tensor]:
        """Loss of every image and task [N, T], 0 without a label, and whether there is a label, bool [N, T]."""
        raw = self.supernet(normalise(batch.images), choices)
        tasks = {name: self.supernet.tasks[name] for name in self.config.tasks}
        losses = torch.stack([task.losses(raw[name], batch) for name, task in tasks.items()], dim=1)
        return losses, torch.stack([task.labelled(batch) for task in tasks.values()], dim=1)

    def _learning_rate(self) -> float:
        """Linear rise, then half a cosine down to 1 % over the steps that train weights."""
        config = self.config
        index = self._passes("weights")
        total = config.warmup_steps + config.steps - config.policy_steps(config.steps)
        rise = min(1.0, (index + 1) / WARMUP_LR_STEPS)
        return config.weight_lr * rise * half_cosine(index / max(1, total))

    def _passes(self, kind: str) -> int:
        """Number of steps before the current one that trained ``kind``: "weights" or "policies"."""
        policies = self.config.policy_steps(max(0, self.done - self.config.warmup_steps))
        return policies if kind == "policies" else self.done - policies

    def entry(self, *, last: bool) -> SearchEntry | None:
        """The state after ``done`` steps, every ``LOG_EVERY`` steps and after the last."""
        if self.done == 0 or not self.is_logged(last=last):
            return None
        return SearchEntry(
            step=self.done,
            phase=self.phase(self.done - 1),
            losses=self._by_task(self.scale.on_host()),
            expected_cost=self._by_budget(self.policies.expected_cost),
            entropy=self._by_task(self.policies.controller.entropy()),
            multiplier=self._by_budget(self.policies.multiplier),
            effective_samples=self._by_task(self.policies.noise.effective_samples),
            gradient_variance=self._by_task(self.policies.noise.gradient_variance),
            policies=self._probabilities() if self.records_policies(last=last) else None,
        )

    def _probabilities(self) -> dict[str, list[list[float]]]:
        """[S, C] by task: the policies, without the choices that a variable does not have."""
        counts = self.supernet.space.choice_counts
        return {
            name: [row[:count] for row, count in zip(policy, counts, strict=True)]
            for name, policy in zip(
                self.config.tasks, self.policies.controller.probabilities().round(4).tolist(), strict=True
            )
        }

    def _by_task(self, values: Floats) -> dict[str, float]:
        """Task -> value; nan is left out."""
        return {name: float(v) for name, v in zip(self.config.tasks, values, strict=True) if not np.isnan(v)}

    def _by_budget(self, values: Floats) -> dict[str, float]:
        """Task, or task and unit where a task has several budgets -> value."""
        return dict(zip(self.policies.budget_names, values.tolist(), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights/{name}": value for name, value in self.supernet.state_dict().items()}
        for name, value in optimizer_tensors(self.optimizer, self.names).items():
            tensors[f"optimizer/{name}"] = value
        tensors["state/scale"] = torch.from_numpy(self.scale.on_host())
        return tensors | self.policies.tensors()

    def identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.to_json(),
            "tasks": list(self.config.tasks),
            "estimator": self.config.estimator,
            "images": {"weights": len(self.splits.weights), "policies": len(self.splits.policies)},
            **latency_identity(table for own in self.constraints.values() for table in own.tables),
        }

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        load_weights(self.supernet, groups["weights"], self.folder / CHECKPOINT)
        restore_optimizer(self.optimizer, self.names, groups.get("optimizer", {}))
        self.scale.load(groups["state"]["scale"])
        self.policies.load(groups, self.folder)

    def load_result(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the weights and policies of a finished search, whatever the number of its processes.

        The rest of a checkpoint is of its steps: arrays of the estimator have a size that depends on the processes.

        Raises:
            UserError: the checkpoint is of another network.
        """
        load_weights(self.supernet, groups["weights"], self.folder / CHECKPOINT)
        self.controller.logits.copy_(groups["policies"]["logits"])
