"""The YOLO layout of Ultralytics (docs.ultralytics.com/datasets/detect): detection, and segmentation from polygons.

    data.yaml                       path, train, val, test and names; or the only .yaml file with such lines
    images/train/**/NAME.jpg        the folders, or lists of images, that data.yaml names
    labels/train/**/NAME.txt        of each image, see ``fbnetv5.data.yolo_labels``

The label file of an image is in the folder whose path has "labels" in place of the last "images", or beside the image
where no folder is called images. An image without a label file has no objects.

"path" is where the data set was on another machine as often as not, so a split is searched for in ``data.yaml``'s own
folder too; "../train/images" of Roboflow's exports also means "train/images" there. Images of ``val`` and ``test`` are
the test split, except those that ``train`` has as well, also by a link.

Left out: key points (``kpt_shape``), of which the boxes are read; ``download``; YAML's other lists of arguments.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_document
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import image_names_within
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.notes import Notes
from fbnetv5.data.real_paths import RealPaths
from fbnetv5.data.shape_maps import map_classes, map_ids
from fbnetv5.data.targets import BOXES, CLASS_MAP, IGNORE, Target
from fbnetv5.data.yolo_labels import LabelReader, PolygonMaps, YoloObject

USUAL_NAMES = ("data.yaml", "data.yml")
SPLIT_LINE = re.compile(r"^(train|val)\s*:", re.MULTILINE)
CLASS_LINE = re.compile(r"^(names|nc)\s*:", re.MULTILINE)
TRAINING, TESTS = "train", ("val", "test")


def find_description(root: Path) -> Path | None:
    """The file that describes a data set of this layout: data.yaml, or the only .yaml with splits and classes."""
    for name in USUAL_NAMES:
        path = root / name
        if path.is_file() and (SPLIT_LINE.search(text := _start(path)) or CLASS_LINE.search(text)):
            return path
    others = [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    described = [path for path in others if SPLIT_LINE.search(text := _start(path)) and CLASS_LINE.search(text)]
    return described[0] if len(described) == 1 else None


def _start(path: Path) -> str:
    """The text of a file, without errors; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""


