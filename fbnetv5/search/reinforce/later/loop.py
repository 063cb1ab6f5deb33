"""The loop of a later task: trains a new head on the frozen trunk of a finished search.

Every step runs one random architecture of the budget's window, so that the head learns to read the features of all
networks that it will be compared on, as in the final phase of a search. The weights of the trunk do not change, nor do
the scales and shifts of its batch norms. Their statistics are those of the batch, as in every step of a search: the
running averages of shared weights mix many architectures and suit none, so nothing reads them, and every network gets
statistics of its own before it is compared or written (``fbnetv5.networks.backbone.recalibrate``).

All randomness is a function of (seed, step), so a resumed run repeats what an uninterrupted run would have done.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.checkpoint import load_weights, optimizer_tensors, restore_optimizer
from fbnetv5.runs.history import Entry
from fbnetv5.runs.loop import CHECKPOINT
from fbnetv5.runs.optimization import half_cosine
from fbnetv5.search.reinforce.later.prepare import LaterPrepared
from fbnetv5.search.supernet_loop import SupernetLoop

RISE_STEPS = 20
"""Steps over which the learning rate rises linearly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterEntry(Entry):
    """The state of a later task's head in the history."""

    losses: Mapping[str, float]
    """By task, the moving average of the training loss."""
    lr: float

    @property
    def scalars(self) -> dict[str, float]:
        return {"lr": self.lr, **{f"losses/{task}": loss for task, loss in self.losses.items()}}


class LaterLoop(SupernetLoop[LaterEntry, Supernet]):
    """The state of a later task and its steps."""

    title = "later task"

    def __init__(self, folder: Path, prepared: LaterPrepared, supernet: Supernet) -> None:
        """Create the loop.

        Args:
            folder: of the later task.
            prepared: its configuration, opened.
            supernet: with the frozen trunk and a fresh head.
        """
        config = prepared.config
        super().__init__(config, folder, supernet, steps=config.total_steps, max_fan_in=config.max_fan_in)
        self.config = config
        self.splits = prepared.splits
        self.constraints = prepared.constraints
        self.controller = prepared.controller
        self.architectures = prepared.architectures
        self.checksum = prepared.checksum
        ((self.name, self.task),) = prepared.tasks.items()

    @cached_property
    def weight_batches(self) -> Iterator[Batch]:
        """Batches for the remaining steps."""
        return self.batches(self.splits.weights, self.config.batch, first_step=self.done, stream=1)

    def step(self) -> None:
        rng = np.random.default_rng([self.seed, self.done])
        choices = self.architectures[rng.integers(len(self.architectures))]
        batch = next(self.weight_batches)
        with self.accelerator.autocast():
            raw = self.supernet(normalise(batch.images), choices)[self.name]
            losses = self.task.losses(raw, batch)
        counts = self.task.labelled(batch).sum()[None].to(losses)
        self.update_weights(losses.sum()[None], counts, np.ones(1), lr=self.learning_rate())

    def learning_rate(self) -> float:
        """Linear rise, then half a cosine down to 1 %."""
        rise = min(1.0, (self.done + 1) / RISE_STEPS)
        return self.config.weight_lr * rise * half_cosine(self.done / self.steps)

    def entry(self, *, last: bool) -> LaterEntry | None:
        """The state after ``done`` steps, every ``LOG_EVERY`` steps and after the last."""
        if self.done == 0 or not self.is_logged(last=last):
            return None
        loss = float(self.scale.on_host()[0])
        return LaterEntry(step=self.done, losses={} if np.isnan(loss) else {self.name: loss}, lr=self.learning_rate())

    def tensors(self) -> dict[str, Tensor]:
        """The head alone; the trunk is in the run of the search."""
        tensors = {f"head/{name}": value for name, value in self.supernet.heads.state_dict().items()}
        for name, value in optimizer_tensors(self.optimizer, self.names).items():
            tensors[f"optimizer/{name}"] = value
        return tensors | {"state/scale": torch.from_numpy(self.scale.on_host())}

    def identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.to_json(),
            "tasks": list(self.config.tasks),
            "trunk": self.checksum,
            "images": {"weights": len(self.splits.weights), "policies": len(self.splits.policies)},
        }

    def load(self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        load_weights(self.supernet.heads, groups["head"], self.folder / CHECKPOINT)
        restore_optimizer(self.optimizer, self.names, groups.get("optimizer", {}))
        self.scale.load(groups["state"]["scale"])
