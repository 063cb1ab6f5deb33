"""Hugging Face's image folders with metadata (https://huggingface.co/docs/datasets/image_dataset): all tasks.

    metadata.jsonl                  a JSON object per line, or metadata.csv with the same columns
    [train/] NAME.jpg

    train/metadata.jsonl, train/NAME.jpg    a file per split; validation/ and test/ likewise

Columns:

    file_name, image_file_name      path of the image from the file's folder
    label                           name or number of its class
    objects                         {"bbox": [[x, y, width, height], ...], "categories": [...]}, or a list of objects
                                    with "bbox" and "category"; pixels, names or numbers of classes
    mask_file_name, ...             path of a map, see ``fbnetv5.data.maps``; likewise depth_file_name and so on

The first folder of a path is its split. As in ``datasets``, folders do not mean classes where there is such a file.

Left out: metadata.parquet, other columns, and the names of numbered classes, which only a loading script has.
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from reprlib import repr as short
from typing import Any

from export.errors import UserError
from fbnetv5.data.class_names import class_id, classes_of
from fbnetv5.data.file_names import repair_file_names
from fbnetv5.data.folder import KINDS, box_corners, image_record, numbered_classes
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.maps import FORMATS, check_map_header
from fbnetv5.data.notes import Notes
from fbnetv5.data.split_names import as_test_split, is_validation
from fbnetv5.data.targets import Target

FILES = ("metadata.jsonl", "metadata.csv")
IMAGE_COLUMNS = ("file_name", "image_file_name")
CATEGORY_KEYS = ("categories", "category", "labels", "label")
MAP_COLUMNS = {f"{target}_file_name": target for target in FORMATS}
COLUMNS = {*IMAGE_COLUMNS, *MAP_COLUMNS, "label", "objects"}


@dataclass(slots=True, kw_only=True)
class Row:
    """A line of a file."""

    values: dict[str, Any]
    """By column; "file_name" is the image's path from the file's folder, as it is on the disk."""
    folder: Path
    where: str
    """FILE:LINE, for messages."""
    objects: list[tuple[Any, Any]] | None = None
    """Box and category of each object."""


def metadata_files(root: Path) -> list[Path]:
    """The files with metadata of a folder and of the folders in it, sorted."""
    paths = [path for name in FILES for pattern in (name, f"*/{name}") for path in root.glob(pattern)]
    return sorted(path for path in paths if path.parent.name[0] != "." and _has_file_names(path))


def _has_file_names(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "file_name" in "".join(islice(file, 1))
    except OSError:
        return False


def is_metadata_folder(root: Path) -> bool:
    """Whether a folder has such a file."""
    return bool(metadata_files(root))


def read_metadata_folder(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of this layout; images are named by their paths in the folder.

    Raises:
        UserError: a line is wrong, an image is missing or listed twice, or there is no label at all.
    """
    notes, rows = Notes(), list[Row]()
    for path in metadata_files(root):
        rows += _rows_of(path, notes)
    images: dict[str, ImageRecord] = {}
    for row in rows:
        name = Path(os.path.relpath(row.folder / row.values["file_name"], root)).as_posix()
        if name in images:
            raise UserError(f"{row.where} lists {name!r} again. Keep one line per image")
        images[name] = _record(row, headers)
    targets = _add_labels(rows, list(images.values())) | _map_targets(images, headers)
    unlabelled = [name for name, image in images.items() if not image.is_labelled]
    if len(unlabelled) == len(images):
        raise UserError(
            f"{metadata_files(root)[0]} has no label of any image: add a column label, objects or mask_file_name"
        )
    notes.add("images without a label left out", len(unlabelled))
    images = {name: image for name, image in images.items() if image.is_labelled}
    test = {name for name in images if "/" in name and is_validation(name.partition("/")[0])}
    return LabelledImages(images, targets, test=as_test_split(test, images), notes=notes.lines())


