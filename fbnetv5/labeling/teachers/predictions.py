"""What a teacher predicts for one image, at the image's own pixels.

Shape legend: C classes, M boxes, H x W pixels of the image.
"""

from typing import NamedTuple, TypeAlias

from torch import Tensor


class ClassScores(NamedTuple):
    """The class of an image."""

    probabilities: Tensor
    """float32 [C]; their sum is 1."""


class ScoredBoxes(NamedTuple):
    """Objects of an image, from the highest score to the lowest."""

    xyxy: Tensor
    """float32 [M, 4]: (x0, y0, x1, y1) in pixels of the image, inside of it."""
    scores: Tensor
    """float32 [M], 0..1."""
    labels: Tensor
    """int64 [M]: class ids of the teacher."""


class ScoredMap(NamedTuple):
    """A class for every pixel."""

    ids: Tensor
    """int64 [H, W]: class ids of the teacher."""
    confidences: Tensor
    """float32 [H, W]: the probability of each pixel's class."""


class ProbabilityMap(NamedTuple):
    """A yes or no for every pixel."""

    probabilities: Tensor
    """float32 [H, W] of "yes"."""


class DenseValues(NamedTuple):
    """Numbers of every pixel, without a confidence."""

    values: Tensor
    """float32 [H, W], depth in metres, or [3, H, W], unit vectors; NaN where unknown."""


Prediction: TypeAlias = ClassScores | ScoredBoxes | ScoredMap | ProbabilityMap | DenseValues
