"""Runs architectures with the shared weights on fixed images: the panel's observations and the finalists' losses."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.loading import even_batches, in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.data.splits import Splits
from fbnetv5.networks.backbone import recalibrate
from fbnetv5.networks.supernet import Supernet
from fbnetv5.search.reinforce.finalists import Scored
from fbnetv5.search.reinforce.ridge import Floats
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks.task import Task

CALIBRATION_BATCHES = 3
BATCH = 128


@torch.no_grad()
def batch_losses(supernet: Supernet, batch: Batch, choices: Choices) -> Floats:
    """[T]: every task's mean loss of one architecture [S] on a batch, batch norm on the batch; nan without labels."""
    supernet.train()
    raw = supernet(normalise(batch.images), choices)
    means = []
    for name, task in supernet.tasks.items():
        count = int(task.labelled(batch).sum())
        means.append(float(task.losses(raw[name], batch).sum()) / count if count else float("nan"))
    return np.array(means)


class FinalistScorer:
    """Holds the images, so that all finalists run on the same ones without reading them again."""

    def __init__(self, supernet: Supernet, parts: Splits, *, images: int, device: torch.device) -> None:
        self.supernet = supernet
        self.device = device
        self.calibration = calibration_images(parts.weights, device)
        count = max(1, -(-images // BATCH))
        held_out = even_batches(parts.policies, batch=min(BATCH, images), count=count)
        self.held_out: list[Batch] = [batch.to(device) for batch in held_out]
        if not all(_labelled(task, self.held_out) for task in supernet.tasks.values()):
            # Few labels: take all images, some of which are labelled, as was checked before the search.
            self.held_out = [batch.to(device) for batch in in_order(parts.policies, batch=BATCH)]

    @torch.no_grad()
    def __call__(self, name: str, choices: Choices, cost: CostTable) -> Scored:
        """A task's network of one architecture [S]: its cost, mean loss and metric on the held-out images."""
        network = self.supernet.derive(name, choices).to(self.device).to(memory_format=torch.channels_last)
        recalibrate(network, self.calibration, network)
        task, metric = network.task, network.task.new_metric()
        total, labelled = 0.0, 0
        for batch in self.held_out:
            raw = network.raw(normalise(batch.images))[network.task.name]
            total += float(task.losses(raw, batch).sum())
            labelled += int(task.labelled(batch).sum())
            metric.update(task.deploy(raw), batch)
        return Scored(
            choices=tuple(int(choice) for choice in choices),
            cost=cost.one(choices),
            loss=total / max(1, labelled),
            score=metric.compute(),
        )


def _labelled(task: Task, batches: Sequence[Batch]) -> bool:
    return any(bool(task.labelled(batch).any()) for batch in batches)


def calibration_images(weights: ImageSet, device: torch.device) -> Sequence[Tensor]:
    """Normalised images of the part that weights learn on, for batch-norm statistics; no batch of one.

    Every batch is evenly spread over the part: a folder is sorted by class.

    Raises:
        UserError: the part has a single image, which has no statistics.
    """
    found = [b for b in even_batches(weights, batch=BATCH, count=CALIBRATION_BATCHES) if len(b.images) > 1]
    if not found:
        raise UserError("batch norm needs at least 2 images to train weights on; add images")
    return [normalise(batch.images.to(device)) for batch in found]
