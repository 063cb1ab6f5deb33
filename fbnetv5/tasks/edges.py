"""Edges: the boundaries of objects, read from all four paths (``fbnetv5.tasks.pixels``).

Loss: binary cross entropy in which the pixels on and off edges weigh the same in each image (HED, arXiv 1504.06375,
equation 2): edges are a few percent of all pixels. Metric: the F-measure at the one threshold that is best for the
whole data set (optimal data-set scale, ODS). It is simpler than the BSDS benchmark's (Martin et al., TPAMI 2004):
predictions are not thinned, and a pixel counts as correct if any pixel of the other map lies within the tolerance,
without matching pixels one to one. Its values are comparable with each other, not with published ODS figures.

Shape legend: N images, H x W pixels of the image, T thresholds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from export.errors import UserError
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.pixels import THRESHOLDS, BinaryTask, binary_losses, upsample
from fbnetv5.tasks.task import Metric, MetricInfo

TOLERANCE = 0.0075
"""Maximum error of a correct pixel's place, as a share of the image's diagonal (BSDS benchmark); at least a pixel."""
MIN_SHARE = 0.01
"""The share of pixels on edges, or off them, counts as at least this in the weights: an image may have no edge."""


class Edges(BinaryTask):
    """One target, the edges map."""

    name = "edges"
    order = 5
    targets = ("edges",)
    metric = MetricInfo(name="ods_f")
    training: ClassVar[Mapping[str, Any]] = {}
    """No random scale: lines one pixel wide break when they are downscaled."""

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Balanced binary cross entropy in nats, over each image's pixels that are not IGNORE: -> [N]."""
        truth = batch.targets["edges"]
        valid, on_edge = truth != IGNORE, truth == 1
        share = on_edge.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
        share = share.clamp(MIN_SHARE, 1 - MIN_SHARE)[:, None, None]
        return binary_losses(upsample(raw.float())[:, 0], truth, torch.where(on_edge, 1 - share, share))

    def new_metric(self) -> Metric:
        return OptimalFMeasure()


class OptimalFMeasure:
    """Precision and recall of edge pixels over all images, and the highest F-measure over thresholds."""

    def __init__(self) -> None:
        self._counts = torch.zeros(4, len(THRESHOLDS), dtype=torch.int64)
        """[4, T]: correct predicted pixels, predicted pixels, detected true pixels, true pixels."""
        self._pixels = 0

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        probability, truth = outputs[0][:, 0].detach().float().cpu(), batch.targets["edges"].cpu()
        valid, on_edge = truth != IGNORE, truth == 1
        probability = probability.masked_fill(~valid, 0.0)
        reach = max(1, round(TOLERANCE * math.hypot(*truth.shape[1:])))
        near_truth = _dilate(on_edge.float(), reach) > 0
        near_prediction = _dilate(probability, reach)
        for index, threshold in enumerate(THRESHOLDS):
            predicted, detected = probability >= threshold, (near_prediction >= threshold) & on_edge
            correct = predicted & near_truth
            self._counts[:, index] += torch.stack([mask.sum() for mask in (correct, predicted, detected, on_edge)])
        self._pixels += int(valid.sum())

    def merge(self, other: "OptimalFMeasure") -> None:
        self._counts += other._counts
        self._pixels += other._pixels

    def compute(self) -> float:
        """The F-measure, 0..1.

        Raises:
            UserError: no image had a labelled pixel.
        """
        if not self._pixels:
            raise UserError("no labelled pixels in the test images: ods_f needs an edges file for at least one")
        return float(self._f()[2].max())

    def report(self) -> dict[str, Any]:
        """ods_f, the threshold that reaches it, and precision and recall at that threshold."""
        precision, recall, f = self._f()
        best = int(f.argmax())
        return {
            "ods_f": self.compute(),
            "threshold": round(float(THRESHOLDS[best]), 2),
            "precision": float(precision[best]),
            "recall": float(recall[best]),
        }

    def _f(self) -> tuple[Tensor, Tensor, Tensor]:
        """Precision, recall and F-measure, float64 [T] each; 0 where nothing is predicted or labelled."""
        correct, predicted, detected, true = self._counts.double()
        precision, recall = correct / predicted.clamp(min=1), detected / true.clamp(min=1)
        return precision, recall, 2 * precision * recall / (precision + recall).clamp(min=1e-12)


def _dilate(values: Tensor, reach: int) -> Tensor:
    """[N, H, W]: the largest value within ``reach`` pixels, diagonals included."""
    return functional.max_pool2d(values[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
