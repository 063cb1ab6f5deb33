"""The loop that trains one derived network alone, from its last checkpoint to its end.

A step is: a batch of changed images, the mean loss over the labelled images of all processes, averaged gradients, a
step of the optimizer, a step of the weights' moving average. Now and then the first process measures that average on
held-out images; the best so far is kept beside the architecture file, and a checkpoint of everything in a folder.

Whatever is random is a function of (seed, step), so a resumed training repeats what an undisturbed one would have done.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.errors import CheckFailed, UserError
from fbnetv5.architecture import Architecture
from fbnetv5.data.loading import batches, in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.evaluate import evaluate
from fbnetv5.networks.backbone import TaskNetwork
from fbnetv5.runs.checkpoint import (
    by_group,
    check_identity,
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    save_tensors,
)
from fbnetv5.runs.history import History
from fbnetv5.runs.processes import average_gradients, crew, make_accelerator
from fbnetv5.training.augment import Augment
from fbnetv5.training.average import MovingAverage
from fbnetv5.training.config import TrainConfig

CHECKPOINT = "checkpoint"
LOG_EVERY = 10
EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Where a training stands."""

    step: int
    """Steps done."""
    loss: float | None
    """Mean over the labelled images of the last step; None before the first."""
    lr: float
    score: float | None
    """The task's metric of the average weights on the held-out images; None where it was not measured now."""
    best: float
    """Of the scores so far."""
    best_step: int


Report = Callable[[Trained], None]


