"""Labels that are images themselves: a value for each pixel, in a file named like the image.

    masks/NAME.png      class id of each pixel, grey or palette; 255 where unknown
    parts/NAME.png      id of the part at each pixel, in the same form
    saliency/NAME.png   salient pixels, grey or black and white: 1 from half of the file's largest value on
    edges/NAME.png      boundaries of objects, in the same form
    depth/NAME.png      16-bit grey, the distance in millimetres; 0 where unknown
    normals/NAME.png    RGB: the surface normal (x, y, z), each component mapped from [-1, 1] to [0, 255]; black where
                        unknown, which no unit vector is mapped to

A file may be a TIFF instead, NAME.tif or NAME.tiff, if its compression loses nothing.

The depth format is that of the usual RGB-D data sets (BOP, ScanNet and TUM after scaling); values are read in metres.
The normals format is that of PASCAL-Context in ASTMT (arXiv 1904.08918).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import UserError
from export.files import atomic_write
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import Header, list_image_names, read_pixels
from fbnetv5.data.targets import CLASS_MAP, DENSE_MAP, LINE_MAP, VECTOR_MAP, Kind

Array = NDArray[Any]

MAX_DEPTH = 65_535
"""Millimetres: the largest value of a depth file."""


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


def read_normals(path: str | Path) -> NDArray[np.float32]:
    """Colours of a file -> unit vectors, NaN for black: float32 [3, H, W], upright.

    Raises:
        UserError: the file cannot be read or has no three channels.
    """
    colours = read_pixels(path)
    if colours.shape[2:] != (3,):
        raise UserError(f"{path} is not in RGB. Save it {FORMATS['normals'].advice}")
    vectors = colours.astype(np.float32) * 2 / 255 - 1
    return unit_vectors(np.where(colours.any(-1, keepdims=True), vectors, np.float32(0)))


def class_id_pixels(ids: Array) -> Array:
    """The pixels of a file for ``read_class_ids``: uint8 [H, W]."""
    return ids.astype(np.uint8)


def binary_pixels(values: Array) -> Array:
    """The pixels of a file for ``read_binary``, white where ``values`` [H, W] are 1: uint8 [H, W]."""
    return np.where(values == 1, np.uint8(255), np.uint8(0))


def depth_pixels(metres: Array) -> Array:
    """The pixels of a file for ``read_depth``: uint16 [H, W], 0 where NaN or too far for 16 bits."""
    millimetres = np.nan_to_num(metres.astype(np.float64) * 1000, nan=0.0, posinf=0.0, neginf=0.0).round()
    return np.where((millimetres < 0) | (millimetres > MAX_DEPTH), 0, millimetres).astype(np.uint16)


def normal_pixels(vectors: Array) -> Array:
    """The pixels of a file for ``read_normals``, black where NaN: [3, H, W] -> uint8 [H, W, 3]."""
    return np.nan_to_num((vectors.transpose(1, 2, 0) + 1) * 127.5, nan=0.0).round().astype(np.uint8)


def unit_vectors(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors [H, W, 3] divided by their lengths, NaN where one is 0 or not finite: float32 [3, H, W]."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    is_vector = np.isfinite(lengths) & (lengths > 0)
    units = np.where(is_vector, vectors / np.where(is_vector, lengths, 1), np.nan)
    return np.ascontiguousarray(units.transpose(2, 0, 1), dtype=np.float32)


def borders(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """1 where a pixel's id is larger than one above, below, left or right of it: lines one pixel wide, uint8 [H, W]."""
    around = np.pad(ids, 1, mode="edge")
    lowest = np.minimum.reduce([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    lines: NDArray[np.uint8] = (lowest < ids).astype(np.uint8)
    return lines


def write_map(path: Path, target: str, value: Array) -> None:
    """Write a label of ``target``, a key of ``FORMATS``, as its file, with an atomic write.

    Raises:
        UserError: the file cannot be written.
    """
    pixels = FORMATS[target].pixels(value)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFormat:
    """The file format of one target."""

    folder: str
    kind: Kind
    read: Callable[[str | Path], Array]
    pixels: Callable[[Array], Array]
    """The inverse of ``read``: a label -> the pixels of its file."""
    modes: tuple[str, ...]
    """Pillow's modes that such a file may have."""
    advice: str
    """The end of "Save it ..." in messages about a file of another mode."""
    class_list: str | None = None
    """The top-level list in instances.json that names the classes; None where pixels have no classes."""


LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff")
_GREY_MODES = ("L", "P", "1")
FORMATS: Mapping[str, MapFormat] = {
    "mask": MapFormat(
        folder="masks",
        kind=CLASS_MAP,
        read=read_class_ids,
        pixels=class_id_pixels,
        modes=_GREY_MODES,
        advice="with one class id a pixel, grey or palette",
        class_list="mask_classes",
    ),
    "parts": MapFormat(
        folder="parts",
        kind=CLASS_MAP,
        read=read_class_ids,
        pixels=class_id_pixels,
        modes=_GREY_MODES,
        advice="with one id of a part a pixel, grey or palette",
        class_list="part_classes",
    ),
    "saliency": MapFormat(
        folder="saliency",
        kind=CLASS_MAP,
        read=read_binary,
        pixels=binary_pixels,
        modes=("L", "1"),
        advice="grey with 8 bits, white for yes",
    ),
    "edges": MapFormat(
        folder="edges",
        kind=LINE_MAP,
        read=read_binary,
        pixels=binary_pixels,
        modes=("L", "1"),
        advice="grey with 8 bits, white for yes",
    ),
    "depth": MapFormat(
        folder="depth",
        kind=DENSE_MAP,
        read=read_depth,
        pixels=depth_pixels,
        modes=("I;16", "I;16B", "I"),
        advice="grey with 16 bits, in millimetres",
    ),
    "normals": MapFormat(
        folder="normals",
        kind=VECTOR_MAP,
        read=read_normals,
        pixels=normal_pixels,
        modes=("RGB",),
        advice="in RGB with 8 bits a channel, x, y and z mapped from [-1, 1] to [0, 255]",
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
        if not name.lower().endswith(LOSSLESS_SUFFIXES):
            raise UserError(f"{path} is no .png, which loses no value as others do. Save the {target} as {stem}.png")
        if stem in maps:
            raise UserError(f"{maps[stem]} and {path} are both the {target} of one image. Remove one of them")
        if stem not in sizes:
            raise UserError(f"{path} is the {target} of no image: images/ has no {stem!r}. Rename or remove it")
        check_map_header(path, headers.header(path), target, sizes[stem])
        maps[stem] = path
    return maps


def check_map_header(path: str, header: Header, target: str, size: tuple[int, int]) -> None:
    """Raise UserError if a file has a form that its target does not allow, or another size (H, W) than its image."""
    allowed = FORMATS[target]
    if header.format not in ("PNG", "TIFF"):
        raise UserError(f"{path} is {header.format} under another name. Save it {allowed.advice}, as PNG")
    if header.mode not in allowed.modes:
        raise UserError(f"{path} has mode {header.mode}, which no {target} file has. Save it {allowed.advice}")
    if header.is_narrow_grey:
        raise UserError(f"{path} has inverted grey or fewer than 8 bits, which changes the values. Save it with 8")
    if header.size != size:
        (h, w), (height, width) = header.size, size
        raise UserError(f"{path} is {w}x{h}, its image is {width}x{height}. Save it at the image's size")
