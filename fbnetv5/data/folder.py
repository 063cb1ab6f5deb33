"""A user's own images: one folder, all tasks, and any label may be missing.

    images/NAME.jpg         jpg, jpeg, png, webp or bmp
    instances.json          COCO's format (Lin et al., arXiv:1405.0312), plus what COCO has no place for:
                            "label" of an image, top-level "labels", "mask_classes" and "part_classes" (names in the
                            order of ids), "split": "test" of an image of the test split, "boxes": false of an image
                            whose boxes are not labelled, and "soft_label": {"cat": 0.7, "dog": 0.2}, a teacher's
                            probabilities of the most probable classes of an image, of those in "labels"
    masks/, parts/, saliency/, edges/, depth/, normals/NAME.png   see ``fbnetv5.data.maps``

An image that lacks a task's labels trains the other tasks: no "label"; not listed in "images" (its boxes are unknown;
listed without annotations means that it has no objects); no file of its name in masks/ and its siblings. JSON, file
names and image headers are checked on opening, so that a search does not fail hours later; an image whose pixels cannot
be read raises an error when it is read.
Sizes and boxes refer to the image as it is shown, after its EXIF orientation.

Crowds (``iscrowd`` annotations) are no objects to learn, and the metric of boxes ignores detections that match them.
Left out: polygons.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from export.errors import UserError
from fbnetv5.data.file_names import repair_file_names
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import DEEP_MODES, SUFFIXES, list_image_names
from fbnetv5.data.labelled_images import Corners, ImageRecord, LabelledImages
from fbnetv5.data.maps import FORMATS, find_maps
from fbnetv5.data.notes import Notes
from fbnetv5.data.soft_labels import add_soft_labels
from fbnetv5.data.split_names import as_test_split, is_validation
from fbnetv5.data.targets import BOXES, CLASS, IGNORE, IGNORED_BOXES, SOFT_LABEL, Kind, Target

T = TypeVar("T")

OUTSIDE_PIXELS = 1.0
"""A box may reach this far outside of its image, as rounding makes it; it is then cut."""
UNLIKELY_PIXELS = 1 << 31
"""No coordinate reaches this; infinity and "not a number" fail the comparison too."""
KINDS: Mapping[str, Kind] = {
    "label": CLASS,
    "boxes": BOXES,
    IGNORED_BOXES: BOXES,
    "soft_label": SOFT_LABEL,
    **{name: form.kind for name, form in FORMATS.items()},
}
"""By name, the kind of each target that a folder for several tasks can have."""


def list_images(folder: Path, headers: HeaderIndex) -> dict[str, ImageRecord]:
    """Records of the images in a folder by file name, sorted, headers checked and labels still missing."""
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist: an image set keeps its images there")
    names = list_image_names(folder)
    if not names:
        raise UserError(f"{folder} holds no image: put {', '.join(SUFFIXES)} files there")
    by_stem: dict[str, str] = {}
    for name in names:
        if (other := by_stem.setdefault(name.rpartition(".")[0], name)) is not name:
            raise UserError(
                f"{folder / other} and {folder / name} share one name, so one mask would serve both. Rename one of them"
            )
    return {name: image_record(f"{folder}{os.sep}{name}", headers) for name in names}


def image_record(path: str, headers: HeaderIndex) -> ImageRecord:
    """The record of an image without labels, its header checked."""
    header = headers.header(path)
    if header.mode[0] in DEEP_MODES:
        raise UserError(f"{path} has more than 8 bits a channel (mode {header.mode}). Save it with 8")
    return ImageRecord(path=path, size=header.size)


def field(record: Any, key: str, kind: type[T], where: str) -> T:
    """``record[key]``, of type ``kind``.

    Raises:
        UserError: the record is no object, lacks the key, or has a value of another type.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where} must be an object, got {short(record)}")
    if key not in record:
        raise UserError(f'{where} lacks "{key}": add it')
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f'{where}: "{key}" must be of type {kind.__name__}, got {short(value)}')
    return value


