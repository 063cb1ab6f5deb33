"""The labels of an image in the columns of Hugging Face's image folders, see ``fbnetv5.data.metadata_folder``."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from export.errors import UserError
from fbnetv5.data.class_names import class_ids, classes_of
from fbnetv5.data.folder import KINDS, box_corners, numbered_classes
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord
from fbnetv5.data.maps import FORMATS, check_map_header
from fbnetv5.data.targets import Target

NO_CLASS = -1
"""The class of an image without one, as in ``datasets``."""
NUMBER = re.compile(r"-?\d+")
CATEGORY_KEYS = ("categories", "category", "labels", "label")


@dataclass(slots=True, kw_only=True)
class Row:
    """The labels of an image: a line of a file."""

    values: dict[str, Any]
    """By column; "file_name" is the image's path from the file's folder, as it is on the disk."""
    folder: Path
    where: str
    """FILE:LINE, for messages."""
    objects: list[tuple[Any, Any]] | None = None
    """Box and category of each object."""


def class_number(text: str) -> int | None:
    """The number of a class that a text is; None for a name."""
    return int(text) if NUMBER.fullmatch(text.strip()) else None


def objects_of(value: Any, where: str) -> list[tuple[Any, Any]] | None:
    """Box and category of each object of a row; None where the column is empty.

    Raises:
        UserError: the column has another form.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(f'{where}: "objects" is not valid JSON, got {short(value)}') from None
    if value is None:
        return None
    if isinstance(value, dict):
        boxes, categories = value.get("bbox"), next((value[key] for key in CATEGORY_KEYS if key in value), None)
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        boxes = [item.get("bbox") for item in value]
        categories = [next((item[key] for key in CATEGORY_KEYS if key in item), None) for item in value]
    else:
        boxes = categories = None
    if not isinstance(boxes, list) or not isinstance(categories, list) or len(boxes) != len(categories):
        raise UserError(f'{where}: "objects" must have a "bbox" and a "categories" list of one length')
    return list(zip(boxes, categories, strict=True))


def add_boxes(record: ImageRecord, row: Row) -> None:
    """Add the boxes of a row to the record of its image.

    Raises:
        UserError: a box is wrong.
    """
    if row.objects is None:
        return
    for box, _ in row.objects:
        if not isinstance(box, list):
            raise UserError(f'{row.where}: "bbox" must be a list of [x, y, width, height], got {short(box)}')
    record.boxes = [box_corners(box, record.size, row.where) for box, _ in row.objects]


def add_maps(record: ImageRecord, maps: Mapping[str, str], headers: HeaderIndex) -> None:
    """Add the files of maps by target to the record of their image.

    Raises:
        UserError: a file has another size or form than its target allows.
    """
    for target, path in maps.items():
        check_map_header(path, headers.header(path), target, record.size)
    record.maps = dict(maps) or None


def add_labels(rows: list[Row], images: list[ImageRecord]) -> dict[str, Target]:
    """Add classes of images and boxes to the records, and return their targets."""
    labels = [row.values.get("label") for row in rows]
    labels = [None if label == NO_CLASS else label for label in labels]
    label_places = [(label, row.where) for label, row in zip(labels, rows, strict=True) if label is not None]
    box_places = [(category, row.where) for row in rows for _, category in row.objects or ()]
    classes = {"label": classes_of(label_places, '"label"'), "boxes": classes_of(box_places, "a category")}
    ids = {name: class_ids(names) for name, names in classes.items()}
    for row, label, image in zip(rows, labels, images, strict=True):
        image.label = None if label is None else ids["label"][label]
        if row.objects is not None:
            image.box_labels = [ids["boxes"][category] for _, category in row.objects]
        if not classes["boxes"]:
            image.boxes = image.box_labels = None
    return {name: Target(kind=KINDS[name], classes=names) for name, names in classes.items() if names}


def map_targets(images: dict[str, ImageRecord], headers: HeaderIndex) -> dict[str, Target]:
    """The targets of the maps that any image has."""
    names = [name for name in FORMATS if any(image.map_path(name) for image in images.values())]
    classes = {name: numbered_classes(name, images, headers) for name in names if FORMATS[name].class_list}
    usable = [name for name in names if classes.get(name, True)]  # a file may contain pixels to ignore alone
    return {name: Target(kind=KINDS[name], classes=classes.get(name, ())) for name in usable}
