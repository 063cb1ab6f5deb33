"""Normals: the direction that the surface at each pixel faces, read from all four paths (``fbnetv5.tasks.pixels``).

A normal is a unit vector. The head predicts a vector of any length, which is upsampled and then divided by its length.
The divisor is at least ``MIN_LENGTH``, so that rounding in half precision or int8 is magnified at most by its inverse:
between opposite normals, interpolated vectors are nearly 0.

Loss: mean absolute difference of the components, after the division. It is the loss of ASTMT (arXiv 1904.08918) and
BMTAS (arXiv 2008.10292), whose published weights of task losses assume its scale; ``1 - cosine`` has another, and its
gradient vanishes for opposite vectors. Metric: mean angle between predicted and true normals over all pixels of all
images, in degrees, with the figures that are usual since Eigen and Fergus (arXiv 1411.4734).

Shape legend: N images, H x W pixels of the image.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.sample import Batch
from fbnetv5.tasks.pixels import PATHS, PixelHead, upsample
from fbnetv5.tasks.task import Metric, MetricInfo, Task

MIN_LENGTH = 0.1
"""Shorter raw vectors are divided by this instead of by their length; they stay shorter than 1."""
LIMITS = {"within_11.25": 11.25, "within_22.5": 22.5, "within_30": 30.0}
"""Figures by name: the share of pixels whose angle is below this many degrees (Eigen and Fergus, as above)."""
BINS_PER_DEGREE = 100
"""Resolution of the histogram of angles from which the median is read."""


class Normals(Task):
    """Raw: vectors [N, 3, H/4, W/4]; deployable: unit vectors (x, y, z) [N, 3, H, W]."""

    name = "normals"
    order = 7
    targets = ("normals",)
    paths = PATHS
    metric = MetricInfo(name="mean_angle", unit="degrees", lower_is_better=True)
    output_names = ("normals",)
    training: ClassVar[Mapping[str, Any]] = {"scale": (0.7, 1.4)}

    def build_head(self, channels: Sequence[int]) -> PixelHead:
        return PixelHead(channels, outputs=3)

    def losses(self, raw: Tensor, batch: Batch) -> Tensor:
        """Mean absolute difference of the components over each image's labelled pixels: -> [N]."""
        truth: Tensor = batch.targets["normals"]
        valid = ~truth.isnan()
        errors = (self.deploy(raw.float())[0] - torch.where(valid, truth, 0.0)).abs() * valid
        return errors.sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp(min=1)

    def distillation_losses(self, raw: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Mean absolute difference of the components: -> [N]."""
        own, other = (self.deploy(each.float())[0] for each in (raw, teacher))
        return (own - other).abs().mean((1, 2, 3))

    def deploy(self, raw: Tensor) -> tuple[Tensor, ...]:
        vectors = upsample(raw)
        largest = vectors.abs().amax(1, keepdim=True)
        vectors = vectors / largest.clamp(min=MIN_LENGTH)  # squares of 256 and more overflow in half precision
        squared_length = vectors.square().sum(1, keepdim=True)
        return (vectors / squared_length.clamp(min=1.0).sqrt(),)

    def new_metric(self) -> Metric:
        return AngularError()


class AngularError:
    """Angles between predicted and true normals over all labelled pixels of all images."""

    def __init__(self) -> None:
        self._degrees = 0.0
        self._counts = torch.zeros(180 * BINS_PER_DEGREE + 1, dtype=torch.int64)
        """Pixels by angle, in bins of ``1 / BINS_PER_DEGREE`` degrees."""
        self._within = dict.fromkeys(LIMITS, 0)
        self._pixels = 0

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        truth = batch.targets["normals"].cpu().movedim(1, -1)
        valid = ~truth.isnan().any(-1)
        angles = degrees_between(outputs[0].detach().cpu().movedim(1, -1)[valid].double(), truth[valid].double())
        self._degrees += float(angles.sum())
        self._counts += torch.bincount((angles * BINS_PER_DEGREE).long(), minlength=len(self._counts))
        for name, limit in LIMITS.items():
            self._within[name] += int((angles < limit).sum())
        self._pixels += len(angles)

    def merge(self, other: "AngularError") -> None:
        self._degrees += other._degrees
        self._counts += other._counts
        for name, count in other._within.items():
            self._within[name] += count
        self._pixels += other._pixels

    def compute(self) -> float:
        """The mean angle in degrees.

        Raises:
            UserError: no image had a labelled pixel.
        """
        if not self._pixels:
            raise UserError("no labelled pixels in the test images: mean_angle needs a normals file for at least one")
        return self._degrees / self._pixels

    def report(self) -> dict[str, Any]:
        """Mean and median angle in degrees, the median to a hundredth, and the shares of pixels within each limit."""
        middle = int(torch.searchsorted(self._counts.cumsum(0), (self._pixels + 1) // 2))
        shares = {name: count / self._pixels for name, count in self._within.items()}
        return {"mean_angle": self.compute(), "median_angle": (middle + 0.5) / BINS_PER_DEGREE, **shares}


def degrees_between(ours: Tensor, theirs: Tensor) -> Tensor:
    """The angles between vectors of any length, float64 [K, 3] each: -> [K].

    They are 90 where a vector is 0, and 180 where one is not finite.
    """
    lengths = ours.norm(dim=1) * theirs.norm(dim=1)
    cosines: Tensor = (ours * theirs).sum(1) / lengths.clamp(min=1e-12)
    return cosines.clamp(-1, 1).acos().rad2deg().nan_to_num(nan=180.0)
