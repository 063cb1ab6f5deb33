"""How an image of any size fills the input of a network, and how boxes and maps come back to the image's own pixels.

- "stretch" resizes the image to the input, whatever that does to its aspect.
- "letterbox" keeps the aspect: the image is resized to the largest size that fits, centred, and padded with grey. An
  image whose aspect is the input's has no padding: the result is that of "stretch", byte by byte.

Images are resized by Pillow's bilinear filter, which is antialiased. Training, evaluation, export and predictions all
read images through ``fit_image``.

Shape legend: H x W pixels of an image, h x w pixels of the input, M boxes (x0, y0, x1, y1) in pixels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeVar, get_args

import numpy as np
from PIL import Image

from export.runners import Array

if TYPE_CHECKING:
    from torch import Tensor

Fit = Literal["stretch", "letterbox"]
FITS: tuple[Fit, ...] = get_args(Fit)
PADDING = 114
"""Grey value beside a letterboxed image, of all channels: that of YOLO networks (github.com/ultralytics/yolov5), and
within .32 of the mean of ImageNet's channels in units of their standard deviation."""

BoxArray = TypeVar("BoxArray", Array, "Tensor")


class Placement(NamedTuple):
    """Where an image lies in the input of a network, which it may not fill, or exceed."""

    image: tuple[int, int]
    """(H, W)."""
    inner: tuple[int, int]
    """(height, width) of the resized image."""
    top: int
    """Row of the input at which the resized image starts; negative where its first rows are cut off."""
    left: int
    outer: tuple[int, int]
    """(h, w)."""

    @property
    def fills(self) -> bool:
        """Whether the resized image is all of the input and nothing else."""
        return self.inner == self.outer

    @property
    def row(self) -> tuple[int, ...]:
        """All numbers but those of ``outer``, for batches of one input size: (H, W, height, width, top, left)."""
        return *self.image, *self.inner, self.top, self.left

    @classmethod
    def of_row(cls, row: Sequence[int], outer: tuple[int, int]) -> Self:
        """The inverse of ``row``."""
        height, width, inner_height, inner_width, top, left = row
        return cls((height, width), (inner_height, inner_width), top, left, outer)

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Padding on the left, on the right, above and below, in pixels, as ``torch.nn.functional.pad`` has them."""
        (inner_height, inner_width), (height, width) = self.inner, self.outer
        return self.left, width - inner_width - self.left, self.top, height - inner_height - self.top

    def boxes_to_input(self, xyxy: BoxArray) -> BoxArray:
        """Boxes [M, 4] in pixels of the image -> in pixels of the input; beside padding, cut where it begins."""
        placed = xyxy + 0.0
        for axis, start in ((0, self.left), (1, self.top)):
            length, inner = self.image[1 - axis], self.inner[1 - axis]
            along = placed[..., axis::2] * (inner / length)
            placed[..., axis::2] = along if self.fills else along.clip(0, inner) + start
        return placed

    def boxes_to_original(self, xyxy: BoxArray, *, clip: bool = True) -> BoxArray:
        """Boxes [M, 4] in pixels of the input -> in pixels of the image; with ``clip``, cut at its borders."""
        placed = xyxy + 0.0
        for axis, start in ((0, self.left), (1, self.top)):
            length, inner = self.image[1 - axis], self.inner[1 - axis]
            along = (placed[..., axis::2] - start) * (length / inner)
            placed[..., axis::2] = along.clip(0, length) if clip else along
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
    return centred(image, size, min(side / length for side, length in zip(size, image, strict=True)))


def centred(image: tuple[int, int], size: tuple[int, int], scale: float) -> Placement:
    """The placement of an image of (H, W), resized by ``scale``, at the centre of an input of ``size``."""
    inner = (max(1, round(image[0] * scale)), max(1, round(image[1] * scale)))
    return Placement(image, inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, size)


def fit_image(image: Image.Image, size: tuple[int, int], fit: Fit) -> tuple[Array, Placement]:
    """An upright RGB image as uint8 [h, w, 3] of ``size``, and where it lies in it; resized with antialiasing."""
    placement = place((image.height, image.width), size, fit)
    pixels = image.resize(placement.inner[::-1], Image.Resampling.BILINEAR)
    if not placement.fills:
        padded = Image.new("RGB", size[::-1], (PADDING,) * 3)
        padded.paste(pixels, (placement.left, placement.top))
        pixels = padded
    return np.array(pixels), placement
