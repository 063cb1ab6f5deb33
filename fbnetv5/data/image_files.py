"""Image files: which file names are images, how they are opened, and which way up they are.

Sizes and pixels are those of the image as it is shown, after its EXIF orientation.
"""

import errno
import os
import struct
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from export.errors import UnavailableError, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_MEGAPIXELS = 178
"""Pillow refuses larger images, which decode to more than half a gigabyte."""
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""
EXIF_ORIENTATION = 0x0112
DEEP_MODES = ("I", "F")
"""First letters of Pillow's modes of more than 8 bits a channel."""
INTEGER_TYPES = {3: "H", 4: "I"}
"""Of EXIF's types: SHORT and LONG, as formats of ``struct``."""
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
TIFF_COMPRESSION, LOSSY_COMPRESSIONS = 259, (6, 7, 33003, 33005, 34712, 34892, 50001)
"""A tag of TIFF, and its values for JPEG, JPEG 2000 and WebP."""
HEADER_BYTES = 4096
"""Read at once of an image in a tar file."""
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on most damaged files, and reading any file may raise; its plugins raise other errors as well."""

STORAGE_ERRORS = (
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ECONNRESET,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
)
"""Of the machine or its storage, and not of the file that was read: it may be readable later."""


class StoredFile(str):
    """An image file within another file: a description of its place, for messages, with its bytes."""

    remedy: ClassVar[str] = "Write the file that it is in again"
    """What to do if it is damaged."""
    _content: bytes

    def __new__(cls, place: str, content: bytes) -> Self:
        file = super().__new__(cls, place)
        file._content = content
        return file

    def __getnewargs__(self) -> tuple[str, bytes]:  # type: ignore[override]  # those of this class, not of str
        return str(self), self._content

    @property
    def content(self) -> bytes:
        """The bytes of the file.

        Raises:
            OSError: they cannot be read.
        """
        return self._content

    def open(self) -> BinaryIO:
        """The file, whose bytes are read on use.

        Raises:
            OSError: it cannot be read.
        """
        return BytesIO(self.content)

    @property
    def state(self) -> tuple[int, ...]:
        """See ``file_state``."""
        return len(self._content), zlib.crc32(self._content)


class StoredPart(StoredFile):
    """A part of a tar file, whose bytes are read when they are needed."""

    remedy = "Write the tar file again"
    _part: tuple[str, int, int]
    """Path of the file, start and length in bytes."""

    @classmethod
    def of(cls, place: str, file: str, start: int, length: int) -> Self:
        """A part of ``file``; ``place`` describes it."""
        part = cls(place, b"")
        part._part = file, start, length
        return part

    @property
    def content(self) -> bytes:
        path, start, length = self._part
        with Path(path).open("rb") as file:
            file.seek(start)
            content = file.read(length)
        if len(content) != length:
            raise OSError(f"{path} is cut off")
        return content

    def open(self) -> BinaryIO:
        return cast("BinaryIO", BufferedReader(PartReader(*self._part), HEADER_BYTES))

    @property
    def key(self) -> str:
        """Its place, which no other part of a tar file has."""
        path, start, _ = self._part
        return f"{path}@{start}"

    @property
    def state(self) -> tuple[int, ...]:
        path, start, length = self._part
        return length, start, _state(path)[1]


class PartReader(RawIOBase):
    """The bytes of a part of a file."""

    def __init__(self, path: str, start: int, length: int) -> None:
        super().__init__()
        self._path, self._start, self._length, self._position = path, start, length, 0
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  # closed by close

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer.

        Raises:
            OSError: the file ends within the part.
        """
        length = max(0, min(len(buffer), self._length - self._position))
        self._file.seek(self._start + self._position)
        count = self._file.readinto(memoryview(buffer)[:length])
        if length and not count:
            raise OSError(f"{self._path} is cut off")
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class Header(NamedTuple):
    """The properties of an image file that its header contains."""

    size: tuple[int, int]
    """(H, W), upright."""
    mode: str
    """Pillow's name of the pixel type, e.g. "RGB"."""
    format: str
    """Pillow's name of the file format, e.g. "JPEG"."""
    is_narrow_grey: bool
    """Whether it is a PNG or TIFF of grey with 2 or 4 bits or of inverted grey, whose values Pillow changes."""


def remedy(path: str | Path) -> str:
    """What to do about a damaged image file, as the end of a message."""
    return path.remedy if isinstance(path, StoredFile) else "Replace the file or remove it"


@contextmanager
def opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """The image at ``path``, whose pixels are read on use.

    Raises:
        UserError: it cannot be read, now or within the block; UnavailableError if the storage fails.
    """
    try:
        with _open(path) as image:
            if isinstance(image, TiffImageFile) and exif_orientation(image) in SIDEWAYS:
                raise UserError(f"{path} is a TIFF whose orientation tag turns it sideways. Save it upright")
            yield image
    except Image.DecompressionBombError:
        raise UserError(
            f"{path} has more than {MAX_MEGAPIXELS} megapixels, the limit for an image. Make it smaller or remove it"
        ) from None
    except Exception as error:
        if not isinstance(error, PILLOW_ERRORS) and not _is_of_pillow(error):
            raise
        _check_storage(path, error)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {reason}. {remedy(path)}") from None


def _check_storage(path: str | Path, error: Exception) -> None:
    """Raise UnavailableError if the storage failed, and not the file."""
    if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        raise UnavailableError(
            f"cannot read {path}: {error.strerror}. If this is the file and not its storage, remove it; otherwise "
            "repeat the command when the storage works"
        ) from None


