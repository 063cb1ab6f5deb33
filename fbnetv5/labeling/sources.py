"""The images to label: those of a folder, or those of a data set with the labels that it has."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from export.errors import UserError
from fbnetv5.data.colour_maps import LABEL_FOLDERS as SPLIT_LABELS
from fbnetv5.data.colour_maps import PAIRS
from fbnetv5.data.image_files import SUFFIXES, file_state, image_names_within
from fbnetv5.data.labelled_images import Corners, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.layouts import find_layout, open_folder
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.shard_writer import source_digest
from fbnetv5.data.splits import TEST, split_of
from fbnetv5.data.targets import Target

LABEL_FOLDERS = {
    "images": {form.folder for form in FORMATS.values()} | {"annotations", "labels", "segmentation"},
    "JPEGImages": {"SegmentationClass", "SegmentationObject", "semseg", "sal_distill", "normals_distill"},
    "leftImg8bit": {"gtFine", "gtCoarse", "disparity"},
    **{images: {labels} for images, labels in PAIRS if images != "images"},
}
"""Folder of images -> the folders that layouts keep label maps in beside it, which may be images to the eye."""
LABEL_SUFFIXES = tuple(form.format("") for form in SPLIT_LABELS)
"""Of the name of a split's folder: the folder of its label maps beside it."""
MAX_NAME_BYTES = 200
"""Of an image's name in the new data set; file systems allow 255, and temporary names are longer."""


class SourceImages:
    """Image files by index, in an order that depends on their names alone."""

    def __init__(
        self, root: Path, names: Sequence[str], data: LabelledImages | None = None, *, maps_left_out: int = 0
    ) -> None:
        """Describe the images.

        Args:
            root: their folder.
            names: of the images: paths in the folder with "/", or the names of the data set.
            data: the data set, whose labels are kept; None for images without labels.
            maps_left_out: number of files in folders of label maps.
        """
        self.maps_left_out = maps_left_out
        self.names = tuple(names)
        self.new_names = flat_names(self.names)
        self.targets: Mapping[str, Target] = {} if data is None else data.targets
        self._root = root
        self._data = data

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """The file of an image."""
        return f"{self._root}/{self.names[index]}" if self._data is None else self._data.path(index)

    def labels(self, index: int) -> dict[str, Any]:
        """The labels that an image has, by target, at the size of its file.

        Raises:
            UserError: a label cannot be read.
        """
        return {} if self._data is None else self._data.labels(index)

    @property
    def has_ignored_boxes(self) -> bool:
        """Whether any image has crowds or difficult objects, which metrics ignore."""
        return self._data is not None and self._data.has_ignored_boxes

    def ignored_boxes(self, index: int) -> tuple[list[Corners], list[int]] | None:
        """The corners and classes of the ignored boxes of an image; None if there are none."""
        record = None if self._data is None else self._data.record(index)
        if record is None or not record.ignored_boxes:
            return None
        return record.ignored_boxes, record.ignored_box_labels or []

    def is_test(self, index: int) -> bool:
        """Whether an image belongs to the test split of the data set it is from, its own or that of its file names."""
        if self._data is None:
            return False
        name = self.names[index]
        return name in self._data.test if self._data.test else split_of(name) == TEST

    @cached_property
    def digest(self) -> str:
        """A checksum of the names and states of all images; of a data set that of ``source_digest``.

        Raises:
            UserError: an image of a data set is missing.
        """
        if self._data is not None:
            return source_digest(self._data)
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            digest.update(f"{(name, _state(self.path(index)))!r}\n".encode())
        return digest.hexdigest()


def _state(path: str) -> tuple[int, ...]:
    """The ``file_state`` of an image, () where it cannot be read, such as a broken link, which is left out later."""
    try:
        return file_state(path)
    except UserError:
        return ()


def layout_of_source(root: Path) -> Layout | None:
    """The layout whose labels are kept; None for a folder that is in none of them.

    Raises:
        UserError: the folder does not exist, or looks like a layout that cannot be read.
    """
    check_folder(root)
    return find_layout(root)


def check_folder(root: Path) -> None:
    """Raise UserError if a folder does not exist."""
    if not root.is_dir():
        raise UserError(f"folder {root} does not exist: name a folder of images")


def open_source(root: Path, *, ignore_labels: bool) -> SourceImages:
    """The images of a folder.

    Args:
        root: a folder of images at any depth, or a data set in one of the known layouts.
        ignore_labels: take all images of the folder and no label; files in the folders of labels that known layouts
            have beside their images, such as masks/ beside images/, are no images.

    Raises:
        UserError: the folder does not exist or has no image, or the data set is unfit.
    """
    check_folder(root)
    layout = None if ignore_labels else layout_of_source(root)
    if layout is not None:
        if not layout.has_files:
            raise UserError(
                f"{root} is in {layout.name}, which are not labelled: label image files (of tar files: unpacked), then "
                "convert"
            )
        data = open_folder(root)
        return SourceImages(root, data.names, data)
    names = sorted(image_names_within(root), key=lambda name: name.split("/"))
    images = without_maps(names) if ignore_labels else names
    if not images:
        raise UserError(f"{root} has no image at any depth: put {', '.join(SUFFIXES)} files there")
    return SourceImages(root, images, maps_left_out=len(names) - len(images))


def without_maps(names: Sequence[str]) -> list[str]:
    """The paths of images, with "/", without those in a folder of label maps that lies beside one of images."""
    folders = {parent for name in names for parent in PurePosixPath(name).parents}

    def has_maps(folder: PurePosixPath) -> bool:
        stems = [folder.name.removesuffix(suffix) for suffix in LABEL_SUFFIXES if folder.name.endswith(suffix)]
        beside = [images for images, labels in LABEL_FOLDERS.items() if folder.name in labels]
        return any(folder.parent / name in folders for name in [*filter(None, stems), *beside])

    maps = {folder for folder in folders if has_maps(folder)}
    return [name for name in names if maps.isdisjoint(PurePosixPath(name).parents)]


def flat_names(names: Sequence[str]) -> tuple[str, ...]:
    """A file name in one folder for each path: "a/b.jpg" -> "a__b.jpg"; no two are equal without their suffixes.

    Names that would be equal, too long or not UTF-8 end in a part of a checksum of their path.
    """
    stems: set[str] = set()
    flat: list[str] = []
    for name in names:
        candidate = PurePosixPath(name.replace("/", "__").lstrip("."))
        stem, suffix = candidate.stem, candidate.suffix
        if not _is_plain(candidate.name) or stem in stems:
            digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
            shortened = stem.encode(errors="replace")[: MAX_NAME_BYTES - 32].decode(errors="ignore")
            stem = f"{shortened}-{digest}"
        stems.add(stem)
        flat.append(f"{stem}{suffix}")
    return tuple(flat)


def _is_plain(name: str) -> bool:
    """Whether a name is short enough, and UTF-8."""
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False
