"""From an image to the input of a teacher, and from the pixels of that input back to those of the image.

Shape legend: N images, H x W pixels of an image, h x w pixels of the input.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

Fit = Literal["stretch", "letterbox", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
PADDING = 114.0
"""Grey value beside a letterboxed image, as YOLO networks are trained with (github.com/ultralytics/yolov5)."""


class Placement(NamedTuple):
    """Where an image lies in the input of a teacher, which it may not fill, or exceed."""

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

    def boxes(self, xyxy: Tensor) -> Tensor:
        """Boxes [M, 4] in pixels of the input -> in pixels of the image, cut at its borders."""
        (height, width), (inner_height, inner_width) = self.image, self.inner
        scale = xyxy.new_tensor([width / inner_width, height / inner_height]).repeat(2)
        placed = (xyxy - xyxy.new_tensor([self.left, self.top]).repeat(2)) * scale
        return torch.minimum(placed.clamp(min=0), xyxy.new_tensor([width, height]).repeat(2))

    def plane(self, values: Tensor, mode: str = "bilinear") -> Tensor:
        """One map of a teacher, of any resolution and covering its input -> [H, W], resampled."""
        plane = values[None, None].float()
        if not self.fills:
            plane = _resampled(plane, self.outer, mode)
            plane = plane[..., self.top : self.top + self.inner[0], self.left : self.left + self.inner[1]]
        return _resampled(plane, self.image, mode)[0, 0]


def _resampled(values: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if values.shape[-2:] == size:
        return values
    return functional.interpolate(values, size=size, mode=mode, align_corners=False if mode == "bilinear" else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The steps from uint8 images to a teacher's input: resize, scale, subtract ``mean``, divide by ``std``."""

    size: tuple[int, int] | None
    """(h, w); None: images keep their size, and only images of one size share a batch."""
    scale: float = 1 / 255
    """Factor of the 8-bit values."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Of each channel of the input, after scaling."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    fit: Fit = "stretch"
    """"stretch" resizes to the size, "letterbox" keeps the aspect and pads, "crop" keeps the aspect and cuts."""
    crop_share: float = 1.0
    """With "crop": the size as a share of the resized image's shorter side, timm's ``crop_pct``."""
    interpolation: Interpolation = "bilinear"
    bgr: bool = False
    channels_last: bool = False

    def placement(self, image: tuple[int, int]) -> Placement:
        """Where an image of (H, W) lies in the input."""
        outer = image if self.size is None else self.size
        if self.fit == "stretch":
            return Placement(image, outer, 0, 0, outer)
        scales = [side / length for side, length in zip(outer, image, strict=True)]
        scale = min(scales) if self.fit == "letterbox" else max(scales) / self.crop_share
        inner = (max(1, round(image[0] * scale)), max(1, round(image[1] * scale)))
        return Placement(image, inner, (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2, outer)

    def __call__(self, images: Tensor) -> Tensor:
        """Images of one size [N, 3, H, W], RGB from 0 to 255 -> float32 [N, 3, h, w], or [N, h, w, 3]."""
        place = self.placement((images.shape[-2], images.shape[-1]))
        if place.inner != place.image:
            mode = InterpolationMode(self.interpolation)
            images = transforms.resize(images, list(place.inner), interpolation=mode, antialias=True)
        pixels = images.float()
        if not place.fills:
            right, bottom = (
                (place.outer[1] - place.inner[1] - place.left),
                (place.outer[0] - place.inner[0] - place.top),
            )
            pixels = functional.pad(pixels, (place.left, right, place.top, bottom), value=PADDING)
        if self.bgr:
            pixels = pixels.flip(1)
        mean, std = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        values = (pixels * self.scale - mean) / std
        return values.permute(0, 2, 3, 1).contiguous() if self.channels_last else values

    @classmethod
    def unchanged(cls) -> Self:
        """Images at their own size, with values from 0 to 255, for libraries that prepare images themselves."""
        return cls(size=None, scale=1.0)
