"""Data sets that name their images in text files, an id per line, and keep each label in a file of the same id.

    LISTS/train.txt, LISTS/val.txt     an id per line
    IMAGES/ID.jpg
    FOLDER/ID.SUFFIX                   the label of an image for one target

An image without a file in a target's folder trains the other targets. On opening, lists and folders are read and the
headers of images; labels are read and checked when their image is read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import UserError
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages, ReadMap
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.targets import Target

TRAINING_LIST, TEST_LIST = "train.txt", "val.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """Where the labels of one target are, and how they are read."""

    places: Sequence[tuple[str, str]]
    """(folder, suffix) of its files; of an image with several files the first is used."""
    read: ReadMap
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImages:
    """The places of one data set's files in its folder, with "/"."""

    lists: str
    """Folder of ``train.txt`` and ``val.txt``."""
    images: str
    """Folder of the images."""
    suffixes: tuple[str, ...]
    """Suffixes of the images' files; the first one is named in errors."""
    labels: Mapping[str, LabelFiles]
    """By name of the target."""
    zero_is_ignored: bool = False
    """See ``LabelledImages``."""

    def fits(self, root: Path) -> bool:
        """Whether a folder has the lists' and the images' folders."""
        return (root / self.lists).is_dir() and (root / self.images).is_dir()

    def read(self, root: Path, headers: HeaderIndex) -> LabelledImages:
        """The images of both lists, named by their ids; those of ``val.txt`` are the test split.

        Raises:
            UserError: a list is missing or empty, an image is missing or in both lists, or no image has a label.
        """
        paths: dict[str, str] = {}
        for suffix in reversed(self.suffixes):
            paths |= _files(root / self.images, suffix)
        training, test = (root / self.lists / name for name in (TRAINING_LIST, TEST_LIST))
        records: dict[str, ImageRecord] = {}
        for list_file in (training, test):
            for id_ in read_ids(list_file):
                if id_ not in paths:
                    raise UserError(
                        f"{list_file} lists {id_!r}, and {root / self.images} has no {id_}{self.suffixes[0]}. "
                        "Add the image or remove the line"
                    )
                if id_ in records:
                    raise UserError(f"{list_file} lists {id_!r}, which is listed already. Keep one line per image")
                records[id_] = image_record(paths[id_], headers)
        labelled = [name for name, files in self.labels.items() if _add_paths(root, name, files, records)]
        if not labelled:
            folders = ", ".join(f"{folder}/" for files in self.labels.values() for folder, _ in files.places)
            raise UserError(f"{root} has no label of any listed image in {folders}. Unpack the archive again")
        return LabelledImages(
            records,
            {name: Target(kind=FORMATS[name].kind, classes=self.labels[name].classes) for name in labelled},
            test=frozenset(read_ids(test)),
            zero_is_ignored=self.zero_is_ignored,
            readers={name: self.labels[name].read for name in labelled},
        )


def read_ids(path: Path) -> list[str]:
    """The lines of a list that are not blank.

    Raises:
        UserError: the list cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. It lists the images, an id per line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}). Replace the file") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path} lists no image. Write an id per line into it")
    return ids


def _add_paths(root: Path, target: str, files: LabelFiles, records: Mapping[str, ImageRecord]) -> bool:
    """Add the files of a target to the images' records; return whether there is any."""
    paths: dict[str, str] = {}
    for folder, suffix in reversed(files.places):
        paths |= _files(root / folder, suffix)
    labelled = records.keys() & paths.keys()
    for id_ in labelled:
        records[id_].maps = {**(records[id_].maps or {}), target: paths[id_]}
    return bool(labelled)


def _files(folder: Path, suffix: str) -> dict[str, str]:
    """The files of a folder with this suffix, in upper or lower case, by stem; {} where there is no such folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name[: -len(suffix)]: entry.path for entry in entries if entry.name.lower().endswith(suffix)}
