"""How images fit the input of a network (``export.placement``), for torch.

``Kind.to_input`` (``fbnetv5.data.targets``) moves the labels with their image; padded pixels have none.

Shape legend: H x W pixels of an image, h x w pixels of the input.
"""

from collections.abc import Collection

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from export import placement
from export.errors import UserError
from export.placement import FITS, Fit, Placement
from fbnetv5.data.resolution import Resolution


def fit_image(image: Image.Image, size: Resolution, fit: Fit) -> tuple[Tensor, Placement]:
    """An upright RGB image as uint8 [3, h, w] of ``size``, and where it lies in it."""
    pixels, placed = placement.fit_image(image, size, fit)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), placed


def map_to_original(values: Tensor, placed: Placement, mode: str = "bilinear") -> Tensor:
    """One map, of any resolution and covering the input -> [H, W], resampled.

    Args:
        values: of the map.
        placed: where the image lies in the input.
        mode: "bilinear", or "nearest-exact" for ids.
    """
    plane = values[None, None].float()
    if not placed.fills:
        plane = _resampled(plane, placed.outer, mode)
        plane = plane[..., placed.top : placed.top + placed.inner[0], placed.left : placed.left + placed.inner[1]]
    return _resampled(plane, placed.image, mode)[0, 0]


def _resampled(values: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if values.shape[-2:] == size:
        return values
    return functional.interpolate(values, size=size, mode=mode, align_corners=False if mode == "bilinear" else None)


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
