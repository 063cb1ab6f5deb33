"""Segmentation: a class for every pixel, read from all four paths (``fbnetv5.tasks.pixels``).

Loss: cross entropy. Metric: mean intersection over union.

Shape legend: N images, C classes, H x W pixels of the image.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from export.errors import UserError
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.divergence import class_divergence
from fbnetv5.tasks.pixels import PATHS, PixelHead, losses_in_parts, parts, upsample
from fbnetv5.tasks.task import Metric, MetricInfo, Task


class Segmentation(Task):
    """Raw: logits [N, C, H/4, W/4]; deployable: logits [N, C, H, W]."""

    name = "seg"
    order = 3
    by_default = True
    targets = ("mask",)
    min_classes = 2
    paths = PATHS
    metric = MetricInfo(name="miou")
    output_names = ("logits",)
    can_smooth = True
    training: ClassVar[Mapping[str, Any]] = {"scale": (0.7, 1.4)}

    def build_head(self, channels: Sequence[int]) -> PixelHead:
        return PixelHead(channels, len(self.labels))

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Cross entropy in nats, the mean over each image's pixels that are not IGNORE: -> [N]."""
        return losses_in_parts(self._pixel_losses, raw.float(), batch.targets[self.targets[0]])

    def _pixel_losses(self, raw: Tensor, truth: Tensor) -> Tensor:
        (logits,) = self.deploy(raw)
        pixels = functional.cross_entropy(
            logits, truth.long(), ignore_index=IGNORE, reduction="none", label_smoothing=self.label_smoothing
        )
        valid = (truth != IGNORE).sum((1, 2))
        return pixels.sum((1, 2)) / valid.clamp(min=1)

    def distillation_losses(self, raw: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """KL divergence of the classes in nats, the mean over the pixels of the raw outputs: -> [N]."""
        return class_divergence(raw, teacher, temperature).mean((1, 2))

    def deploy(self, raw: Tensor) -> tuple[Tensor, ...]:
        return (upsample(raw),)

    def measure(self, metric: Metric, raw: Tensor, batch: Batch) -> None:
        if len(of_parts := parts(raw)) == 1:
            super().measure(metric, raw, batch)
            return
        numbers = torch.arange(len(raw), device=batch.indices.device)
        for rows in of_parts:
            metric.update(self.deploy(raw[rows]), batch.rows(numbers[rows]))

    def new_metric(self) -> Metric:
        return MeanIoU(self.labels, self.targets[0])


class MeanIoU:
    """Intersection over union of all test pixels, the mean over classes that occur in the labels or the predictions."""

    def __init__(self, labels: Sequence[str], target: str) -> None:
        """Start without pixels.

        Args:
            labels: names of the classes.
            target: name of the class map.
        """
        self._target = target
        # Several processes score different networks: their counts must not be added up.
        self._labels = labels
        self._jaccard = MulticlassJaccardIndex(
            len(labels), ignore_index=IGNORE, validate_args=False, sync_on_compute=False
        )

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        (logits,) = outputs
        classes = logits.argmax(1).cpu()  # on the device: the logits are many times as large
        self._jaccard.update(classes, batch.targets[self._target].cpu().long())

    def merge(self, other: "MeanIoU") -> None:
        self._jaccard.merge_state(other._jaccard)

    def compute(self) -> float:
        """The mean, 0..1.

        Raises:
            UserError: no image had a labelled pixel.
        """
        if not torch.count_nonzero(self._jaccard.confmat):
            raise UserError(f"no labelled pixels in the test images: miou needs a {self._target} file for at least one")
        return float(self._jaccard.compute())

    def report(self) -> dict[str, Any]:
        """miou, the share of correct pixels, and iou by class, None for a class in neither labels nor predictions."""
        counts = self._jaccard.confmat.double()  # [C, C]: rows are labels, columns predictions
        correct, total = counts.diagonal(), counts.sum()
        union = counts.sum(0) + counts.sum(1) - correct
        return {
            "miou": self.compute(),
            "pixel_accuracy": float(correct.sum() / total),
            "iou": {
                label: float(correct[index] / union[index]) if union[index] else None
                for index, label in enumerate(self._labels)
            },
        }
