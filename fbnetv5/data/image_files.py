"""Image files: which they are, how they are opened, and which way up they are.

Sizes and pixels are those of the image as it is shown, after its EXIF orientation.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, ImageOps

from export.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on a damaged file."""


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
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


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) that ``upright`` gives, from the header alone."""
    turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def is_image(path: Path) -> bool:
    """Whether the name is that of an image."""
    return path.suffix.lower() in SUFFIXES and path.name[0] != "."