class TrainLoop:
    """The state of a training and its steps. ``run`` goes from the last checkpoint to the end."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        architecture: Architecture,
        network: TaskNetwork,
        *,
        dataset: ImageSet,
        held_out: ImageSet,
    ) -> None:
        self.config = config
        self.folder = folder
        self.architecture = architecture
        self.accelerator = make_accelerator()
        if self.accelerator.mixed_precision == "fp16":
            raise UserError("fp16 mixed precision needs loss scaling, which the training has not; use bf16 or none")
        self.network = network.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.network, decay=config.ema_decay)
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        self.optimizer = make_optimizer(config, list(self.names))
        self.readers = config.data.num_workers
        self.dataset = dataset
        self.held_out = held_out
        self.done = 0
        """Steps finished."""
        self.best, self.best_step = network.task.metric.worst, 0
        self.first: float | None = None
        """Score of the initial weights."""

    def run(self, report: Report) -> None:
        """Resume if there is a checkpoint, and run every step left.

        Raises:
            UserError: the checkpoint is damaged or of another network.
            CheckFailed: a loss or gradient is not finite.
        """
        self.restore()
        config, main = self.config, self.accelerator.is_main_process
        stream = batches(
            self.dataset,
            batch=config.batch,
            seed=config.seed * 4 + 3,  # the search has 1 and 2
            first_step=self.done,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            num_workers=self.readers,
            transform=Augment(config, self.dataset.targets),
        )
        with ExitStack() as stack:
            kept = -1 if self.first is None else self.done
            history = stack.enter_context(closing(History(self.folder, step=kept))) if main else None
            if history is not None and self.first is None:
                self._report(None, history, report)
                self.save()
            while self.done < config.steps:
                loss = self.train(next(stream).to(self.accelerator.device))
                self.done += 1
                if history is not None:
                    self._report(loss, history, report)
                    if self.done % config.checkpoint_every == 0 or self.done == config.steps:
                        self.save()

    def train(self, batch: Batch) -> float:
        """One step; the mean loss over the labelled images of all processes.

        Raises:
            CheckFailed: it, or the gradient, is not finite; the weights are as before.
        """
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with self.accelerator.autocast():
            total, count = self._loss(batch)
        sums = self.accelerator.reduce(torch.stack([total.detach(), count]), "sum")
        loss = float(sums[0] / sums[1].clamp(min=1e-9))
        if not math.isfinite(loss):
            raise self._diverged("loss")
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes, so each divides by its share of the images.
        self.accelerator.backward(total * self.accelerator.num_processes / sums[1].clamp(min=1e-9))
        average_gradients(self.accelerator, self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.names, self.config.clip_norm)
        if not torch.isfinite(norm):
            raise self._diverged("gradient")
        self.optimizer.step()
        self.average.update(self.network, self.done)
        return loss

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum of the images' losses, and of how many: blended pairs if mixup is on."""
        images = normalise(batch.images)
        task, share = self.network.task, 1.0
        if self.config.mixup:
            share = np.random.default_rng([self.config.seed, self.done]).beta(self.config.mixup, self.config.mixup)
            images = share * images + (1 - share) * images.flip(0)
        raw = self.network.head(self.network.backbone(images))
        total, count = task.losses(raw, batch).sum(), task.labelled(batch).sum()
        if share == 1.0:
            return total, count.to(total)
        return share * total + (1 - share) * task.losses(raw, batch.flipped()).sum(), count.to(total)

    def learning_rate(self) -> float:
        """Linear rise, then half a cosine down to 1 %."""
        config = self.config
        if self.done < config.warmup_steps:
            return config.lr * (self.done + 1) / config.warmup_steps
        progress = (self.done - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.lr * (0.505 + 0.495 * math.cos(math.pi * progress))

    def evaluate(self) -> float:
        """The task's metric of the average weights on the held-out images."""
        network, device = self.average.network, self.accelerator.device
        found = in_order(self.held_out, batch=EVALUATION_BATCH, num_workers=self.readers)
        return evaluate(self.network.task, lambda images: network(images.to(device)), found)

    def _report(self, loss: float | None, history: History, report: Report) -> None:
        last = self.done == self.config.steps
        score = None
        if self.done % self.config.evaluate_every == 0 or last:
            score = self.evaluate()
            self._keep_best(score)
        if score is None and self.done % LOG_EVERY:
            return
        now = Trained(
            step=self.done,
            loss=loss,
            lr=self.learning_rate(),
            score=score,
            best=self.best,
            best_step=self.best_step,
        )
        scalars = {name: getattr(now, name) for name in ("loss", "lr", "score") if getattr(now, name) is not None}
        history.add(self.done, asdict(now), scalars)
        report(now)

    def _keep_best(self, score: float) -> None:
        """Write the average weights and the architecture file if none before was better."""
        if self.first is None:
            self.first = score
        if self.network.task.metric.drop(self.best, score) >= 0:
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
        replace(self.architecture, provenance=provenance).save(self.folder / f"{name}.json")

    def _diverged(self, what: str) -> CheckFailed:
        kept = max((self.folder / CHECKPOINT).glob("step-*.json"), key=lambda path: path.stat().st_mtime, default=None)
        weights = self.folder / f"{self.config.task}.safetensors"
        return CheckFailed(
            f"the {what} is not finite at step {self.done + 1}; the last good checkpoint is {kept or 'none yet'}, "
            f"the best weights so far are {weights}. Start again with a smaller lr, or check the images"
        )

    def save(self) -> None:
        """Write the checkpoint of the steps done."""
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.network.state_dict().items()}
        for name, value in optimizer_tensors(self.optimizer, self.names).items():
            tensors[f"optimizer/{name}"] = value
        state: dict[str, Any] = {"best": self.best, "best_step": self.best_step, "first": self.first}
        save_checkpoint(self.folder / CHECKPOINT, self.done, tensors, state | self._identity())

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on with."""
        return {"images": len(self.dataset), **crew(self.accelerator)}

    def restore(self) -> None:
        """Go to where the newest checkpoint stands.

        Raises:
            UserError: it is damaged, or of another network or images.
        """
        found = load_checkpoint(self.folder / CHECKPOINT)
        if found is None:
            return
        tensors, state = found
        check_identity(state, self._identity(), self.folder, "training")
        parts = by_group(tensors)
        load_weights(self.network, parts["weights"], self.folder / CHECKPOINT)
        load_weights(self.average.network, parts["average"], self.folder / CHECKPOINT)
        restore_optimizer(self.optimizer, self.names, parts.get("optimizer", {}))
        self.best, self.best_step, self.first = state["best"], state["best_step"], state["first"]
        self.done = int(state["step"])


def make_optimizer(config: TrainConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """AdamW or SGD; norms and biases do not decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
