"""What networks predict for one image: values that labelling has as tensors and ``fbnetv5 predict`` as arrays.

The module needs no torch. Predictions that only one of the two has are in ``fbnetv5.labeling.teachers.decoders`` and
``fbnetv5.deploy.predict.predictions``.

Shape legend: C classes, M boxes, H x W pixels of the image.
"""

import colorsys
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from export.runners import Array

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", Array, "Tensor")

NMS_IOU = 0.6
"""Overlap above which the lower-scored of two boxes of one class is a duplicate, in networks of this library."""
TOP_K = 100
"""Boxes of an image that networks of this library return; fewer where the image has fewer cells times classes."""


class ClassScores(NamedTuple, Generic[Values]):
    """The class of an image."""

    probabilities: Values
    """float32 [C]; their sum is 1."""


class ScoredBoxes(NamedTuple, Generic[Values]):
    """Objects of an image, from the highest score to the lowest."""

    xyxy: Values
    """float32 [M, 4]: (x0, y0, x1, y1) in pixels of the image, inside of it."""
    scores: Values
    """float32 [M], 0 to 1."""
    labels: Values
    """int64 [M], class ids."""

    def above(self, min_score: float) -> "ScoredBoxes[Values]":  # type: ignore[misc]  # a generic tuple's self
        """The boxes with at least this score."""
        kept = self.scores >= min_score
        return ScoredBoxes(self.xyxy[kept], self.scores[kept], self.labels[kept])


class ProbabilityMap(NamedTuple, Generic[Values]):
    """A yes or no for every pixel."""

    probabilities: Values
    """float32 [H, W] of "yes"."""


def colour(number: int) -> tuple[int, int, int]:
    """The colour of a class in drawings, RGB from 0 to 255; neighbouring numbers differ by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
