"""Where an image lies in the input of a network, and how boxes and maps come back to the image's own pixels.

- "stretch" resizes the image to the input, whatever that does to its aspect.
- "letterbox" keeps the aspect: the image is resized to the largest size that fits, centred, and padded with grey.

Shape legend: H x W pixels of an image, h x w pixels of the input, M boxes (x0, y0, x1, y1) in pixels.
"""

from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from export.runners import Array

Fit = Literal["stretch", "letterbox"]
PADDING = 114
"""Grey value beside a letterboxed image, of all channels: that of YOLO networks (github.com/ultralytics/yolov5)."""


class Placement(NamedTuple):
    """Where an image lies in the input of a network."""

    image: tuple[int, int]
    """(H, W)."""
    inner: tuple[int, int]
    """(height, width) of the resized image."""
    top: int
    """Row of the input at which the resized image starts."""
    left: int
    outer: tuple[int, int]
    """(h, w)."""

    def boxes_to_original(self, xyxy: Array) -> Array:
        """Boxes [M, 4] in pixels of the input -> in pixels of the image, cut at its borders."""
        (height, width), (inner_height, inner_width) = self.image, self.inner
        corner = np.array([self.left, self.top] * 2, dtype=np.float32)
        scale = np.array([width / inner_width, height / inner_height] * 2, dtype=np.float32)
        placed: Array = np.clip((xyxy - corner) * scale, 0, np.array([width, height] * 2, dtype=np.float32))
        return placed

    def map_to_original(self, values: Array) -> Array:
        """One map, of any resolution and covering the input -> float32 [H, W], resampled bilinearly."""
        plane = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        if values.shape != self.outer:
            plane = plane.resize(self.outer[::-1], Image.Resampling.BILINEAR)
        inside = plane.crop((self.left, self.top, self.left + self.inner[1], self.top + self.inner[0]))
        return np.array(inside.resize(self.image[::-1], Image.Resampling.BILINEAR))


def place(image: tuple[int, int], size: tuple[int, int], fit: Fit) -> Placement:
    """Where an image of (H, W) lies in an input of ``size``."""
    if fit == "stretch":
        return Placement(image, size, 0, 0, size)
    scale = min(side / length for side, length in zip(size, image, strict=True))
    inner = (max(1, round(image[0] * scale)), max(1, round(image[1] * scale)))
    return Placement(image, inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, size)


def fit_image(image: Image.Image, size: tuple[int, int], fit: Fit) -> tuple[Array, Placement]:
    """An upright RGB image as uint8 [h, w, 3] of ``size``, and where it lies in it; resized with antialiasing."""
    placement = place((image.height, image.width), size, fit)
    pixels = image.resize(placement.inner[::-1], Image.Resampling.BILINEAR)
    if placement.inner != size:
        padded = Image.new("RGB", size[::-1], (PADDING,) * 3)
        padded.paste(pixels, (placement.left, placement.top))
        pixels = padded
    return np.array(pixels), placement