def class_list(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A top-level list of distinct class names, () where the document has none."""
    if key not in document:
        return ()
    listed = field(document, key, list, where)
    if not all(isinstance(name, str) and name for name in listed) or len(set(listed)) != len(listed):
        raise UserError(f'{where}: "{key}" must be a list of distinct names, got {short(listed)}')
    return tuple(listed)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object at ``path``."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it a readable file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON in UTF-8 ({error}). Export it again") from None
    if not isinstance(document, dict):
        raise UserError(f'{path} must hold a JSON object with "images", got {short(document)}')
    return document


def read_image_records(
    document: dict[str, Any], images: dict[str, ImageRecord], where: str
) -> dict[int, dict[str, Any]]:
    """The records of "images" by id, each checked against its file."""
    records: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, record in enumerate(field(document, "images", list, where)):
        here = f"{where}: images[{position}]"
        key, name = field(record, "id", int, here), field(record, "file_name", str, here)
        stated = field(record, "height", int, here), field(record, "width", int, here)
        if name not in images:
            raise UserError(f"{here} lists {name!r}, which is not in images/. Add the file or remove its record")
        if name in seen or key in records:
            raise UserError(f"{here} repeats the file name {name!r} or the id {key}. Keep one record per image")
        if stated != images[name].size:
            height, width = images[name].size
            raise UserError(
                f"{here} says {name!r} is {stated[1]}x{stated[0]}, its file is {width}x{height} "
                "(width x height, upright). Correct the record and its boxes"
            )
        seen.add(name)
        records[key] = record
    return records


def add_labels(
    records: dict[int, dict[str, Any]], images: dict[str, ImageRecord], declared: tuple[str, ...], where: str
) -> tuple[str, ...]:
    """Add each listed image's class to its record; return the names of the classes."""
    labels = {record["file_name"]: record["label"] for record in records.values() if record.get("label") is not None}
    classes = declared or tuple(sorted({label for label in labels.values() if isinstance(label, str)}))
    class_ids = {name: class_id for class_id, name in enumerate(classes)}
    for name, label in labels.items():
        if isinstance(label, str) and label in class_ids:
            images[name].label = class_ids[label]
        elif isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(classes):
            images[name].label = label
        else:
            raise UserError(
                f'{where}: label {short(label)} of {name!r} is none of the {len(classes)} "labels". '
                'Use a name or an index of the top-level "labels" list'
            )
    return classes


def read_categories(document: dict[str, Any], where: str) -> dict[int, str]:
    """The names of the box classes by category id, in the order of the ids."""
    categories: dict[int, str] = {}
    for position, record in enumerate(field(document, "categories", list, where) if "categories" in document else ()):
        here = f"{where}: categories[{position}]"
        key, name = field(record, "id", int, here), field(record, "name", str, here)
        if key in categories or name in categories.values():
            raise UserError(f"{here} repeats the id {key} or the name {name!r}. Keep one category per id and name")
        categories[key] = name
    return dict(sorted(categories.items()))


def box_corners(bbox: list[Any], size: tuple[int, int], where: str) -> Corners:
    """COCO's [x, y, w, h] as corners, inside of the image."""
    if len(bbox) != 4 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in bbox):
        raise UserError(f'{where}: "bbox" must be four numbers [x, y, width, height], got {short(bbox)}')
    x, y, w, h = bbox
    if not all(abs(v) < UNLIKELY_PIXELS for v in bbox) or w <= 0 or h <= 0:
        raise UserError(
            f"{where}: box {short(bbox)} must be finite, with width and height above 0. Correct or remove it"
        )
    height, width = size
    beyond = max(-x, -y, x + w - width, y + h - height)
    cut = (max(0.0, float(x)), max(0.0, float(y)), min(float(width), x + w), min(float(height), y + h))
    if beyond > OUTSIDE_PIXELS or cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise UserError(
            f"{where}: box {short(bbox)} reaches outside of its {width}x{height} image. "
            "Boxes are [x, y, width, height] in pixels: correct or remove it"
        )
    return cut


def add_boxes(
    document: dict[str, Any],
    records: dict[int, dict[str, Any]],
    images: dict[str, ImageRecord],
    where: str,
    notes: Notes,
) -> tuple[str, ...]:
    """Add each listed image's boxes and crowds to its record; return the names of the classes."""
    categories = read_categories(document, where)
    annotations = field(document, "annotations", list, where) if "annotations" in document else []
    objects: dict[int, list[tuple[Corners, int]]] = {key: [] for key in records}
    crowds: dict[int, list[tuple[Corners, int]]] = {key: [] for key in records}
    classes = {key: position for position, key in enumerate(categories)}
    for position, annotation in enumerate(annotations):
        here = f"{where}: annotations[{position}]"
        if isinstance(annotation, dict) and "id" in annotation:
            here += f" (id {short(annotation['id'])})"
        image_id, category = field(annotation, "image_id", int, here), field(annotation, "category_id", int, here)
        if image_id not in records:
            raise UserError(
                f'{here} is of image {image_id}, which "images" does not list. Add its record or remove this'
            )
        if category not in classes:
            raise UserError(f'{here} has category {category}, which "categories" does not list. Add it or correct this')
        if (is_crowd := annotation.get("iscrowd", 0)) not in (0, 1):
            raise UserError(f'{here}: "iscrowd" must be 0 or 1, got {short(is_crowd)}. Correct it')
        corners = box_corners(field(annotation, "bbox", list, here), images[records[image_id]["file_name"]].size, here)
        (crowds if is_crowd else objects)[image_id].append((corners, classes[category]))
    if "annotations" in document and categories:
        for key, record in records.items():
            if record.get("boxes") is False:
                if objects[key] or crowds[key]:
                    raise UserError(f'{where}: image {key} has "boxes": false and annotations. Remove one of them')
                continue
            set_boxes(images[record["file_name"]], objects[key], crowds[key])
            notes.add("crowds left out of training", len(crowds[key]))
    return tuple(categories.values())


