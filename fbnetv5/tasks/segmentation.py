"""Segmentation: a class for every pixel, read from all four paths.

Head: every path is brought to one width, added up from coarse to fine in the manner of feature pyramids (arXiv
1612.03144), and mixed once by a depthwise-separable convolution at a quarter of the picture's resolution. The raw
logits stay there; loss and deployment upsample them alike, so the head pays nothing for the finest pixels and the loss
sees what is deployed. Metric: mean intersection over union.

Heights and widths of pictures must be multiples of 32, else the paths do not fit on each other.

Shape legend: N pictures, C classes, H x W pixels of the picture, F channels of a feature.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from export.errors import UserError
from fbnetv5.blocks import conv_norm, initialise
from fbnetv5.data.sample import IGNORE, Batch
from fbnetv5.tasks.task import Metric, Task

WIDTH = 64
"""Channels in which the paths are added and mixed."""


class Segmentation(Task):
    """Raw: logits [N, C, H/4, W/4]; deployable: logits [N, C, H, W]."""

    name = "seg"
    paths = (4, 8, 16, 32)
    metric_name = "miou"
    output_names = ("logits",)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes.masks

    def build_head(self, channels: Sequence[int]) -> nn.Module:
        return SegmentationHead(channels, len(self.labels))

    def labelled(self, batch: Batch) -> Tensor:
        return batch.has_mask

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Cross entropy in nats, the mean over each picture's pixels that are not IGNORE: -> [N]."""
        (logits,) = self.deploy(raw.float())
        pixels = functional.cross_entropy(logits, batch.masks.long(), ignore_index=IGNORE, reduction="none")
        known = (batch.masks != IGNORE).sum((1, 2))
        return pixels.sum((1, 2)) / known.clamp(min=1)

    def deploy(self, raw: Tensor) -> tuple[Tensor, ...]:
        return (functional.interpolate(raw, scale_factor=4.0, mode="bilinear", align_corners=False),)

    def new_metric(self) -> Metric:
        return MeanIoU(self.labels)


class SegmentationHead(nn.Module):
    """Features of strides 4, 8, 16, 32 -> logits [N, C, H/4, W/4]."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_norm(width, WIDTH, act=False) for width in channels)
        self.act = nn.Hardswish(inplace=True)
        self.depthwise = conv_norm(WIDTH, WIDTH, kernel=3, groups=WIDTH, act=True)
        self.pointwise = conv_norm(WIDTH, WIDTH, act=True)
        self.classify = nn.Conv2d(WIDTH, classes, 1)
        initialise(self)
        nn.init.normal_(self.classify.weight, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        finer_last = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)][::-1]
        total = finer_last[0]
        for x in finer_last[1:]:
            total = x + functional.interpolate(total, scale_factor=2.0, mode="nearest")
        logits: Tensor = self.classify(self.pointwise(self.depthwise(self.act(total))))
        return logits


class MeanIoU:
    """Intersection over union of all test pixels, the mean over classes that are in the truth or in the answers."""

    def __init__(self, labels: Sequence[str]) -> None:
        # Several processes score different networks: their counts must not be added up.
        self._labels = labels
        self._jaccard = MulticlassJaccardIndex(
            len(labels), ignore_index=IGNORE, validate_args=False, sync_on_compute=False
        )

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        (logits,) = outputs
        self._jaccard.update(logits.cpu().argmax(1), batch.masks.cpu().long())

    def compute(self) -> float:
        """The mean, 0..1.

        Raises:
            UserError: no picture had a labelled pixel.
        """
        if not torch.count_nonzero(self._jaccard.confmat):
            raise UserError("no labelled pixels in the test pictures: miou needs a mask on at least one of them")
        return float(self._jaccard.compute())

    def report(self) -> dict[str, Any]:
        """miou, the share of pixels that are right, and iou by class, None for one in neither truth nor answers."""
        counts = self._jaccard.confmat.double()  # [C, C]: rows are the truth, columns the answers
        right, total = counts.diagonal(), counts.sum()
        union = counts.sum(0) + counts.sum(1) - right
        return {
            "miou": self.compute(),
            "pixel_accuracy": float(right.sum() / total),
            "iou": {
                label: float(right[index] / union[index]) if union[index] else None
                for index, label in enumerate(self._labels)
            },
        }