def _is_of_pillow(error: Exception) -> bool:
    """Whether code of Pillow raised the error."""
    modules: list[str] = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return modules[-1].startswith("PIL.")


def _open(path: str | Path) -> ImageFile.ImageFile:
    """Open an image without the warnings of Pillow, which name no file: on large images and on damaged metadata."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return Image.open(path.open() if isinstance(path, StoredFile) else path)


def read_bytes(path: str) -> bytes:
    """The content of an image file.

    Raises:
        UserError: it cannot be read; UnavailableError if the storage fails.
    """
    try:
        return path.content if isinstance(path, StoredFile) else Path(path).read_bytes()
    except OSError as error:
        _check_storage(path, error)
        raise UserError(f"cannot read {path}: {error.strerror or error}. {remedy(path)}") from None


def file_size(path: str) -> int:
    """The length of an image file in bytes.

    Raises:
        OSError: there is no such file.
    """
    return len(path.content) if isinstance(path, StoredFile) else Path(path).stat().st_size


def file_state(path: str) -> tuple[int, ...]:
    """Numbers that change with the content of an image file: its length, its time in ns; of a part, its start too.

    Raises:
        UserError: there is no such file.
    """
    try:
        return path.state if isinstance(path, StoredFile) else _state(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. {remedy(path)}") from None


def _state(path: str) -> tuple[int, int]:
    state = os.stat(path)  # noqa: PTH116  # a Path for each of a million files takes as long as this call
    return state.st_size, state.st_mtime_ns


def read_header(path: str | Path) -> Header:
    """The header of the image at ``path``.

    Raises:
        UserError: it cannot be read.
    """
    with opened(path) as image:
        return Header(
            size=upright_size(image),
            mode=image.mode,
            format=_format(image),
            is_narrow_grey=image.format in ("PNG", "TIFF") and image.mode == "L" and _raw_mode(image) != "L",
        )


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's name of how the pixels are stored."""
    arguments = image.tile[0][3] if image.tile else image.mode
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _format(image: ImageFile.ImageFile) -> str:
    """Pillow's name of the format; "lossy TIFF" where pixels are not stored exactly."""
    if isinstance(image, TiffImageFile) and image.tag_v2.get(TIFF_COMPRESSION) in LOSSY_COMPRESSIONS:
        return "lossy TIFF"
    return str(image.format)


def read_pixels(path: str | Path) -> NDArray[Any]:
    """The pixels of the image at ``path``, upright: [H, W] or [H, W, channels], of the file's own type.

    Raises:
        UserError: it cannot be read.
    """
    with opened(path) as image:
        return np.asarray(upright(image))


def upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; the rest of its EXIF, which may be damaged, is not read."""
    method = TRANSPOSES.get(exif_orientation(image))
    return image if method is None or isinstance(image, TiffImageFile) else image.transpose(method)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(H, W) that ``upright`` gives, from the header alone."""
    turned = exif_orientation(image) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, without its transparency: the colours that the file has at transparent pixels."""
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if isinstance(image, TiffImageFile):
        return _valid(image.tag_v2.get(EXIF_ORIENTATION))
    exif = image.info.get("exif")
    return _parse_orientation(exif) if isinstance(exif, bytes) else 1


def _parse_orientation(exif: bytes) -> int:
    """The orientation of an EXIF block, from the first directory of its TIFF structure (CIPA DC-008, section 4.6.2)."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for position in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", tiff, position)
            if tag == EXIF_ORIENTATION and kind in INTEGER_TYPES and count == 1:
                (value,) = struct.unpack_from(f"{order}{INTEGER_TYPES[kind]}", tiff, position + 8)
                return _valid(value)
    except struct.error:
        pass
    return 1


def _valid(orientation: Any) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, and not hidden."""
    return name.lower().endswith(SUFFIXES) and name[0] != "."


def list_image_names(folder: Path) -> list[str]:
    """The names of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name))


def image_names_within(folder: str | Path) -> Iterator[str]:
    """The images in a folder and in folders within, none of them hidden, as paths in the folder with "/".

    Links to folders are followed after all real folders, but not to a folder that was listed already or contains this
    one.
    """
    listed, root, links = set[str](), os.path.realpath(folder), [("", os.fspath(folder))]
    while links:
        prefix, link = links.pop(0)
        real = os.path.realpath(link)
        if prefix and (real in listed or f"{root}{os.sep}".startswith(f"{real.rstrip(os.sep)}{os.sep}")):
            continue
        inside_links: list[tuple[str, str]] = []
        yield from _names_in_real_folders(link, real, prefix, listed, inside_links)
        links += sorted(inside_links)


def _names_in_real_folders(
    folder: str, real: str, prefix: str, listed: set[str], links: list[tuple[str, str]]
) -> Iterator[str]:
    """The images in a folder and in real folders within that are not ``listed`` yet; adds its ``links`` to folders."""
    listed.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry.name):
                yield prefix + entry.name
            elif entry.name[0] != "." and entry.is_symlink():
                if _is_folder(entry.path):
                    links.append((f"{prefix}{entry.name}/", entry.path))
            elif entry.name[0] != "." and entry.is_dir() and (inside := f"{real}{os.sep}{entry.name}") not in listed:
                yield from _names_in_real_folders(entry.path, inside, f"{prefix}{entry.name}/", listed, links)


def _is_folder(path: str) -> bool:
    """Whether a link leads to a folder; not if it leads to itself, or to one that may not be read."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False
