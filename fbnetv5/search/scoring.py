"""Scores architectures with the shared weights: batch norm recalibrated per architecture, then every task's metric."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.backbone import recalibrate
from fbnetv5.data.loading import in_order
from fbnetv5.data.parts import Parts
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import Batch, PictureSet
from fbnetv5.space import Choices
from fbnetv5.supernet import Supernet

CALIBRATION_BATCHES = 3
BATCH = 128


class SharedWeightScorer:
    """Holds the pictures, so that many architectures are scored on the same ones without reading them again."""

    def __init__(self, supernet: Supernet, parts: Parts, *, limit: int, device: torch.device) -> None:
        self.supernet = supernet
        self.calibration = calibration_pictures(parts.weights, device)
        self.held_out: list[Batch] = [batch.to(device) for batch in in_order(parts.policies, batch=BATCH, limit=limit)]

    @torch.no_grad()
    def __call__(self, choices: Choices, pictures: int) -> dict[str, float]:
        """Every task's metric of one architecture [S] on the first ``pictures`` held-out pictures, in whole batches."""
        recalibrate(self.supernet, self.calibration, lambda images: self.supernet(images, choices))
        metrics = {name: task.new_metric() for name, task in self.supernet.tasks.items()}
        for batch in self.held_out[: math.ceil(pictures / BATCH)]:
            raw = self.supernet(normalise(batch.images), choices)
            for name, task in self.supernet.tasks.items():
                metrics[name].update(task.deploy(raw[name]), batch)
        return {name: metric.compute() for name, metric in metrics.items()}


def calibration_pictures(weights: PictureSet, device: torch.device) -> Sequence[Tensor]:
    """Normalised pictures of the part that weights learn on, for batch-norm statistics; no batch of one.

    Raises:
        UserError: the part has a single picture, which has no statistics.
    """
    found = [b for b in in_order(weights, batch=BATCH, limit=BATCH * CALIBRATION_BATCHES) if len(b.images) > 1]
    if not found:
        raise UserError("batch norm needs at least 2 pictures to train weights on; add pictures")
    return [normalise(batch.images.to(device)) for batch in found]