def set_boxes(image: ImageRecord, objects: list[tuple[Corners, int]], ignored: list[tuple[Corners, int]]) -> None:
    """Set the boxes of a record and its ignored boxes, each with its class id."""
    image.boxes, image.box_labels = [corners for corners, _ in objects], [label for _, label in objects]
    if ignored:
        image.ignored_boxes, image.ignored_box_labels = map(list, zip(*ignored, strict=True))


def add_maps(folder: Path, target: str, images: Mapping[str, ImageRecord], headers: HeaderIndex) -> bool:
    """Add the files of a target to the images' records, headers checked; return whether there is any file."""
    if not folder.is_dir():
        return False
    by_stem = {image.stem: image for image in images.values()}
    paths = find_maps(folder, target, {stem: image.size for stem, image in by_stem.items()}, headers)
    for stem, path in paths.items():
        image = by_stem[stem]
        image.maps = {**(image.maps or {}), target: path}
    return bool(paths)


def has_maps(root: Path) -> bool:
    """Whether any folder of maps of a data set has a file."""
    folders = (root / form.folder for form in FORMATS.values())
    return any(list_image_names(folder) for folder in folders if folder.is_dir())


def numbered_classes(target: str, images: Mapping[str, ImageRecord], headers: HeaderIndex) -> tuple[str, ...]:
    """Names for the ids of class maps without declared names: "class 0" and so on; reads all files not indexed."""
    paths = [path for image in images.values() if (path := image.map_path(target)) is not None]
    max_id = max((id_ for path in paths for id_ in headers.class_ids(path) if id_ != IGNORE), default=-1)
    return tuple(f"class {number}" for number in range(max_id + 1))


def read_several_tasks(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder for several tasks, everything but the pixels checked; see the module.

    Args:
        root: the folder; see the module.
        headers: of the data set.

    Raises:
        UserError: something is missing or wrong; the message names it and the way out.
    """
    if not root.is_dir():
        raise UserError(
            f"folder {root} does not exist: name a folder with images/ and, for example, instances.json or masks/"
        )
    images = list_images(root / "images", headers)
    maps = [name for name, form in FORMATS.items() if add_maps(root / form.folder, name, images, headers)]
    document: dict[str, Any] = {"images": []}
    where = str(root / "instances.json")
    if (root / "instances.json").exists():
        document = read_document(root / "instances.json")
    elif not maps:
        folders = ", ".join(f"{form.folder}/" for form in FORMATS.values())
        raise UserError(f"{root} has no instances.json and no file in any of {folders}: label for one task at least")
    notes = Notes()
    for position, record in enumerate(field(document, "images", list, where)):
        field(record, "file_name", str, f"{where}: images[{position}]")
    repair_file_names(document["images"], root / "images", notes)
    records = read_image_records(document, images, where)
    classes = {
        "label": add_labels(records, images, class_list(document, "labels", where), where),
        "boxes": add_boxes(document, records, images, where, notes),
    }
    classes["soft_label"] = add_soft_labels(records, images, classes["label"], where)
    for name, form in FORMATS.items():
        if form.class_list is not None:
            classes[name] = class_list(document, form.class_list, where) or numbered_classes(name, images, headers)
    if not any(image.is_labelled for image in images.values()):
        raise UserError(f"{where} labels no image, and neither do the folders beside it: label one at least")
    test = frozenset(record["file_name"] for record in records.values() if is_validation(str(record.get("split"))))
    targets = {name: Target(kind=KINDS[name], classes=labels) for name, labels in classes.items() if labels}
    targets |= {name: Target(kind=KINDS[name]) for name in maps if name not in classes}
    return LabelledImages(images, targets, test=as_test_split(test, images), notes=notes.lines())
