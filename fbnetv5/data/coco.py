"""COCO's layout (Lin et al., arXiv:1405.0312) and its usual variants: detection.

    annotations/instances_SPLIT.json    as published; images in SPLIT/, images/SPLIT/, images/ or beside
    annotations/SPLIT.json              as in mmdetection's guides, where there is no file of the first form
    SPLIT/_annotations.coco.json        Roboflow's export, with the images beside it; or one such file for all images

A file whose name has a word for a validation split (``fbnetv5.data.split_names``) lists the test split. Published
files of other tasks (captions, key points, panoptic) are no files of this layout.

A file name with backslashes, or whose accents are composed differently (NFC and NFD of Unicode), names the same file:
such names are repaired and counted.

Crowds are no objects to learn, and the metric ignores detections that match them, as COCO's evaluation does.
Left out: polygons, which ``fbnetv5.data.instance_masks`` reads, and boxes without width or height, of which the
published files have some.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from fbnetv5.data.file_names import repair_file_names
from fbnetv5.data.folder import add_boxes, field, image_record, read_document, read_image_records
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.notes import Notes
from fbnetv5.data.real_paths import RealPaths
from fbnetv5.data.split_names import as_test_split, has_split_word, is_validation
from fbnetv5.data.targets import BOXES, Target

ROBOFLOW_FILE = "_annotations.coco.json"
OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
"""How the names of COCO's files of other tasks start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoFile:
    """One annotation file."""

    path: Path
    split: str
    """"" for all images of a folder."""
    folders: tuple[Path, ...]
    """That may contain its images."""

    def name(self, image: str) -> str:
        """The name of an image in the data set."""
        return f"{self.split}/{image}" if self.split else image


def coco_files(root: Path) -> list[CocoFile]:
    """The annotation files of a folder, sorted; of the first form that it has."""
    published = sorted((root / "annotations").glob("instances_*.json"))
    if published:
        return [_in_annotations(root, path, path.stem.removeprefix("instances_")) for path in published]
    beside = [path for path in sorted(root.glob(f"*/{ROBOFLOW_FILE}")) if path.parent.name[0] != "."]
    beside = beside or sorted(root.glob(ROBOFLOW_FILE))
    if beside:
        return [
            CocoFile(path=path, split="" if path.parent == root else path.parent.name, folders=(path.parent,))
            for path in beside
        ]
    others = [path for path in sorted((root / "annotations").glob("*.json")) if not path.stem.startswith(OTHER_TASKS)]
    return [_in_annotations(root, path, path.stem) for path in others if has_split_word(path.stem)]


def _in_annotations(root: Path, path: Path, split: str) -> CocoFile:
    return CocoFile(path=path, split=split, folders=(root / split, root / "images" / split, root / "images", root))


def is_coco(root: Path) -> bool:
    """Whether a folder has an annotation file of this layout."""
    return bool(coco_files(root))


def image_folder(document: dict[str, Any], file: CocoFile, notes: Notes) -> Path | None:
    """The folder of the images that an annotation file lists, whose names in it are repaired; None without any image.

    Raises:
        UserError: "images" is malformed.
    """
    where = str(file.path)
    for position, record in enumerate(field(document, "images", list, where)):
        field(record, "file_name", str, f"{where}: images[{position}]")
    return next((folder for folder in file.folders if repair_file_names(document["images"], folder, notes)), None)


def _folder_of(document: dict[str, Any], file: CocoFile, notes: Notes) -> Path:
    folder = image_folder(document, file, notes)
    if folder is not None:
        return folder
    if not document["images"]:
        raise UserError(f'{file.path} lists no "images". Remove the file or export it again')
    name, searched = document["images"][0]["file_name"], ", ".join(map(str, file.folders))
    raise UserError(f"{file.path} lists {name!r}, which is in none of {searched}. Put its images into one of them")


def read_coco(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of COCO's layout; images are named SPLIT/FILE.

    Raises:
        UserError: a file is wrong, lists an image again, or has other categories than another.
    """
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    classes: dict[Path, tuple[str, ...]] = {}
    listing, notes = _Listing(), Notes()
    for file in coco_files(root):
        is_test = is_validation(file.split)
        document = read_document(file.path)
        if is_test and not document.get("annotations"):
            notes.add(f"{file.path.name} of {file.split} without annotations left out")
            continue
        folder, where = _folder_of(document, file, notes), str(file.path)
        document["annotations"] = list(_with_area(field(document, "annotations", list, where), notes))
        listed = sorted(record["file_name"] for record in document["images"])
        records = {name: image_record(f"{folder}{os.sep}{name}", headers) for name in listed}
        listed_records = read_image_records(document, records, where)
        classes[file.path] = add_boxes(document, listed_records, records, where, notes)
        for image in records.values():
            listing.add(image.path, file.path)
        images |= {file.name(name): image for name, image in records.items()}
        if is_test:
            test |= {file.name(name) for name in records}
    if not any(image.boxes for image in images.values()):
        place = os.path.commonpath([file.path.parent for file in coco_files(root)])
        raise UserError(f"{place} has no box of any image. Export the files with their annotations")
    if len(set(classes.values())) != 1:
        raise UserError(
            f"{' and '.join(map(str, classes))} have different categories. Give them the same, in one order"
        )
    (boxes,) = set(classes.values())
    targets = {"boxes": Target(kind=BOXES, classes=boxes)}
    return LabelledImages(images, targets, test=as_test_split(test, images), notes=notes.lines())


class _Listing:
    """Which COCO file lists which image. An image that is listed twice could be in both training and test split."""

    def __init__(self) -> None:
        self._sources: dict[str, Path] = {}
        self._real_path = RealPaths()

    def add(self, image: str, source: Path) -> None:
        """Note that ``source`` lists the image at a path.

        Raises:
            UserError: the same file is listed already, under this or another path.
        """
        resolved = self._real_path(image)
        if resolved in self._sources:
            raise UserError(
                f"{self._sources[resolved]} and {source} both list {image}, and an image is listed once. "
                "Remove one of the two .json files, or the second record if it is one file"
            )
        self._sources[resolved] = source


def _with_area(annotations: list[Any], notes: Notes) -> Iterator[Any]:
    """The annotations whose box has width and height; malformed ones too, which are refused later."""
    for annotation in annotations:
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if isinstance(box, list) and len(box) == 4 and (box[2] == 0 or box[3] == 0):
            notes.add("boxes without width or height left out")
        else:
            yield annotation
