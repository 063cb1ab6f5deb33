"""The losses of a training step, with what its recipe adds to them: mixed images, dropped activations, smoothed labels.

A task's loss has one term, that of its labels, or two, with that of a teacher: a network that runs on the images of
the step (``fbnetv5.training.distillation``), or one whose probabilities are stored with the images, their soft labels.
Everything random here is a function of (seed, step, process).

Shape legend: T tasks, K terms: labels, then the teacher if there is one.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import Target
from fbnetv5.networks.backbone import Network
from fbnetv5.tasks.task import Task
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.cuda_graphs import Raw, record
from fbnetv5.training.distillation import DistillationTeacher, open_distillation_teacher
from fbnetv5.training.mix import Mix, mix
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
        """Open the teacher, and add the hooks of the recipe's dropout and stochastic depth to the network.

        Args:
            config: of the training.
            network: to train, on the accelerator's device.
            targets: of the images.
            accelerator: device and precision of this process.

        Raises:
            UserError: the teacher is missing or does not fit.
            UnavailableError: the teacher's library, or its weights, are not on this machine.
        """
        self._config = config
        self._network = network
        self._accelerator = accelerator
        self._raw: Raw | None = None
        self.teacher: DistillationTeacher | None = None
        if config.teacher is not None and not config.reads_soft_labels:
            self.teacher = open_distillation_teacher(config.teacher, network.tasks, accelerator.device)
        self._soft_targets = soft_targets(network.tasks, targets) if config.reads_soft_labels else {}
        taught = self._soft_targets if self.teacher is None else self.teacher.tasks
        self._shares = shares_of_terms(config.distillation, config.tasks, taught).to(accelerator.device)
        """[K, T]."""
        self._tasks = {name: network.tasks[name].smoothed(config.label_smoothing) for name in config.tasks}
        self._kinds = {name: target.kind for name, target in targets.items()}
        if config.dropout:
            add_dropout(network, config.dropout)
        if config.stochastic_depth:
            add_stochastic_depth(network, config.stochastic_depth)

    def losses(self, batch: Batch, *, step: int, process: int) -> tuple[Tensor, Tensor]:
        """The sums of the images' losses [K, T], unweighted, and the numbers of images that count for them [K, T].

        Labelled images count for labels, and for a teacher all images, or those with a soft label; none counts for a
        term without a share.

        Args:
            batch: of augmented images.
            step: number of the step.
            process: of several that share the step; each drops other activations.
        """
        mixed = mix(batch, self._config, self._kinds, seed=self._config.seed, step=step)
        if self._raw is None:
            self._raw = self._forward(mixed.images)
        taught = None if self.teacher is None else self.teacher.raw(mixed.images)
        seed_step(self._config.seed, step, process)
        raw = self._raw(mixed.images)
        sums = torch.stack([weight * self._sums(raw, labels) for weight, labels in mixed.labels]).sum(0)
        own = mixed.labels[0][1]
        labelled = torch.stack([task.labelled(own).sum() for task in self._tasks.values()]).to(sums)
        if taught is not None:
            distances, imitated = self._distances(raw, taught), torch.full_like(labelled, len(mixed.images))
        elif self._soft_targets:
            distances, imitated = self._soft_distances(raw, mixed)
        else:
            return sums[None], labelled[None]
        return torch.stack([sums, distances]), torch.stack([labelled, imitated]) * (self._shares > 0)

    def means(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The mean loss of each task, its terms weighted by their shares: [K, T], [K, T] -> [T].

        A term without images counts as 0.
        """
        return (sums / counts.clamp(min=1e-9) * self._shares).sum(0)

    def _forward(self, images: Tensor) -> Raw:
        """``network.raw``, on a single GPU recorded for batches of the shape of ``images``."""
        accelerator = self._accelerator
        if not self._config.cuda_graphs or accelerator.device.type != "cuda" or accelerator.num_processes > 1:
            return self._network.raw
        autocast = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
        return record(self._network, images, autocast=autocast)

    def _sums(self, raw: Mapping[str, Any], labels: Batch) -> Tensor:
        return torch.stack([task.losses(raw[name], labels).sum() for name, task in self._tasks.items()])

    def _distances(self, raw: Mapping[str, Any], taught: Mapping[str, Any]) -> Tensor:
        """The sums of the images' distillation losses [T], 0 for a task that the teacher does not have."""
        temperature = self._config.temperature
        sums = [
            task.distillation_losses(raw[name], taught[name], temperature).sum() if name in taught else None
            for name, task in self._tasks.items()
        ]
        return torch.stack([self._shares.new_zeros(()) if total is None else total for total in sums])

    def _soft_distances(self, raw: Mapping[str, Any], mixed: Mix) -> tuple[Tensor, Tensor]:
        """The sums of the images' distances from their soft labels [T], and the numbers of images that have one [T]."""
        sums, counts = [], []
        for name, task in self._tasks.items():
            total = count = self._shares.new_zeros(())
            if name in self._soft_targets:
                total = total + sum(
                    weight * task.soft_losses(raw[name], labels, self._config.temperature).sum()
                    for weight, labels in mixed.labels
                )
                count = mixed.labels[0][1].present[self._soft_targets[name]].sum()
            sums.append(total)
            counts.append(count)
        return torch.stack(sums), torch.stack([count.to(self._shares) for count in counts])


def soft_targets(tasks: Mapping[str, Task], targets: Mapping[str, Target]) -> dict[str, str]:
    """By task, the target of its soft labels, of the tasks that have some in the images."""
    wanted = {name: task.soft_target for name, task in tasks.items()}
    return {name: target for name, target in wanted.items() if target is not None and target in targets}


def shares_of_terms(share: float, tasks: Collection[str], taught: Collection[str]) -> Tensor:
    """The share of each term in each task's loss, [K, T]: ``share`` is that of a teacher in the tasks that it has."""
    if not taught:
        return torch.ones(1, len(tasks))
    of_teacher = torch.tensor([share if name in taught else 0.0 for name in tasks])
    return torch.stack([1 - of_teacher, of_teacher])


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed torch's generators for the activations that a step drops."""
    state = np.random.SeedSequence([seed, step], spawn_key=(process,)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
