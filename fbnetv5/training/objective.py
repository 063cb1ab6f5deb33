"""The losses of a training step, with what its recipe adds to them: mixed images, dropped activations, smoothed labels.

Everything random here is a function of (seed, step, process).

Shape legend: T tasks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import Target
from fbnetv5.networks.backbone import Network
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.cuda_graphs import Raw, record
from fbnetv5.training.mix import mix
from fbnetv5.training.regularization import add_dropout, add_stochastic_depth


class Objective:
    """Computes the losses of the batches of one training."""

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        targets: Mapping[str, Target],
        accelerator: Accelerator,
    ) -> None:
        """Add the hooks of the recipe's dropout and stochastic depth to the network.

        Args:
            config: of the training.
            network: to train.
            targets: of the images.
            accelerator: device and precision of this process.
        """
        self._config = config
        self._network = network
        self._accelerator = accelerator
        self._raw: Raw | None = None
        self._tasks = {name: network.tasks[name].smoothed(config.label_smoothing) for name in config.tasks}
        self._kinds = {name: target.kind for name, target in targets.items()}
        if config.dropout:
            add_dropout(network, config.dropout)
        if config.stochastic_depth:
            add_stochastic_depth(network, config.stochastic_depth)

    def losses(self, batch: Batch, *, step: int, process: int) -> tuple[Tensor, Tensor]:
        """The sums of the images' losses [T] and the numbers of labelled images [T].

        Args:
            batch: of augmented images.
            step: number of the step.
            process: of several that share the step; each drops other activations.
        """
        mixed = mix(batch, self._config, self._kinds, seed=self._config.seed, step=step)
        if self._raw is None:
            self._raw = self._forward(mixed.images)
        seed_step(self._config.seed, step, process)
        raw = self._raw(mixed.images)
        sums = torch.stack([weight * self._sums(raw, labels) for weight, labels in mixed.labels]).sum(0)
        own = mixed.labels[0][1]
        return sums, torch.stack([task.labelled(own).sum() for task in self._tasks.values()]).to(sums)

    def _forward(self, images: Tensor) -> Raw:
        """``network.raw``, on a single GPU recorded for batches of the shape of ``images``."""
        accelerator = self._accelerator
        if not self._config.cuda_graphs or accelerator.device.type != "cuda" or accelerator.num_processes > 1:
            return self._network.raw
        autocast = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
        return record(self._network, images, autocast=autocast)

    def _sums(self, raw: Mapping[str, Any], labels: Batch) -> Tensor:
        return torch.stack([task.losses(raw[name], labels).sum() for name, task in self._tasks.items()])


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed torch's generators for the activations that a step drops."""
    state = np.random.SeedSequence([seed, step], spawn_key=(process,)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
