"""The loop that trains one derived network on all of its tasks, from its last checkpoint to its end.

A step takes a batch of augmented images, computes each task's mean loss over the labelled images of all processes, or
also its distance from a teacher over all images, averages the gradients of their weighted sum, and updates the weights
and their moving average. At intervals the processes share the evaluation of that average on held-out images; the best
average so far is stored beside the architecture file, and a checkpoint in a folder.

All randomness is a function of (seed, step), so a resumed training repeats what an uninterrupted one would have done.

Shape legend: T tasks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fbnetv5.architecture import Architecture
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.evaluate import measure_network
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import load_weights, optimizer_tensors, restore_optimizer, save_tensors
from fbnetv5.runs.history import Entry
from fbnetv5.runs.loop import CHECKPOINT, Loop
from fbnetv5.runs.processes import GradientAverage, copy_from_first
from fbnetv5.training.augment import Augment
from fbnetv5.training.average import MovingAverage
from fbnetv5.training.best import Best
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.objective import Objective
from fbnetv5.training.optimizer import learning_rate, make_optimizer
from fbnetv5.training.task_weights import TaskWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEntry(Entry):
    """The state of a training in its history."""

    losses: Mapping[str, float] | None
    """By task, the mean loss over the labelled images of the last step, 0 without any, and with a teacher the weighted
    sum of this and of the mean distillation loss; None before the first step."""
    lr: float
    scores: Mapping[str, float] | None
    """By task, the metric of the average weights on the held-out images; None if not evaluated at this step."""
    best: Mapping[str, float]
    """By task, the metric of the best weights so far."""
    best_step: int

    @property
    def scalars(self) -> dict[str, float]:
        groups = {"losses": self.losses or {}, "scores": self.scores or {}}
        values = {f"{group}/{task}": value for group, of_tasks in groups.items() for task, value in of_tasks.items()}
        return {**values, "lr": self.lr}


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
            steps=config.last_step,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
            reading=config.data.reading,
            max_skipped=config.max_skipped,
        )
        self.config = config
        weights = folder / f"{architecture.file_name}.safetensors"
        self.advice = f"The best weights so far are {weights}. Start again with a smaller lr, or check the images"
        self.architecture = architecture
        self.tasks = {name: network.tasks[name] for name in config.tasks}
        self.network = network.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, decay=config.ema_decay)
        self.objective = Objective(config, self.network, dataset.targets, self.accelerator)
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        self.gradients = GradientAverage(self.accelerator, self.network.parameters())
        self.optimizer = make_optimizer(config, self.names)
        self.guard.protect(self.optimizer)
        self.dataset = dataset
        self.held_out = held_out
        self.weights = TaskWeights(config, self.accelerator.device)
        self.losses: Tensor | None = None
        """Mean losses [T] of the last step that was not skipped, on the device; nan before the first of these."""
        self.best = Best(self.tasks)
        self._statistics = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        self._scores: dict[str, float] = {}
        """Of the present step, if it is one of an evaluation."""

    @cached_property
    def training_batches(self) -> Iterator[Batch]:
        """Batches of augmented images for the remaining steps."""
        transform = Augment(self.config, self.dataset.targets)
        return self.batches(self.dataset, self.config.batch, first_step=self.done, stream=3, transform=transform)

    def step(self) -> None:
        before, losses = self.losses, self.train(next(self.training_batches))
        self.losses = torch.where(self.guard.skip == 0, losses, torch.nan if before is None else before)

    def train(self, batch: Batch) -> Tensor:
        """Run one step; return the mean losses over the images of all processes, [T] on the device.

        Raises:
            VerificationError: too many steps were skipped, see ``step``.
        """
        self.network.train()
        kept = self.guard.keep(self._statistics)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.done) * group.get("lr_factor", 1.0)
        with self.accelerator.autocast():
            sums, counts = self.objective.losses(batch, step=self.done, process=self.accelerator.process_index)
        pooled_sums, pooled_counts = self.accelerator.reduce(torch.stack([sums.detach(), counts]), "sum")
        losses = self.objective.means(pooled_sums, pooled_counts)
        factors, averages = self.weights.factors(losses, pooled_counts.sum(0) > 0)
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, so each divides by its share of the images.
        means = self.objective.means(sums * self.accelerator.num_processes, pooled_counts)
        self.accelerator.backward((means * factors.to(means)).sum())
        self.gradients.finish()
        norm = torch.nn.utils.clip_grad_norm_(self.names, self.config.clip_norm)
        named = {f"the loss of {name}": loss for name, loss in zip(self.tasks, losses, strict=True)}
        if self.guard.check(named | {"the gradient": norm}, self.done):
            kept.restore()
            return losses
        self.optimizer.step()
        if self.guard.lag:
            kept.restore(self.guard.skip)
        self.weights.update(averages, skip=self.guard.skip)
        self.average.update(self.done, skip=self.guard.skip if self.guard.lag else None)
        return losses

    def evaluate(self) -> dict[str, float]:
        """By task, the metric of the first process's average weights on the held-out images; {} in the others."""
        self._share_statistics()
        metrics = measure_network(self.average.network, self.held_out, reading=self.reading)
        if not self.accelerator.is_main_process:
            return {}
        return {name: metric.compute() for name, metric in metrics.items()}

    def _share_statistics(self) -> None:
        """Replace the average batch-norm statistics by those of the first process, which are stored: weights are alike.

        Each process averages those of its own images, and only the first one's average is ever used.
        """
        copy_from_first(self.accelerator, [b for b in self.average.network.buffers() if b.is_floating_point()])

    def is_logged(self, *, last: bool) -> bool:
        return super().is_logged(last=last) or self._is_evaluated(last=last)

    def _is_evaluated(self, *, last: bool) -> bool:
        return self.done % self.config.evaluate_every == 0 or last

    def measure(self, *, last: bool) -> None:
        if self._is_evaluated(last=last):
            self._scores = self.evaluate()

    def entry(self, *, last: bool) -> TrainEntry | None:
        """The state after ``done`` steps: before the first, at each evaluation, and every ``LOG_EVERY`` steps."""
        if not self.is_logged(last=last):
            return None
        scores = None
        if self._is_evaluated(last=last):
            scores = self._scores
            if self.best.replace(scores, self.done):
                self._save_best(scores)
        return TrainEntry(
            step=self.done,
            losses=self._finite_losses(),
            lr=learning_rate(self.config, self.done),
            scores=scores,
            best=self.best.scores,
            best_step=self.best.step,
        )

    def _finite_losses(self) -> dict[str, float] | None:
        losses = [] if self.losses is None else self.losses.tolist()
        return dict(zip(self.tasks, losses, strict=True)) if losses and not math.isnan(losses[0]) else None

    def _save_best(self, scores: Mapping[str, float]) -> None:
        """Write the average weights and the architecture file, which has the scores as those of searches have them."""
        name = self.architecture.file_name
        save_tensors(self.folder / f"{name}.safetensors", self.average.network.state_dict())
        teacher = {} if self.config.teacher is None else {"teacher": self.config.teacher}
        provenance = {
            **self.architecture.provenance,
            "trained_at": list(self.config.data.size),
            "fit": self.config.data.fit,
            **({"scores": dict(scores)} if len(scores) > 1 else {"score": scores[self.architecture.task]}),
            "training": {"init": self.config.init, "seed": self.config.seed, "step": self.done, **teacher},
        }
        self.architecture.changed(provenance=provenance).save(self.folder / f"{name}.json")

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.network.state_dict().items()}
        for name, value in optimizer_tensors(self.optimizer, self.names).items():
            tensors[f"optimizer/{name}"] = value
        tensors |= {f"task_weights/{name}": value for name, value in self.weights.tensors().items()}
        return tensors

    def state(self) -> dict[str, Any]:
        return self.best.state()

    def identity(self) -> dict[str, Any]:
        teacher = self.objective.teacher
        return {"images": len(self.dataset), **({} if teacher is None else {"teacher": teacher.checksum})}

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        load_weights(self.network, groups["weights"], self.folder / CHECKPOINT)
        load_weights(self.average.network, groups["average"], self.folder / CHECKPOINT)
        restore_optimizer(self.optimizer, self.names, groups.get("optimizer", {}))
        self.weights.load(groups.get("task_weights", {}))
        self.best.load(state)
        stored = self.architecture.provenance
        step = stored.get("training", {}).get("step", 0)
        if step > self.best.step:
            scores = stored["scores"] if len(self.tasks) > 1 else {self.architecture.task: stored["score"]}
            self.best.resume(scores, step)
