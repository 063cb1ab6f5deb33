"""CamVid (Brostow et al., Pattern Recognition Letters 30, 2009) and data sets in its forms: segmentation.

    class_dict.csv                    name,r,g,b       a class per line; or label_colors.txt with "R G B  NAME"
    train/NAME.png, train_labels/NAME_L.png            val and test likewise; or images/ and labels/

    701_StillsRaw_full/NAME.png, LabeledApproved_full/NAME_L.png, label_colors.txt     CamVid as published

    codes.txt                         NAME             a class per line, in the order of their ids
    images/NAME.png, labels/NAME_P.png, valid.txt      fast.ai's copy: ids instead of colours

A label file may have a suffix of one letter, as above, or the name of its image. A class called void, unlabelled or
unlabeled means pixels to ignore. A label that uses colours of no class is refused when it is read. ``valid.txt`` lists
images of the test split, with or without suffix; other images are in the split of their folder.
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import list_image_names, opened, upright
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.listed_images import read_ids
from fbnetv5.data.notes import Notes
from fbnetv5.data.split_names import TRAINING, VALIDATION, as_test_split
from fbnetv5.data.targets import CLASS_MAP, IGNORE, Target

COLOUR_FILES, ID_FILE, TEST_LIST = ("class_dict.csv", "label_colors.txt"), "codes.txt", "valid.txt"
LABEL_FOLDERS = ("{}_labels", "{}annot", "{}_annot", "{}_masks")
"""Names of the folder of labels of a split."""
PAIRS = (("images", "labels"), ("701_StillsRaw_full", "LabeledApproved_full"))
"""Folders of images and labels without splits."""
IGNORED = ("void", "unlabelled", "unlabeled")
LETTER_SUFFIX = re.compile(r"_[A-Za-z]$")
LINE = re.compile(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTable:
    """The classes of a data set by the values of pixels."""

    classes: tuple[str, ...]
    """Without those to ignore."""
    ids: NDArray[np.uint8]
    """[N]: the class of each value, or IGNORE."""
    values: NDArray[np.int64]
    """[N]: colours as numbers, see ``packed``, or the ids in files; ascending."""
    is_coloured: bool

    def __call__(self, path: str) -> NDArray[np.uint8]:
        """The class of each pixel of a label file, uint8 [H, W].

        Raises:
            UserError: it cannot be read, or contains a value of no class.
        """
        with opened(path) as file:
            pixels = np.asarray(upright(file.convert("RGB") if self.is_coloured else file))
        values = packed(pixels) if self.is_coloured else pixels.astype(np.int64)
        if values.ndim != 2:
            raise UserError(f"{path} is in colour, and {ID_FILE} numbers classes. Save it with an id per pixel")
        places = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
        if (others := np.argwhere(self.values[places] != values)).size:
            y, x = others[0].tolist()
            raise UserError(
                f"{path} has {pixels[y, x].tolist()} at x {x}, y {y}, which is no class. Add it to the list of "
                "classes, or correct the file"
            )
        ids: NDArray[np.uint8] = self.ids[places]
        return ids


def packed(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Colours as numbers: [..., 3] -> [...]."""
    numbers: NDArray[np.int64] = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return numbers


def is_colour_maps(root: Path) -> bool:
    """Whether a folder has a list of classes and folders of images and labels."""
    return _table_file(root) is not None and bool(folder_pairs(root))


def _table_file(root: Path) -> Path | None:
    paths = (root / name for name in (*COLOUR_FILES, ID_FILE))
    return next((path for path in paths if path.is_file()), None)


def folder_pairs(root: Path) -> list[tuple[Path, Path]]:
    """The folders of images with those of their labels."""
    pairs = [(root / images, root / labels) for images, labels in PAIRS]
    splits = (path for path in sorted(root.iterdir()) if path.name.lower() in TRAINING + VALIDATION)
    pairs += [(split, root / name.format(split.name)) for split in splits for name in LABEL_FOLDERS]
    return [pair for pair in pairs if all(folder.is_dir() for folder in pair)]


def read_table(path: Path) -> ClassTable:
    """The classes of a data set.

    Raises:
        UserError: a line is wrong, or a class or colour is repeated.
    """
    rows = list(_id_rows(path) if path.name == ID_FILE else _colour_rows(path))
    seen: dict[object, int] = {}
    for number, name, value in rows:
        for key in (name, value):
            if key in seen:
                raise UserError(
                    f"{path}:{number} repeats the name or colour of line {seen[key]}. Keep one line per class"
                )
            seen[key] = number
    classes = tuple(name for _, name, _ in rows if name.lower() not in IGNORED)
    if not classes or len(classes) > IGNORE:
        raise UserError(f"{path} names {len(classes)} classes: 1 to {IGNORE} are possible")
    rows.sort(key=lambda row: row[2])
    ids = [classes.index(name) if name in classes else IGNORE for _, name, _ in rows]
    return ClassTable(
        classes=classes,
        ids=np.array(ids, np.uint8),
        values=np.array([value for _, _, value in rows], np.int64),
        is_coloured=path.name != ID_FILE,
    )