def read_yolo(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of the YOLO layout; images are named by their path in the folder.

    Raises:
        UserError: a split is missing, a label is wrong, or no training image has a label file.
    """
    description = find_description(root)
    if description is None:
        raise UserError(f"{root} has no data.yaml with train, val and names")
    document = read_document(description, what="data set")
    classes, notes = read_names(document, str(description)), Notes()
    reader = LabelReader(num_classes=len(classes), num_keypoint_columns=_keypoint_columns(document, str(description)))
    paths = _paths(document, description)
    if not paths[TRAINING]:
        raise UserError(f'{description}: "train" names no image. Name the folder of the images to learn from')
    training = set(paths[TRAINING])
    files = _Files(root=root, headers=headers, reader=reader, notes=notes)
    records = files.records(paths[TRAINING])
    if not files.label_files:
        raise UserError(
            f'no image of {description}\'s "train" has a label file, such as {label_path(paths[TRAINING][0])}. '
            "Put a .txt for each image there"
        )
    test: set[str] = set()
    for split in TESTS:
        others = [path for path in dict.fromkeys(paths[split]) if path not in training]
        shared = sum(path in training for path in paths[split])
        notes.add(f"images of {split} that train has too, used for training only", shared)
        labelled = any(Path(label_path(path)).is_file() for path in others)
        if others and not labelled:
            notes.add(f"images of {split} without any label file left out", len(others))
            continue
        added = files.records(others)
        records |= added
        test |= added.keys()
    return files.data_set(records, classes, frozenset(test))


def read_names(document: dict[str, Any], where: str) -> tuple[str, ...]:
    """The names of the classes by id, from "names", a list or a map, or numbered up to "nc".

    Raises:
        UserError: there are none, an id is missing, or a name is repeated or no text.
    """
    names, count = document.get("names"), document.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        return tuple(f"class {number}" for number in range(count))
    if isinstance(names, dict):
        by_id = {int(key) if str(key).isdecimal() else key: name for key, name in names.items()}
        if set(by_id) != set(range(len(by_id))):
            raise UserError(f'{where}: the keys of "names" must be 0 to {len(by_id) - 1}, got {list(names)}')
        names = [by_id[number] for number in range(len(by_id))]
    if not isinstance(names, list) or not names:
        raise UserError(f'{where} has no "names". List the names of the classes in the order of their ids')
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float) or name == "":
            raise UserError(f'{where}: "names" contains {name!r}, which is no text. Write names such as no in quotes')
    texts = tuple(map(str, names))
    if repeated := [name for name in texts if texts.count(name) > 1]:
        raise UserError(f"{where} names {repeated[0]!r} twice. Give each class a name of its own")
    if isinstance(count, int) and count != len(texts):
        raise UserError(f'{where}: "nc" is {count} and there are {len(texts)} "names". Make them agree')
    return texts


def _keypoint_columns(document: dict[str, Any], where: str) -> int:
    shape = document.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise UserError(f'{where}: "kpt_shape" must be two numbers, got {shape!r}')
    return int(shape[0] * shape[1])


def _paths(document: dict[str, Any], description: Path) -> dict[str, list[str]]:
    """The images of all splits; an image that links add to further splits has the path of the first."""
    real_path, first = RealPaths(), dict[str, tuple[str, str]]()
    paths: dict[str, list[str]] = {}
    for split in (TRAINING, *TESTS):
        paths[split] = []
        for path in _split_paths(document, split, description):
            first_split, first_path = first.setdefault(real_path(path), (split, path))
            paths[split].append(path if split == first_split else first_path)
    return paths


def _split_paths(document: dict[str, Any], split: str, description: Path) -> Iterator[str]:
    """The images of a split, sorted within each folder."""
    entries = document.get(split)
    for entry in [] if not entries else entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, str):
            raise UserError(f'{description}: "{split}" must be a folder or a list of images, got {entry!r}')
        place = _find(entry, document.get("path"), split, description)
        if place.is_dir():
            names = sorted(image_names_within(place), key=lambda name: name.split("/"))
            yield from (f"{place}{os.sep}{name}" for name in names)
        else:
            yield from _listed_paths(place)


def _find(entry: str, base: Any, split: str, description: Path) -> Path:
    """The folder or file of a split."""
    root, entry = description.parent, entry.replace("\\", "/")
    bases = [root / base, root] if isinstance(base, str) else [root]
    if isinstance(base, str) and Path(base).is_absolute():
        bases.reverse()
    elif isinstance(base, str):
        bases.append(root.parent / base)
    entries = [entry, *([entry.removeprefix("../")] if entry.startswith("../") else [])]
    for folder in bases:
        for name in reversed(entries):
            place = Path(os.path.normpath(folder / name))
            if place.exists():
                return place
    searched = ", ".join(dict.fromkeys(os.path.normpath(folder) for folder in bases))
    raise UserError(
        f'{description}: "{split}" is {entry!r}, which is in none of {searched}. '
        'Correct "path" or the entry, or remove it'
    )


def _listed_paths(file: Path) -> Iterator[str]:
    """The images that a text file lists, relative to the file's folder."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}. It lists the images of a split, a path per line") from None
    for line in filter(None, map(str.strip, lines)):
        yield os.path.normpath(file.parent / line.replace("\\", "/"))


def label_path(image: str) -> str:
    """The label file of an image: "labels" in place of the last folder "images", and .txt."""
    folders, slash, name = image.rpartition(os.sep)
    before, images, after = f"{folders}{slash}".rpartition(f"{os.sep}images{os.sep}")
    folder = f"{before}{os.sep}labels{os.sep}{after}" if images else after
    return f"{folder}{name.rpartition('.')[0]}.txt"


@dataclass(slots=True, kw_only=True)
class _Files:
    """Reads the images and label files of a data set, and keeps what it needs for class maps."""

    root: Path
    headers: HeaderIndex
    reader: LabelReader
    notes: Notes
    label_files: int = 0
    has_polygons: bool = False
    _images: dict[str, str] = field(default_factory=dict)
    """The image of each label file."""

    def records(self, paths: list[str]) -> dict[str, ImageRecord]:
        """Records of images by name, with their boxes and, where these have polygons, their class maps."""
        records: dict[str, ImageRecord] = {}
        for path in paths:
            record, labels = image_record(path, self.headers), label_path(path)
            if (other := self._images.setdefault(labels, path)) != path:
                raise UserError(f"{other} and {path} share the label file {labels}. Rename or remove one of them")
            has_file = Path(labels).is_file()
            self.label_files += has_file
            if not has_file:
                self.notes.add("images without a label file, taken as background")
            objects = self.reader.read(labels, self.notes)
            self._label(record, labels, objects)
            records[Path(os.path.relpath(path, self.root)).as_posix()] = record
        return records

    def _label(self, record: ImageRecord, labels: str, objects: list[YoloObject]) -> None:
        height, width = record.size
        record.boxes = [
            (x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in (item.corners for item in objects)
        ]
        record.box_labels = [item.class_id for item in objects]
        if all(item.polygon is not None for item in objects):
            record.maps = {"mask": labels}
            self.has_polygons |= bool(objects)

    def data_set(
        self, records: dict[str, ImageRecord], classes: tuple[str, ...], test: frozenset[str]
    ) -> LabelledImages:
        """The data set of all records; class maps belong to it if there are polygons and few enough classes."""
        targets = {"boxes": Target(kind=BOXES, classes=classes)}
        sizes: dict[str, tuple[int, int]] = {}
        if self.has_polygons and 1 < len(map_classes(classes)) <= IGNORE:
            targets["mask"] = Target(kind=CLASS_MAP, classes=map_classes(classes))
            sizes = {record.maps["mask"]: record.size for record in records.values() if record.maps}
        for record in records.values():
            record.maps = record.maps if sizes else None
        return LabelledImages(
            records,
            targets,
            test=test,
            readers={"mask": PolygonMaps(self.reader, sizes, map_ids(classes))} if sizes else None,
            notes=self.notes.lines(),
        )


YOLO = Layout(
    name="YOLO",
    looks_like="data.yaml with train, val and names, and labels/ with a .txt of each image's name",
    fits=lambda root: find_description(root) is not None,
    read=read_yolo,
)
