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

The first folder of a path is its split if it is named like one. As in ``datasets``, folders do not mean classes where
there is such a file.

Left out: metadata.parquet, other columns, and the names of numbered classes, which only a loading script has.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from reprlib import repr as short
from typing import Any

from export.errors import UserError
from fbnetv5.data.file_names import repair_file_names
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.metadata_rows import (
    NO_CLASS,
    Row,
    add_boxes,
    add_labels,
    add_maps,
    class_number,
    map_targets,
    objects_of,
)
from fbnetv5.data.notes import Notes
from fbnetv5.data.split_names import as_test_split, is_validation

FILES = ("metadata.jsonl", "metadata.csv")
IMAGE_COLUMNS = ("file_name", "image_file_name")
MAP_COLUMNS = {f"{target}_file_name": target for target in FORMATS}
LABEL_COLUMNS = {*MAP_COLUMNS, "label", "objects"}
COLUMNS = {*IMAGE_COLUMNS, *LABEL_COLUMNS}


def metadata_files(root: Path) -> list[Path]:
    """The files with metadata of a folder and of the folders in it, sorted."""
    paths = [path for name in FILES for pattern in (name, f"*/{name}") for path in root.glob(pattern)]
    return sorted(path for path in paths if not path.parent.name.startswith(".") and _has_file_names(path))


def _has_file_names(path: Path) -> bool:
    return "file_name" in _first_line(path)


def _first_line(path: Path) -> str:
    """The first line of a file; "" where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "".join(islice(file, 1))
    except OSError:
        return ""


def has_label_columns(root: Path) -> bool:
    """Whether the first line of such a file in a folder names a column of labels."""
    return any(not LABEL_COLUMNS.isdisjoint(_columns(path)) for path in metadata_files(root))


def _columns(path: Path) -> list[str]:
    """The columns that the first line names."""
    if path.suffix == ".csv":
        return [name.strip() for name in next(csv.reader([_first_line(path)]))]
    try:
        return list(json.loads(_first_line(path)))
    except (ValueError, TypeError):
        return []


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
    targets = add_labels(rows, list(images.values())) | map_targets(images, headers)
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
        row.objects = objects_of(values.get("objects"), row.where)
        rows.append(row)
    others = sorted({key for row in rows for key in row.values} - COLUMNS)
    notes.add(f"columns of {path.name} not read ({', '.join(others)})", len(others))
    repair_file_names([row.values for row in rows], path.parent, notes)
    return rows


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of every line of a file that is not blank."""
    for number, line in enumerate(_text(path).split("\n"), 1):
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
    """Number and content of every row of a file; empty cells are left out.

    Labels are numbers if all of them are, and ``NO_CLASS`` is a number among names too.
    """
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        rows = [(reader.line_num, {key: value for key, value in row.items() if value}) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1} is not valid CSV ({error}). Save it again") from None
    numbers = {row["label"]: class_number(row["label"]) for _, row in rows if "label" in row}
    if None in numbers.values():
        numbers = {text: number for text, number in numbers.items() if number == NO_CLASS}
    for number, row in rows:
        if None in row:
            raise UserError(f"{path}:{number} has more columns than the first line. Put text with commas into quotes")
        label = row.get("label")
        yield number, row | ({"label": numbers[label]} if label in numbers else {})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Save it as text in UTF-8") from None


def _record(row: Row, headers: HeaderIndex) -> ImageRecord:
    """The record of a row's image, with its boxes and maps.

    Raises:
        UserError: a file is missing or unfit, or a box is wrong.
    """
    record = image_record(_file(row, "file_name"), headers)
    add_boxes(record, row)
    add_maps(record, {name: _file(row, key) for key, name in MAP_COLUMNS.items() if row.values.get(key)}, headers)
    return record


def _file(row: Row, column: str) -> str:
    """The path of a file that a row names."""
    path = os.path.normpath(f"{row.folder}{os.sep}{row.values[column]}")
    if not Path(path).is_file():
        raise UserError(
            f"{row.where} lists {row.values[column]!r}, which is not in {row.folder}. Add the file or remove the line"
        )
    return path


METADATA_FOLDER = Layout(
    name="Hugging Face image folder",
    looks_like="images beside metadata.jsonl or metadata.csv with a column file_name, or such a file in each split",
    fits=is_metadata_folder,
    read=read_metadata_folder,
)
