"""The loop that trains one derived network, from its last checkpoint to its end.

A step takes a batch of augmented images, computes the mean loss over the labelled images of all processes, averages the
gradients, and updates the weights and their moving average. At intervals the first process evaluates that average on
held-out images; the best average so far is stored beside the architecture file, and a checkpoint in a folder.

All randomness is a function of (seed, step), so a resumed training repeats what an uninterrupted one would have done.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbnetv5.architecture import Architecture
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.evaluate import evaluate
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_weights, optimizer_tensors, restore_optimizer, save_tensors
from fbnetv5.runs.history import Entry
from fbnetv5.runs.loop import CHECKPOINT, Loop
from fbnetv5.runs.optimization import half_cosine, parameter_groups
from fbnetv5.runs.processes import GradientAverage
from fbnetv5.training.augment import Augment
from fbnetv5.training.average import MovingAverage
from fbnetv5.training.config import TrainConfig

EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEntry(Entry):
    """The state of a training in its history."""

    loss: float | None
    """Mean over the labelled images of the last step; None before the first."""
    lr: float
    score: float | None
    """The task's metric of the average weights on the held-out images; None if it was not evaluated at this step."""
    best: float
    """Best score so far."""
    best_step: int

    @property
    def scalars(self) -> dict[str, float]:
        values = {"loss": self.loss, "lr": self.lr, "score": self.score}
        return {name: value for name, value in values.items() if value is not None}


class TrainLoop(Loop[TrainEntry]):
    """The state of a training and its steps."""

    title = "training"

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        architecture: Architecture,
        network: Network,
        *,
        dataset: ImageSet,
        held_out: ImageSet,
    ) -> None:
        super().__init__(
            folder,
            steps=config.steps,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
            num_workers=config.data.num_workers,
        )
        self.config = config
        weights = folder / f"{config.task}.safetensors"
        self.advice = f"The best weights so far are {weights}. Start again with a smaller lr, or check the images"
        self.architecture = architecture
        self.task = network.task
        self.network = network.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, decay=config.ema_decay)
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        self.gradients = GradientAverage(self.accelerator, self.network.parameters())
        self.optimizer = make_optimizer(config, self.names)
        self.guard.protect(self.optimizer)
        self.dataset = dataset
        self.held_out = held_out
        self.loss: Tensor | None = None
        """Loss of the last step, a scalar on the device."""
        self.best, self.best_step = self.task.metric.worst, 0
        self.initial_score: float | None = None

    @cached_property
    def training_batches(self) -> Iterator[Batch]:
        """Batches of augmented images for the remaining steps."""
        transform = Augment(self.config, self.dataset.targets)
        return self.batches(self.dataset, self.config.batch, first_step=self.done, stream=3, transform=transform)

    def step(self) -> None:
        self.loss = self.train(next(self.training_batches))

    def train(self, batch: Batch) -> Tensor:
        """Run one step; return the mean loss over the labelled images of all processes, a scalar on the device.

        Raises:
            VerificationError: the loss or the gradient is not finite, see ``step``.
        """
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.done)
        with self.accelerator.autocast():
            total, count = self._loss(batch)
        sums: Tensor = self.accelerator.reduce(torch.stack([total.detach(), count]), "sum")
        labelled = sums[1].clamp(min=1e-9)
        loss = sums[0] / labelled
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, so each divides by its share of the images.
        self.accelerator.backward(total * self.accelerator.num_processes / labelled)
        self.gradients.finish()
        norm = torch.nn.utils.clip_grad_norm_(self.names, self.config.clip_norm)
        self.guard.check({"the loss": loss, "the gradient": norm}, self.done)
        self.optimizer.step()
        self.average.update(self.done, skip=self.guard.skip if self.guard.lag else None)
        return loss

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum of the images' losses and the number of labelled images; with mixup, of blended pairs."""
        images = normalise(batch.images)
        task, share = self.task, 1.0
        if self.config.mixup:
            share = np.random.default_rng([self.config.seed, self.done]).beta(self.config.mixup, self.config.mixup)
            images = share * images + (1 - share) * images.flip(0)
        raw = self.network.raw(images)[task.name]
        total, count = task.losses(raw, batch).sum(), task.labelled(batch).sum()
        if share == 1.0:
            return total, count.to(total)
        return share * total + (1 - share) * task.losses(raw, batch.flipped()).sum(), count.to(total)

    def evaluate(self) -> float:
        """The task's metric of the average weights on the held-out images."""
        network, device = self.average.network, self.accelerator.device
        batches = in_order(self.held_out, batch=EVALUATION_BATCH, num_workers=self.num_workers)
        return evaluate(self.task, lambda images: network(images.to(device)), batches)

    def is_logged(self, *, last: bool) -> bool:
        return super().is_logged(last=last) or self._is_evaluated(last=last)

    def _is_evaluated(self, *, last: bool) -> bool:
        return self.done % self.config.evaluate_every == 0 or last

    def entry(self, *, last: bool) -> TrainEntry | None:
        """The state after ``done`` steps: before the first, at each evaluation, and every ``LOG_EVERY`` steps."""
        if not self.is_logged(last=last):
            return None
        score = None
        if self._is_evaluated(last=last):
            score = self.evaluate()
            self._keep_best(score)
        return TrainEntry(
            step=self.done,
            loss=None if self.loss is None else float(self.loss),
            lr=learning_rate(self.config, self.done),
            score=score,
            best=self.best,
            best_step=self.best_step,
        )

    def _keep_best(self, score: float) -> None:
        """Write the average weights and the architecture file if the score is the best so far."""
        if self.initial_score is None:
            self.initial_score = score
        if self.task.metric.drop(self.best, score) >= 0:
            return
        self.best, self.best_step = score, self.done
        name = self.config.task
        save_tensors(self.folder / f"{name}.safetensors", self.average.network.state_dict())
        provenance = {
            **self.architecture.provenance,
            "trained_at": list(self.config.data.size),
            "score": score,
            "training": {"init": self.config.init, "seed": self.config.seed, "step": self.done},
        }
        self.architecture.changed(provenance=provenance).save(self.folder / f"{name}.json")

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.network.state_dict().items()}
        for name, value in optimizer_tensors(self.optimizer, self.names).items():
            tensors[f"optimizer/{name}"] = value
        return tensors

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "first": self.initial_score}

    def identity(self) -> dict[str, Any]:
        return {"images": len(self.dataset)}

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        load_weights(self.network, groups["weights"], self.folder / CHECKPOINT)
        load_weights(self.average.network, groups["average"], self.folder / CHECKPOINT)
        restore_optimizer(self.optimizer, self.names, groups.get("optimizer", {}))
        self.best, self.best_step, self.initial_score = state["best"], state["best_step"], state["first"]


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: linear rise, then half a cosine down to 1 %."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * half_cosine((step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))


def make_optimizer(config: TrainConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """AdamW or SGD; norms and biases do not decay.

    On accelerators it is a fused one, as the guard needs; on CPUs fused SGD would round differently.
    """
    everything = list(parameters)
    groups = parameter_groups(everything, config.weight_decay)
    if config.optimizer == "sgd":
        nesterov, fused = config.momentum > 0, everything[0].device.type != "cpu"
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
