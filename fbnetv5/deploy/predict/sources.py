"""What to predict on: an image, a folder, a pattern, a list of files, or a video.

Images are read one at a time. An image that cannot be read is reported and does not stop the others.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from export.errors import UnavailableError, UserError
from fbnetv5.data.image_files import DEEP_MODES, SUFFIXES, StoredFile, opened, rgb, upright

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An image to predict on, or the reason why there is none."""

    name: str
    """Path relative to the source, such as "day/1.jpg"; "clip-000012.jpg" for a frame of a video."""
    image: Image.Image | None = None
    """Upright, RGB."""
    reason: str = ""
    """Why the image cannot be read."""
    file: Path | None = None
    """Where it was read from, if it is a file of its own."""
    index: int = 0
    """Of the image in a data set."""


def open_source(source: str) -> Iterator[Frame]:
    """The images of a source in order; what is wrong with the source as a whole is found at once.

    Raises:
        UserError: the source is missing, has no image, or is a video that cannot be read.
        UnavailableError: it is a video, and PyAV is not installed.
    """
    path = Path(source)
    if path.suffix.lower() in VIDEOS and not path.is_dir():
        return _open_video(path)
    root, files = find_files(source)
    return (read_file(file, file.relative_to(root).as_posix()) for file in files)


def find_files(source: str) -> tuple[Path, list[Path]]:
    """(folder that names are relative to, the image files of a source in order), absolute.

    Raises:
        UserError: the source is missing or has no image.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(_images(path.rglob("*")))
        return path.absolute(), _some(files, f"{source} has no images ({', '.join(SUFFIXES)})")
    if path.suffix.lower() == ".txt" and path.is_file():
        files = _some(_read_list(path), f"the list {path} names no image")
        return _common_folder(files), files
    if path.exists():
        return path.absolute().parent, [path.absolute()]
    if glob.has_magic(source):
        files = _some(_images(_matches(path)), f"no image matches {source}")
        return _common_folder(files), files
    raise UserError(f"{source} does not exist: name an image, a folder, a pattern, a list (.txt) or a video")


def _images(paths: Iterable[Path]) -> list[Path]:
    return [path.absolute() for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()]


def _matches(pattern: Path) -> list[Path]:
    """The paths that match a pattern, sorted."""
    first = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    fixed, rest = Path(*pattern.parts[:first]), str(Path(*pattern.parts[first:]))
    try:
        return sorted(fixed.glob(rest))
    except ValueError as error:
        raise UserError(f"{pattern} is not a pattern ({error}): ** stands alone between slashes") from None


def _read_list(path: Path) -> list[Path]:
    """The files of a list, a path per line, relative to the list's folder; absolute."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the list {path}: {error.strerror}") from None
    return [(path.parent / line.strip()).resolve() for line in lines if line.strip()]


def _some(files: list[Path], reason: str) -> list[Path]:
    if not files:
        raise UserError(reason)
    return files


def _common_folder(files: list[Path]) -> Path:
    """The deepest folder that contains all files, which are absolute."""
    return Path(os.path.commonpath([file.parent for file in files]))


def read_file(file: str | Path, name: str) -> Frame:
    """The image of a file, or of a part of one, under a name; or why it cannot be read."""
    place = None if isinstance(file, StoredFile) else Path(file)
    try:
        with opened(file) as image:
            if image.mode[0] in DEEP_MODES:
                raise UserError(f"{file} has more than 8 bits a channel (mode {image.mode}). Save it with 8")
            return Frame(name=name, image=rgb(upright(image)), file=place)
    except UserError as error:
        return Frame(name=name, reason=str(error), file=place)


def _open_video(path: Path) -> Iterator[Frame]:
    """The frames of a video, numbered from 0."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        import av
    except ImportError:
        raise UnavailableError("videos need PyAV: install it with: pip install 'fbnetv5[video]'") from None
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise UserError(f"cannot read the video {path}: {' '.join(str(error).split())}") from None
    if not container.streams.video:
        container.close()
        raise UserError(f"{path} has no images, only sound or text: name a video")
    return _read_video(container, path)


def _read_video(container: Any, path: Path) -> Iterator[Frame]:
    """The frames of an opened video; where it is damaged, a frame has the reason and is the last."""
    import av

    number = 0
    with container:
        try:
            for number, frame in enumerate(container.decode(video=0), start=1):
                turned = Image.fromarray(frame.to_ndarray(format="rgb24"))
                if angle := getattr(frame, "rotation", 0):  # of newer PyAV: anticlockwise, in degrees
                    turned = turned.rotate(angle, expand=True)
                yield Frame(name=_frame_name(path, number - 1), image=turned)
        except av.error.FFmpegError as error:
            yield Frame(name=_frame_name(path, number), reason=f"{path} is damaged after {number} frames: {error}")


def _frame_name(path: Path, number: int) -> str:
    return f"{path.stem}-{number:06d}.jpg"
