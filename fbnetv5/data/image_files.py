"""Image files: which file names are images, how they are opened, and which way up they are.

Sizes and pixels are those of the image as it is shown, after its EXIF orientation.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from export.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on a damaged file."""


class Header(NamedTuple):
    """The properties of an image file that its header contains."""

    size: tuple[int, int]
    """(H, W), upright."""
    mode: str
    """Pillow's name of the pixel type, e.g. "RGB"."""
    format: str
    """Pillow's name of the file format, e.g. "JPEG"."""
    is_narrow_grey: bool
    """Whether it is a PNG of grey with 2 or 4 bits, whose values Pillow scales to 8 bits."""


@contextmanager
def opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """The image at ``path``, whose pixels are read on use.

    Raises:
        UserError: it cannot be read, now or within the block.
    """
    try:
        with Image.open(path) as image:
            yield image
    except PILLOW_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}. Replace the file or remove it") from None


def read_header(path: str | Path) -> Header:
    """The header of the image at ``path``.

    Raises:
        UserError: it cannot be read.
    """
    with opened(path) as image:
        return Header(
            size=upright_size(image),
            mode=image.mode,
            format=str(image.format),
            is_narrow_grey=image.format == "PNG" and image.mode == "L" and image.tile[0][3] != "L",
        )


def read_pixels(path: str | Path) -> NDArray[Any]:
    """The pixels of the image at ``path``, upright: [H, W] or [H, W, channels], of the file's own type.

    Raises:
        UserError: it cannot be read.
    """
    with opened(path) as image:
        return np.asarray(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation."""
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) that ``upright`` gives, from the header alone."""
    turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, and not hidden."""
    return name.lower().endswith(SUFFIXES) and name[0] != "."


def list_image_names(folder: Path) -> list[str]:
    """The names of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name))


def image_names_within(folder: str | Path, prefix: str = "") -> Iterator[str]:
    """The images in a folder and in folders within, none of them hidden, as paths in the folder with "/"."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry.name):
                yield prefix + entry.name
            elif entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
                yield from image_names_within(entry.path, f"{prefix}{entry.name}/")
