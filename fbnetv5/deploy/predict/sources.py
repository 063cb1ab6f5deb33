"""What to predict on: an image, a folder, a pattern, a list of files, or a video.

Images are read one at a time, so memory does not grow with their number. An image that cannot be read is reported and
does not stop the others.
"""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from export.errors import UnavailableError, UserError
from fbnetv5.data.image_files import SUFFIXES, opened, rgb, upright

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An image to predict on, or the reason why there is none."""

    name: str
    """Path relative to the source, without its suffix for frames of a video: "day/1.jpg", "clip-000012"."""
    image: Image.Image | None = None
    """Upright, RGB."""
    reason: str = ""
    """Why the image cannot be read."""


def read_frames(source: str) -> Iterator[Frame]:
    """The images of a source in order.

    Raises:
        UserError: the source is missing, has no image, or is a video that cannot be read.
        UnavailableError: it is a video, and PyAV is not installed.
    """
    path = Path(source)
    if path.suffix.lower() in VIDEOS:
        yield from _read_video(path)
        return
    root, files = find_files(source)
    for file in files:
        yield read_file(file, file.relative_to(root).as_posix())


def find_files(source: str) -> tuple[Path, list[Path]]:
    """(folder that names are relative to, the image files of a source in order).

    Raises:
        UserError: the source is missing or has no image.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        return path, _some(files, f"{source} has no images ({', '.join(SUFFIXES)})")
    if path.suffix.lower() == ".txt" and path.is_file():
        return _read_list(path)
    if path.exists():
        return path.parent, [path]
    if glob.has_magic(source):
        fixed, pattern = _split_pattern(path)
        matches = sorted(fixed.glob(pattern))
        files = [file for file in matches if file.suffix.lower() in SUFFIXES and file.is_file()]
        return _common_folder(_some(files, f"no image matches {source}")), files
    raise UserError(f"{source} does not exist: name an image, a folder, a pattern, a list (.txt) or a video")


def _split_pattern(path: Path) -> tuple[Path, str]:
    """The part of a pattern without wildcards, and the rest."""
    first = next(number for number, part in enumerate(path.parts) if glob.has_magic(part))
    return Path(*path.parts[:first]), str(Path(*path.parts[first:]))


def _read_list(path: Path) -> tuple[Path, list[Path]]:
    """The files of a list, a path per line, relative to the list's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from None
    files = [path.parent / line.strip() for line in lines if line.strip()]
    return _common_folder(_some(files, f"the list {path} names no image")), files


def _some(files: list[Path], reason: str) -> list[Path]:
    if not files:
        raise UserError(reason)
    return files


def _common_folder(files: list[Path]) -> Path:
    """The deepest folder that contains all files."""
    common = files[0].parent
    while not all(file.is_relative_to(common) for file in files):
        common = common.parent
    return common


def read_file(file: str | Path, name: str) -> Frame:
    """The image of a file, or of a part of one, under a name; or why it cannot be read."""
    try:
        with opened(file) as image:
            return Frame(name=name, image=rgb(upright(image)))
    except UserError as error:
        return Frame(name=name, reason=str(error))


def _read_video(path: Path) -> Iterator[Frame]:
    """The frames of a video, numbered from 0."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        import av
    except ImportError:
        raise UnavailableError("videos need PyAV: install it with: pip install 'fbnetv5[video]'") from None
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                yield Frame(
                    name=f"{path.stem}-{number:06d}.jpg", image=Image.fromarray(frame.to_ndarray(format="rgb24"))
                )
    except (av.error.FFmpegError, IndexError) as error:
        raise UserError(f"cannot read the video {path}: {' '.join(str(error).split())}") from None
