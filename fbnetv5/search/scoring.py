"""Runs architectures with the shared weights on fixed images: the panel's losses and the finalists' losses.

A network with shared weights needs batch-norm statistics of its own before it is compared with others, as in the
one-shot search of Guo et al. (arXiv 1904.00420).

Shape legend: K architectures, S variables, T tasks.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from export.errors import UserError
from fbnetv5.costs.constraints import Constraints
from fbnetv5.data.loading import even_batches, even_groups, images_per_batch, read_group
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.data.splits import Splits, Subset
from fbnetv5.evaluate import in_run_precision
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.shared_blocks import SharedBlocks, by_first_choices
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks.task import Task

Floats = NDArray[np.float64]

CALIBRATION_BATCHES = 3
"""Batches of ``BATCH`` images, or as many images in smaller ones, that batch-norm statistics are averaged over."""
BATCH = 128
"""Images of a batch."""
MIN_LABELLED = 128
"""Labelled images that a task is scored on at least, if none of the first held-out images has a label of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """An architecture of one task and its measured figures."""

    choices: tuple[int, ...]
    costs: tuple[float, ...]
    """Costs of the task's network, in the units of its budgets."""
    loss: float
    """Mean over the held-out images."""
    expected_loss: float
    """Predicted by the panel, at the level of the measured losses: the lowest one wins."""
    score: float
    """The task's metric on the same images."""
    peak_activation_bytes: int | None = None
    """Where the budgets limit it."""


@torch.no_grad()
def batch_losses(
    supernet: Supernet,
    batch: Batch,
    architectures: Choices,
    accelerator: Accelerator,
    tasks: Collection[str] | None = None,
) -> Floats:
    """[K, T]: mean losses of architectures [K, S] in all tasks, or in these alone.

    Batch-norm statistics are those of the batch itself. The loss of a task that does not run, or that no image has
    labels of, is nan.
    """
    supernet.train()
    images, shared = normalise(batch.images), SharedBlocks(supernet.space, supernet.module_of)
    counts = {name: int(task.labelled(batch).sum()) for name, task in supernet.tasks.items()}
    losses = np.full((len(architectures), len(counts)), np.nan)
    for row in by_first_choices(architectures):
        forward = partial(supernet, choices=architectures[row], tasks=tasks, shared=shared)
        raw = in_run_precision(forward, batch.images.device, accelerator)(images)
        for column, (name, task) in enumerate(supernet.tasks.items()):
            if name in raw and counts[name]:
                losses[row, column] = float(task.losses(raw[name], batch).sum()) / counts[name]
    return losses


class FinalistScorer:
    """Scores architectures on the same held-out images, which are loaded once."""

    def __init__(self, supernet: Supernet, splits: Splits, *, images: int, device: torch.device) -> None:
        self.supernet = supernet
        self.device = device
        self.accelerator = make_accelerator()
        self.calibration = calibration_images(splits.weights, device)
        self.held_out = held_out_batches(splits, supernet.tasks.values(), images=images, device=device)

    @torch.no_grad()
    def __call__(self, name: str, choices: Choices, constraints: Constraints) -> Finalist:
        """Score a task's network of one architecture [S]: its costs, mean loss and metric on the held-out images."""
        network = self.supernet.derive(name, choices).to(self.device).to(memory_format=torch.channels_last)
        run = in_run_precision(network.raw, self.device, self.accelerator)
        recalibrate(network, self.calibration, run)
        task, metric = network.task, network.task.new_metric()
        total, labelled = 0.0, 0
        for batch in self.held_out:
            raw = run(normalise(batch.images))[network.task.name]
            total += float(task.losses(raw, batch).sum())
            labelled += int(task.labelled(batch).sum())
            task.measure(metric, raw, batch)
        loss = total / max(1, labelled)
        return Finalist(
            choices=tuple(int(choice) for choice in choices),
            costs=constraints.costs_of(choices),
            loss=loss,
            expected_loss=loss,
            score=metric.compute(),
            peak_activation_bytes=None if (limit := constraints.memory) is None else int(limit.peak(choices[None])[0]),
        )


def held_out_batches(splits: Splits, tasks: Iterable[Task], *, images: int, device: torch.device) -> list[Batch]:
    """About ``images`` held-out images, evenly spaced, and others for tasks that have no label among these."""
    batch = images_per_batch(splits.policies, min(BATCH, images))
    groups = even_groups(splits.policies, batch=batch, count=max(1, -(-images // batch)))
    batches = [read_group(splits.policies, group) for group in groups]
    unlabelled = [task for task in tasks if not any(bool(task.labelled(batch).any()) for batch in batches)]
    if unlabelled:
        used = set[int]().union(*groups)
        others = Subset(splits.policies, [index for index in range(len(splits.policies)) if index not in used])
        batches += labelled_batches(others, unlabelled)
    return [batch.to(device) for batch in batches]


def labelled_batches(images: ImageSet, tasks: Iterable[Task]) -> Iterator[Batch]:
    """Images with a label of one of the tasks, until each task has ``MIN_LABELLED`` or there are no more.

    Only these are kept, so a set of any size fits into memory, however rare labels are.
    """
    counts = dict.fromkeys(tasks, 0)
    size = images_per_batch(images, BATCH)
    for batch in even_batches(images, batch=size, count=-(-len(images) // size)):
        labelled = {task: task.labelled(batch) for task, count in counts.items() if count < MIN_LABELLED}
        if not labelled:
            return
        rows = torch.stack([*labelled.values()]).any(0).nonzero().flatten()
        if len(rows):
            yield batch.rows(rows)
        for task, of_task in labelled.items():
            counts[task] += int(of_task.sum())


class CalibrationImages:
    """Batches of images that are kept as bytes, and are normalised whenever they are iterated over."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        return map(normalise, self._batches)


def calibration_images(weights: ImageSet, device: torch.device) -> CalibrationImages:
    """Images of the split that weights learn on, for batch-norm statistics; no batch of one image.

    The images are spread evenly over the split, because a folder is sorted by class.

    Raises:
        UserError: the split has a single image, which has no statistics.
    """
    size = images_per_batch(weights, BATCH)
    batches = even_batches(weights, batch=size, count=-(-CALIBRATION_BATCHES * BATCH // size))
    usable = [batch.images.to(device) for batch in batches if len(batch.images) > 1]
    if not usable:
        raise UserError("batch norm needs at least 2 images to train weights on; add images")
    return CalibrationImages(usable)
