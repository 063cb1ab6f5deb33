"""From an image to the input of a teacher; ``Placement`` leads back from the pixels of the input to those of the image.

Shape legend: N images, H x W pixels of an image, h x w pixels of the input.
"""

from dataclasses import dataclass
from math import floor
from typing import Literal, Self

from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from export.placement import PADDING, Placement, centred, place

Fit = Literal["stretch", "letterbox", "crop"]
Interpolation = Literal["bilinear", "bicubic"]


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
    """The size as a share of the resized image's shorter side with "crop", and of each of its sides with "stretch", of
    which the middle remains: timm's ``crop_pct``."""
    interpolation: Interpolation = "bilinear"
    bgr: bool = False
    channels_last: bool = False

    @property
    def text(self) -> str:
        """How images become the input, for people, e.g. "images letterboxed to 416x416"."""
        if self.size is None:
            return "images prepared by its library"
        verb = {"stretch": "stretched", "letterbox": "letterboxed", "crop": "cropped"}[self.fit]
        return f"images {verb} to {self.size[0]}x{self.size[1]}"

    def placement(self, image: tuple[int, int]) -> Placement:
        """Where an image of (H, W) lies in the input."""
        outer = image if self.size is None else self.size
        if self.fit == "stretch" and self.crop_share < 1:
            height, width = (floor(side / self.crop_share) for side in outer)
            top, left = (round((inner - side) / 2) for inner, side in zip((height, width), outer, strict=True))
            return Placement(image, (height, width), -top, -left, outer)  # rounded as by timm and torchvision
        if self.fit != "crop":
            return place(image, outer, self.fit)
        shorter = max(side / length for side, length in zip(outer, image, strict=True))
        return centred(image, outer, shorter / self.crop_share)

    def __call__(self, images: Tensor) -> Tensor:
        """Images of one size [N, 3, H, W], RGB from 0 to 255 -> float32 [N, 3, h, w], or [N, h, w, 3]."""
        placement = self.placement((images.shape[-2], images.shape[-1]))
        if placement.inner != placement.image:
            mode = InterpolationMode(self.interpolation)
            images = transforms.resize(images, list(placement.inner), interpolation=mode, antialias=True)
        pixels = images.float()
        if not placement.fills:
            pixels = functional.pad(pixels, placement.margins, value=PADDING)
        if self.bgr:
            pixels = pixels.flip(1)
        mean, std = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        values = (pixels * self.scale - mean) / std
        return values.permute(0, 2, 3, 1).contiguous() if self.channels_last else values

    @classmethod
    def unchanged(cls) -> Self:
        """Images at their own size, with values from 0 to 255, for libraries that prepare images themselves."""
        return cls(size=None, scale=1.0)
