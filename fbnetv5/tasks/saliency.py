"""Saliency: the pixels of the objects that draw attention, read from all four paths (``fbnetv5.tasks.pixels``).

Loss: binary cross entropy. Metric: mean over images of the intersection over union of the salient region, at the one
threshold that is best for all images, as multi-task benchmarks measure it (ASTMT, arXiv 1904.08918).

Shape legend: N images, H x W pixels of the image, T thresholds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.pixels import THRESHOLDS, BinaryTask, binary_losses, upsample
from fbnetv5.tasks.task import Metric, MetricInfo


class Saliency(BinaryTask):
    """One target, the saliency map."""

    name = "saliency"
    order = 4
    targets = ("saliency",)
    metric = MetricInfo(name="max_miou")
    training: ClassVar[Mapping[str, Any]] = {"scale": (0.7, 1.4)}

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Binary cross entropy in nats, the mean over each image's pixels that are not IGNORE: -> [N]."""
        return binary_losses(upsample(raw.float())[:, 0], batch.targets["saliency"])

    def new_metric(self) -> Metric:
        return MaxMeanIoU()


class MaxMeanIoU:
    """The mean over images of the salient region's intersection over union, the highest over thresholds."""

    def __init__(self) -> None:
        self._ious = torch.zeros(len(THRESHOLDS), dtype=torch.float64)
        self._errors = 0.0
        self._images = 0

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        probability, truth = outputs[0][:, 0].detach().float().cpu(), batch.targets["saliency"].cpu()
        valid, salient = truth != IGNORE, truth == 1
        counted = valid.flatten(1).any(1)
        for index, threshold in enumerate(THRESHOLDS):
            predicted = (probability >= threshold) & valid
            overlap = (predicted & salient).sum((1, 2))
            union = (predicted | salient).sum((1, 2))
            iou = torch.where(union == 0, 1.0, overlap / union.clamp(min=1))
            self._ious[index] += iou[counted].double().sum()
        errors = ((probability - salient.float()).abs() * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
        self._errors += float(errors[counted].double().sum())
        self._images += int(counted.sum())

    def merge(self, other: "MaxMeanIoU") -> None:
        self._ious += other._ious
        self._errors += other._errors
        self._images += other._images

    def compute(self) -> float:
        """The mean, 0..1; an image with no salient pixel counts as 1 where none is predicted, else as 0.

        Raises:
            UserError: no image had a labelled pixel.
        """
        if not self._images:
            raise UserError("no labelled pixels in the test images: max_miou needs a saliency file for at least one")
        return float(self._ious.max() / self._images)

    def report(self) -> dict[str, Any]:
        """max_miou, the threshold that reaches it, and the mean absolute error of the probabilities."""
        best = float(THRESHOLDS[int(self._ious.argmax())])
        return {"max_miou": self.compute(), "threshold": round(best, 2), "mae": self._errors / self._images}