def _rows_of(path: Path, notes: Notes) -> list[Row]:
    """The rows of a file, the names of whose images are repaired."""
    rows: list[Row] = []
    for number, values in _read_jsonl(path) if path.suffix == ".jsonl" else _read_csv(path):
        row = Row(values=values, folder=path.parent, where=f"{path}:{number}")
        values["file_name"] = next((values[key] for key in IMAGE_COLUMNS if values.get(key)), None)
        if not isinstance(values["file_name"], str):
            raise UserError(f'{row.where} has no "file_name". Add the path of the image from {path.parent}')
        row.objects = _objects(values.get("objects"), row.where)
        rows.append(row)
    others = sorted({key for row in rows for key in row.values} - COLUMNS)
    notes.add(f"columns of {path.name} not read ({', '.join(others)})", len(others))
    repair_file_names([row.values for row in rows], path.parent, notes)
    return rows


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of every line of a file that is not blank."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number} is not valid JSON ({error}). Write an object per line") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}:{number} must be a JSON object, got {short(values)}")
        yield number, values


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of every row of a file; empty cells are left out, and numbers of classes are numbers."""
    reader = csv.DictReader(_text(path).splitlines(keepends=True), strict=True)
    try:
        rows = [(reader.line_num, {key: value for key, value in row.items() if value}) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1} is not valid CSV ({error}). Save it again") from None
    are_numbers = all(str(row.get("label", 0)).isdecimal() for _, row in rows)
    for number, row in rows:
        if None in row:
            raise UserError(f"{path}:{number} has more columns than the first line. Put text with commas into quotes")
        yield number, row | ({"label": int(row["label"])} if "label" in row and are_numbers else {})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Save it as text in UTF-8") from None


def _objects(value: Any, where: str) -> list[tuple[Any, Any]] | None:
    """Box and category of each object of a row; None where the column is empty."""
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


def _record(row: Row, headers: HeaderIndex) -> ImageRecord:
    """The record of a row's image, with its boxes and maps.

    Raises:
        UserError: a file is missing or unfit, or a box is wrong.
    """
    record = image_record(_file(row, "file_name"), headers)
    if row.objects is not None:
        for box, _ in row.objects:
            if not isinstance(box, list):
                raise UserError(f'{row.where}: "bbox" must be a list of [x, y, width, height], got {short(box)}')
        record.boxes = [box_corners(box, record.size, row.where) for box, _ in row.objects]
    maps = {target: _file(row, column) for column, target in MAP_COLUMNS.items() if row.values.get(column)}
    for target, path in maps.items():
        check_map_header(path, headers.header(path), target, record.size)
    record.maps = maps or None
    return record


def _file(row: Row, column: str) -> str:
    """The path of a file that a row names."""
    path = os.path.normpath(f"{row.folder}{os.sep}{row.values[column]}")
    if not Path(path).is_file():
        raise UserError(
            f"{row.where} lists {row.values[column]!r}, which is not in {row.folder}. Add the file or remove the line"
        )
    return path


def _add_labels(rows: list[Row], images: list[ImageRecord]) -> dict[str, Target]:
    """Add classes of images and boxes to the records, and return their targets."""
    labels = [row.values.get("label") for row in rows]
    labels = [None if label == -1 else label for label in labels]  # the convention of datasets for "no label"
    label_places = [(label, row.where) for label, row in zip(labels, rows, strict=True) if label is not None]
    box_places = [(category, row.where) for row in rows for _, category in row.objects or ()]
    classes = {"label": classes_of(label_places, '"label"'), "boxes": classes_of(box_places, "a category")}
    for row, label, image in zip(rows, labels, images, strict=True):
        image.label = None if label is None else class_id(label, classes["label"])
        if row.objects is not None:
            image.box_labels = [class_id(category, classes["boxes"]) for _, category in row.objects]
        if not classes["boxes"]:
            image.boxes = image.box_labels = None
    return {name: Target(kind=KINDS[name], classes=names) for name, names in classes.items() if names}


def _map_targets(images: dict[str, ImageRecord], headers: HeaderIndex) -> dict[str, Target]:
    """The targets of the maps that any image has."""
    names = [name for name in FORMATS if any(image.map_path(name) for image in images.values())]
    classes = {name: numbered_classes(name, images, headers) for name in names if FORMATS[name].class_list}
    usable = [name for name in names if classes.get(name, True)]  # a file may contain pixels to ignore alone
    return {name: Target(kind=KINDS[name], classes=classes.get(name, ())) for name in usable}


METADATA_FOLDER = Layout(
    name="Hugging Face image folder",
    looks_like="images beside metadata.jsonl or metadata.csv with a column file_name, or such a file in each split",
    fits=is_metadata_folder,
    read=read_metadata_folder,
)