def _id_rows(path: Path) -> Iterator[tuple[int, str, int]]:
    return ((number + 1, name, number) for number, name in enumerate(read_ids(path)))


def _colour_rows(path: Path) -> Iterator[tuple[int, str, int]]:
    """Number of the line, class and colour of each line."""
    for number, line in enumerate(_lines(path), 1):
        is_heading = number == 1 and not re.search(r"\d", line)
        if is_heading or not line.strip():
            continue
        if path.suffix == ".csv":
            cells = next(csv.reader([line]))
            name, colours = cells[0].strip(), [cell.strip() for cell in cells[1:4]]
        else:
            match = LINE.fullmatch(line)
            name, colours = (match[4].strip(), [match[1], match[2], match[3]]) if match else ("", [])
        if not name or len(colours) != 3 or not all(cell.isdecimal() and int(cell) < 256 for cell in colours):
            form = "NAME,R,G,B" if path.suffix == ".csv" else "R G B NAME"
            raise UserError(f"{path}:{number} must be {form} with colours from 0 to 255, got {line.strip()!r}")
        yield number, name, int(packed(np.array(list(map(int, colours)))))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Save it as text in UTF-8") from None


def read_colour_maps(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of this layout; images are named FOLDER/FILE.

    Raises:
        UserError: the list of classes or a label file is wrong, or no image has a label.
    """
    table_file = _table_file(root)
    if table_file is None:
        raise UserError(f"{root} has none of {', '.join((*COLOUR_FILES, ID_FILE))}: list the classes there")
    table, notes = read_table(table_file), Notes()
    images: dict[str, ImageRecord] = {}
    for image_folder, label_folder in folder_pairs(root):
        names = list_image_names(image_folder)
        labels = label_files(label_folder, names)
        notes.add("images without a label file left out", len(names) - len(labels))
        for name, label in labels.items():
            record = image_record(f"{image_folder}{os.sep}{name}", headers)
            record.maps = {"mask": label}
            images[f"{image_folder.name}/{name}"] = record
    if not images:
        folders = " or ".join(str(labels) for _, labels in folder_pairs(root))
        raise UserError(f"{folders} has no label of any image: a label is NAME.png, NAME_L.png or NAME_P.png")
    target = Target(kind=CLASS_MAP, classes=table.classes)
    test = as_test_split(_test_images(root, list(images), notes), images)
    return LabelledImages(images, {"mask": target}, test=test, readers={"mask": table}, notes=notes.lines())


def label_files(folder: Path, images: Sequence[str]) -> dict[str, str]:
    """The label file of each image that has one, of the image's name or with one letter more.

    Raises:
        UserError: two files are the label of one image.
    """
    by_stem: dict[str, list[str]] = {}
    for name in list_image_names(folder):
        stem = name.rpartition(".")[0]
        for key in {stem, LETTER_SUFFIX.sub("", stem)}:
            by_stem.setdefault(key, []).append(f"{folder}{os.sep}{name}")
    labels: dict[str, str] = {}
    for image in images:
        stem = image.rpartition(".")[0]
        paths = by_stem.get(stem, [])
        exact = [path for path in paths if Path(path).stem == stem]
        if len(exact or paths) > 1:
            raise UserError(f"{paths[0]} and {paths[1]} are both the label of one image. Remove one of them")
        if paths:
            labels[image] = (exact or paths)[0]
    return labels


def _test_images(root: Path, names: Sequence[str], notes: Notes) -> set[str]:
    """The images of folders of validation splits, and those that ``valid.txt`` lists."""
    listed = set(read_ids(root / TEST_LIST)) if (root / TEST_LIST).is_file() else set()
    test: set[str] = set()
    unknown = set(listed)
    for name in names:
        split, _, file = name.partition("/")
        spellings = {file, file.rpartition(".")[0]}
        if split.lower() in VALIDATION or spellings & listed:
            test.add(name)
        unknown -= spellings
    notes.add(f"lines of {TEST_LIST} that name no image with a label", len(unknown))
    return test


COLOUR_MAPS = Layout(
    name="CamVid",
    looks_like="class_dict.csv, label_colors.txt or codes.txt, and images/ with labels/ or train/ with train_labels/",
    fits=is_colour_maps,
    read=read_colour_maps,
)
