"""Labels that are images themselves: a value for each pixel, in a file named like the image.

    masks/NAME.png      class id of each pixel, grey or palette; 255 where unknown
    saliency/NAME.png   salient pixels, grey or black and white: 1 from half of the file's largest value on
    edges/NAME.png      boundaries of objects, in the same form
    depth/NAME.png      16-bit grey, the distance in millimetres; 0 where unknown

The depth format is that of the usual RGB-D data sets (BOP, ScanNet and TUM after scaling); values are read in metres.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import Header, list_image_names, read_pixels
from fbnetv5.data.targets import CLASS_MAP, DENSE_MAP, LINE_MAP, Kind

Array = NDArray[Any]


def read_class_ids(path: str | Path) -> NDArray[np.uint8]:
    """The class ids of a mask, uint8 [H, W], upright."""
    ids: NDArray[np.uint8] = read_pixels(path).astype(np.uint8)
    return ids


def read_binary(path: str | Path) -> NDArray[np.uint8]:
    """1 where a file has at least half of its largest value, else 0: uint8 [H, W], upright."""
    values = read_pixels(path)
    binary: NDArray[np.uint8] = (values * 2.0 >= max(1, values.max())).astype(np.uint8)
    return binary


def read_depth(path: str | Path) -> NDArray[np.float32]:
    """Millimetres in a file -> metres, NaN for 0: float32 [H, W], upright."""
    millimetres = read_pixels(path).astype(np.float32)
    return np.where(millimetres == 0, np.float32("nan"), millimetres / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFormat:
    """The file format of one target."""

    folder: str
    kind: Kind
    read: Callable[[str | Path], Array]
    modes: tuple[str, ...]
    """Pillow's modes that such a file may have."""
    advice: str
    """The end of "Save it ..." in messages about a file of another mode."""


_GREY_MODES = ("L", "P", "1")
FORMATS: Mapping[str, MapFormat] = {
    "mask": MapFormat(
        folder="masks",
        kind=CLASS_MAP,
        read=read_class_ids,
        modes=_GREY_MODES,
        advice="with one class id a pixel, grey or palette",
    ),
    "saliency": MapFormat(
        folder="saliency", kind=CLASS_MAP, read=read_binary, modes=("L", "1"), advice="grey with 8 bits, white for yes"
    ),
    "edges": MapFormat(
        folder="edges", kind=LINE_MAP, read=read_binary, modes=("L", "1"), advice="grey with 8 bits, white for yes"
    ),
    "depth": MapFormat(
        folder="depth",
        kind=DENSE_MAP,
        read=read_depth,
        modes=("I;16", "I;16B", "I"),
        advice="grey with 16 bits, in millimetres",
    ),
}
"""By name of the target."""


def find_maps(folder: Path, target: str, sizes: Mapping[str, tuple[int, int]], headers: HeaderIndex) -> dict[str, str]:
    """The paths of one target's files by stem, headers checked; {} where there is no such folder.

    Args:
        folder: that contains the files.
        target: whose files they are, a key of ``FORMATS``.
        sizes: (H, W) of each image by stem.
        headers: of the data set.

    Raises:
        UserError: a file belongs to no image, or has another size or a form that the target does not allow.
    """
    maps: dict[str, str] = {}
    for name in list_image_names(folder) if folder.is_dir() else ():
        stem, path = name.rpartition(".")[0], f"{folder}{os.sep}{name}"
        if not name.lower().endswith(".png"):
            raise UserError(f"{path} is no .png, which loses no value as others do. Save the {target} as {stem}.png")
        if stem not in sizes:
            raise UserError(f"{path} is the {target} of no image: images/ has no {stem!r}. Rename or remove it")
        _check_header(path, headers.header(path), target, sizes[stem])
        maps[stem] = path
    return maps


def _check_header(path: str, header: Header, target: str, size: tuple[int, int]) -> None:
    allowed = FORMATS[target]
    if header.format != "PNG":
        raise UserError(f"{path} is {header.format} under the name of a PNG. Save it {allowed.advice}, as PNG")
    if header.mode not in allowed.modes:
        raise UserError(f"{path} has mode {header.mode}, which no {target} file has. Save it {allowed.advice}")
    if header.is_narrow_grey:
        raise UserError(f"{path} has grey of fewer than 8 bits, which loses the values. Save it with 8")
    if header.size != size:
        (h, w), (height, width) = header.size, size
        raise UserError(f"{path} is {w}x{h}, its image is {width}x{height}. Save it at the image's size")
