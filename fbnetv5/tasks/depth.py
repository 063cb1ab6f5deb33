"""Depth: the distance of every pixel, read from all four paths (``fbnetv5.tasks.pixels``).

The head predicts a number whose softplus is the depth: positive, and nearly linear, so that rounding in half precision
or int8 is not magnified as by an exponential. The loss is the mean absolute error of the logarithm of the depth, so
that a relative error weighs the same near and far (Eigen et al., arXiv 1406.2283, compare logarithms for the same
reason). Metric: root mean square error over all pixels, in metres; on the demo scenes a layer counts as one.

Shape legend: N images, H x W pixels of the image.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from export.errors import UserError
from fbnetv5.data.sample import Batch
from fbnetv5.tasks.pixels import ScalarTask, upsample
from fbnetv5.tasks.task import Metric, MetricInfo

MIN_DEPTH = 1e-3
"""Metres: the minimum of predictions, so that their logarithm is finite."""
RATIOS = {"delta_1.25": 1.25, "delta_1.25^2": 1.25**2, "delta_1.25^3": 1.25**3}
"""Figures by name: the share of pixels whose ratio to the truth is below this factor (Eigen et al., as above)."""


class Depth(ScalarTask):
    """Raw: before the softplus, [N, 1, H/4, W/4]; deployable: depth in metres [N, 1, H, W]."""

    name = "depth"
    order = 6
    targets = ("depth",)
    metric = MetricInfo(name="rmse", unit="m", lower_is_better=True)
    output_names = ("depth",)
    training: ClassVar[Mapping[str, Any]] = {}
    """No random scale: an enlarged object would have to be nearer."""

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error of the log depth over each image's labelled pixels: -> [N]."""
        truth: Tensor = batch.targets["depth"]
        valid = ~truth.isnan()
        predicted, true = self.deploy(raw.float())[0][:, 0], torch.where(valid, truth, 1.0).clamp(min=MIN_DEPTH)
        errors = (predicted.log() - true.log()).abs() * valid
        return errors.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)

    def distillation_losses(self, raw: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Mean absolute difference of the log depth: -> [N]."""
        own, other = (self.deploy(each.float())[0].log() for each in (raw, teacher))
        return (own - other).abs().mean((1, 2, 3))

    def deploy(self, raw: Tensor) -> tuple[Tensor, ...]:
        return (functional.softplus(upsample(raw)) + MIN_DEPTH,)

    def new_metric(self) -> Metric:
        return DepthError()


class DepthError:
    """Errors of predicted depth over all labelled pixels of all images."""

    def __init__(self) -> None:
        self._squares = self._relative = 0.0
        self._within = dict.fromkeys(RATIOS, 0)
        self._pixels = 0

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        truth = batch.targets["depth"].cpu()
        valid = ~truth.isnan()
        true, predicted = truth[valid].double(), outputs[0][:, 0].detach().cpu()[valid].double()
        true = true.clamp(min=MIN_DEPTH)
        self._squares += float((predicted - true).square().sum())
        self._relative += float(((predicted - true).abs() / true).sum())
        ratio = torch.maximum(predicted / true, true / predicted.clamp(min=MIN_DEPTH))
        for name, limit in RATIOS.items():
            self._within[name] += int((ratio < limit).sum())
        self._pixels += len(true)

    def merge(self, other: "DepthError") -> None:
        self._squares += other._squares
        self._relative += other._relative
        for name, count in other._within.items():
            self._within[name] += count
        self._pixels += other._pixels

    def compute(self) -> float:
        """Root mean square error in metres.

        Raises:
            UserError: no image had a labelled pixel.
        """
        if not self._pixels:
            raise UserError("no labelled pixels in the test images: rmse needs a depth file for at least one")
        return math.sqrt(self._squares / self._pixels)

    def report(self) -> dict[str, Any]:
        """The rmse in metres, the mean relative error, and the shares of pixels within each ratio."""
        shares = {name: count / self._pixels for name, count in self._within.items()}
        return {"rmse": self.compute(), "abs_rel": self._relative / self._pixels, **shares}
