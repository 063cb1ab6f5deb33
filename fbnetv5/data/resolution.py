"""Sizes of images and networks: (height, width) in pixels, multiples of the coarsest path's stride."""

import re
from collections.abc import Sequence
from numbers import Integral
from operator import index

from export.errors import UserError

Resolution = tuple[int, int]
"""(height, width) in pixels, multiples of 32."""
DEPLOY_RESOLUTION: Resolution = (224, 224)
MAX_SIDE = 65_536
"""Of an image, in pixels: beyond it counts overflow."""


def check_resolution(resolution: Resolution) -> Resolution:
    """``resolution`` if every path divides it.

    Raises:
        UserError: not two positive multiples of 32, or larger than any image a network is deployed on.
    """
    if len(resolution) != 2 or any(side % 32 or not 0 < side <= MAX_SIDE for side in resolution):
        sides = "x".join(map(str, resolution))
        raise UserError(f"resolution {sides}: height and width must be multiples of 32 up to {MAX_SIDE}")
    return resolution


def parse_resolution(size: str | int | Sequence[int]) -> Resolution:
    """(height, width) from "224", 224, "320x640" or (320, 640).

    Raises:
        UserError: not one or two multiples of 32.
    """
    if isinstance(size, int | Integral):  # also a number of NumPy
        return check_resolution((int(size), int(size)))
    if not isinstance(size, str):
        try:
            return check_resolution(tuple(index(side) for side in size))  # type: ignore[arg-type]
        except TypeError:
            raise UserError(f"resolution {size!r}: height and width must be whole numbers") from None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", size.strip(), re.ASCII)
    if not match:
        raise UserError(f"resolution {size!r} is not HEIGHTxWIDTH, such as 224x224")
    return check_resolution((int(match[1]), int(match[2] or match[1])))
