"""How an image of any size fills the input of a network, and how boxes and maps come back to the image's own pixels.

- "stretch" resizes the image to the input, whatever that does to its aspect.
- "letterbox" keeps the aspect: the image is resized to the largest size that fits, centred, and padded with grey. An
  image whose aspect is the input's has no padding: the result is that of "stretch", byte by byte.

Images are resized by Pillow's bilinear filter, which is antialiased. Training, evaluation and export all read images
through ``fit_image``. ``Kind.to_input`` (``fbnetv5.data.targets``) moves the labels; padded pixels have none.

Shape legend: H x W pixels of an image, h x w pixels of the input, M boxes (x0, y0, x1, y1) in pixels.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from export.errors import UserError
from fbnetv5.data.resolution import Resolution

Fit = Literal["stretch", "letterbox"]
FITS: tuple[Fit, ...] = get_args(Fit)
PADDING = 114
"""Grey value beside a letterboxed image, of all channels: that of YOLO networks (github.com/ultralytics/yolov5), and
within .32 of the mean of ImageNet's channels in units of their standard deviation."""


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

    def boxes_to_input(self, xyxy: Tensor) -> Tensor:
        """Boxes [M, 4] in pixels of the image -> in pixels of the input; beside padding, cut where it begins."""
        (height, width), (inner_height, inner_width) = self.image, self.inner
        placed = xyxy * torch.tensor([inner_width / width, inner_height / height]).repeat(2)
        if self.fills:
            return placed
        corner, end = torch.tensor([self.left, self.top]), torch.tensor(self.inner[::-1])
        return torch.minimum(placed.clamp(min=0), end.repeat(2)) + corner.repeat(2)

    def boxes_to_original(self, xyxy: Tensor, *, clip: bool = True) -> Tensor:
        """Boxes [M, 4] in pixels of the input -> in pixels of the image; with ``clip``, cut at its borders."""
        (height, width), (inner_height, inner_width) = self.image, self.inner
        scale = xyxy.new_tensor([width / inner_width, height / inner_height]).repeat(2)
        placed = (xyxy - xyxy.new_tensor([self.left, self.top]).repeat(2)) * scale
        if not clip:
            return placed
        return torch.minimum(placed.clamp(min=0), xyxy.new_tensor([width, height]).repeat(2))

    def map_to_original(self, values: Tensor, mode: str = "bilinear") -> Tensor:
        """One map, of any resolution and covering the input -> [H, W], resampled.

        Args:
            values: of the map.
            mode: "bilinear", or "nearest-exact" for ids.
        """
        plane = values[None, None].float()
        if not self.fills:
            plane = _resampled(plane, self.outer, mode)
            plane = plane[..., self.top : self.top + self.inner[0], self.left : self.left + self.inner[1]]
        return _resampled(plane, self.image, mode)[0, 0]


def _resampled(values: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if values.shape[-2:] == size:
        return values
    return functional.interpolate(values, size=size, mode=mode, align_corners=False if mode == "bilinear" else None)


def place(image: tuple[int, int], size: tuple[int, int], fit: Fit) -> Placement:
    """Where an image of (H, W) lies in an input of ``size``."""
    if fit == "stretch":
        return Placement(image, size, 0, 0, size)
    return centred(image, size, min(side / length for side, length in zip(size, image, strict=True)))


def centred(image: tuple[int, int], size: tuple[int, int], scale: float) -> Placement:
    """The placement of an image of (H, W), resized by ``scale``, at the centre of an input of ``size``."""
    inner = (max(1, round(image[0] * scale)), max(1, round(image[1] * scale)))
    return Placement(image, inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, size)


def fit_image(image: Image.Image, size: Resolution, fit: Fit) -> tuple[Tensor, Placement]:
    """An upright RGB image as uint8 [3, h, w] of ``size``, and where it lies in it."""
    placement = place((image.height, image.width), size, fit)
    pixels = image.resize(placement.inner[::-1], Image.Resampling.BILINEAR)
    if not placement.fills:
        padded = Image.new("RGB", size[::-1], (PADDING,) * 3)
        padded.paste(pixels, (placement.left, placement.top))
        pixels = padded
    return torch.from_numpy(np.array(pixels).transpose(2, 0, 1).copy()), placement


def parse_fit(text: str) -> Fit:
    """The fit of this name.

    Raises:
        UserError: there is none.
    """
    for fit in FITS:
        if text == fit:
            return fit
    raise UserError(f"unknown fit {text!r}; there are: {', '.join(FITS)}")


def default_fit(targets: Collection[str], *, is_folder: bool) -> Fit:
    """The fit of a new run: letterbox if it learns boxes from a user's folder, which may have images of any aspect."""
    return "letterbox" if is_folder and "boxes" in targets else "stretch"
