"""A layout of data sets: how a folder is recognised and read; and what several layouts share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import LabelledImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to arrange a data set in a folder."""

    name: str
    looks_like: str
    """What a folder must contain; a part of messages."""
    fits: Callable[[Path], bool]
    read: Callable[[Path, HeaderIndex], LabelledImages]
    """(folder, its headers) -> its images, checked."""
    has_files: bool = True
    """Whether each image is a file."""


def split_folders(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The sub-folders of these names, in upper or lower case, in the order of the names."""
    paths = folder.iterdir() if folder.is_dir() else ()
    splits = [path for path in paths if path.name.lower() in names and path.is_dir()]
    return sorted(splits, key=lambda path: (names.index(path.name.lower()), path.name))
