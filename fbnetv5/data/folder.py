"""A user's own images: one folder, all tasks, and any label may be missing.

    images/NAME.jpg         jpg, jpeg, png, webp or bmp
    instances.json          COCO's format (Lin et al., arXiv:1405.0312), plus what COCO has no place for:
                            "label" of an image, top-level "labels" and "mask_classes" (names in the order of ids)
    masks/NAME.png          class id of each pixel (grey or palette), 255 where nobody knows
    saliency/, edges/, depth/NAME.png   see ``fbnetv5.data.maps``

An image that lacks a task's labels trains the other tasks: no "label"; not listed in "images" (its boxes are unknown;
listed without annotations says "nothing here"); no file of its name in masks/ and its siblings. What JSON, file names
and image headers can tell is checked on opening, so that a search does not die of it hours later; an image whose
pixels cannot be read says so when it is.
Sizes and boxes refer to the image as it is shown, after its EXIF orientation.

Left out: polygons and crowds (``iscrowd`` annotations are skipped), and keeping the aspect when images are resized.
"""

import json
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Any, Self, TypeVar

import numpy as np
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.image_files import SUFFIXES, is_image, opened, upright, upright_size
from fbnetv5.data.maps import FORMATS, find_maps, number_of_mask_classes
from fbnetv5.data.sample import Sample
from fbnetv5.data.targets import BOXES, CLASS, IGNORE, Boxes, Target

T = TypeVar("T")
Corners = tuple[float, float, float, float]

OUTSIDE_PIXELS = 1.0
"""A box may reach this far outside of its image, as rounding makes it; it is then cut."""
UNLIKELY_PIXELS = 1 << 31
"""No coordinate reaches this; infinity and "not a number" fail the comparison too."""
DEEP_MODES = ("I", "F")
"""First letters of Pillow's modes of more than 8 bits a channel."""


@dataclass(slots=True, kw_only=True)
class Labelled:
    """An image and its labels, in the file's own pixels."""

    path: Path
    size: tuple[int, int]
    """(H, W), upright."""
    label: int | None = None
    boxes: list[Corners] | None = None
    """(x0, y0, x1, y1)."""
    box_labels: list[int] = field(default_factory=list)
    maps: dict[str, Path] = field(default_factory=dict)
    """Files of the labels that are images, by name of the target."""

    @property
    def is_labelled(self) -> bool:
        return self.label is not None or self.boxes is not None or bool(self.maps)


def list_images(folder: Path) -> dict[str, Labelled]:
    """The images in a folder by file name, in the order of their names, headers read."""
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist: an image set keeps its images there")
    paths = sorted(path for path in folder.iterdir() if is_image(path))
    if not paths:
        raise UserError(f"{folder} holds no image: put {', '.join(SUFFIXES)} files there")
    images: dict[str, Labelled] = {}
    by_stem: dict[str, Path] = {}
    for path in paths:
        if (other := by_stem.setdefault(path.stem, path)) is not path:
            raise UserError(f"{other} and {path} share one name, so one mask would serve both. Rename one of them")
        images[path.name] = read_header(path)
    return images


def read_header(path: Path) -> Labelled:
    """The image at ``path``, without labels yet."""
    with opened(path) as image:
        if image.mode[0] in DEEP_MODES:
            raise UserError(f"{path} has more than 8 bits a channel (mode {image.mode}). Save it with 8")
        return Labelled(path=path, size=upright_size(image))


def entry(record: Any, key: str, kind: type[T], where: str) -> T:
    """``record[key]``, of type ``kind``.

    Raises:
        UserError: the record is no object, lacks the key, or holds another type there.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where} must be an object, got {short(record)}")
    if key not in record:
        raise UserError(f'{where} lacks "{key}": add it')
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f'{where}: "{key}" must be of type {kind.__name__}, got {short(value)}')
    return value


def names(document: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A top-level list of distinct names, () where the document has none."""
    if key not in document:
        return ()
    listed = entry(document, key, list, where)
    if not all(isinstance(name, str) and name for name in listed) or len(set(listed)) != len(listed):
        raise UserError(f'{where}: "{key}" must be a list of distinct names, got {short(listed)}')
    return tuple(listed)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object at ``path``."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it a readable file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON in UTF-8 ({error}). Export it again") from None
    if not isinstance(document, dict):
        raise UserError(f'{path} must hold a JSON object with "images", got {short(document)}')
    return document


def listed_images(document: dict[str, Any], images: dict[str, Labelled], where: str) -> dict[int, dict[str, Any]]:
    """The records of "images" by id, each checked against its file."""
    records: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, record in enumerate(entry(document, "images", list, where)):
        here = f"{where}: images[{position}]"
        key, name = entry(record, "id", int, here), entry(record, "file_name", str, here)
        stated = entry(record, "height", int, here), entry(record, "width", int, here)
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


def set_labels(
    records: dict[int, dict[str, Any]], images: dict[str, Labelled], declared: tuple[str, ...], where: str
) -> tuple[str, ...]:
    """Give each listed image its class; return the names of the classes."""
    given = {record["file_name"]: record["label"] for record in records.values() if record.get("label") is not None}
    known = declared or tuple(sorted({label for label in given.values() if isinstance(label, str)}))
    for name, label in given.items():
        if isinstance(label, str) and label in known:
            images[name].label = known.index(label)
        elif isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(known):
            images[name].label = label
        else:
            raise UserError(
                f'{where}: label {short(label)} of {name!r} is none of the {len(known)} "labels". '
                'Use a name or an index of the top-level "labels" list'
            )
    return known


def read_categories(document: dict[str, Any], where: str) -> dict[int, str]:
    """Names of what boxes hold by category id, in the order of the ids."""
    categories: dict[int, str] = {}
    for position, record in enumerate(entry(document, "categories", list, where) if "categories" in document else ()):
        here = f"{where}: categories[{position}]"
        key, name = entry(record, "id", int, here), entry(record, "name", str, here)
        if key in categories or name in categories.values():
            raise UserError(f"{here} repeats the id {key} or the name {name!r}. Keep one category per id and name")
        categories[key] = name
    return dict(sorted(categories.items()))


def corners(bbox: list[Any], size: tuple[int, int], where: str) -> Corners:
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


def set_boxes(
    document: dict[str, Any], records: dict[int, dict[str, Any]], images: dict[str, Labelled], where: str
) -> tuple[str, ...]:
    """Give each listed image its boxes; return the names of the classes."""
    categories = read_categories(document, where)
    annotations = entry(document, "annotations", list, where) if "annotations" in document else []
    boxes: dict[int, list[Corners]] = {key: [] for key in records}
    classes = {key: position for position, key in enumerate(categories)}
    for position, annotation in enumerate(annotations):
        here = f"{where}: annotations[{position}]"
        if isinstance(annotation, dict) and "id" in annotation:
            here += f" (id {short(annotation['id'])})"
        image_id, category = entry(annotation, "image_id", int, here), entry(annotation, "category_id", int, here)
        if image_id not in records:
            raise UserError(
                f'{here} is of image {image_id}, which "images" does not list. Add its record or remove this'
            )
        if category not in classes:
            raise UserError(f'{here} has category {category}, which "categories" does not list. Add it or correct this')
        if annotation.get("iscrowd") == 1:
            continue
        image = images[records[image_id]["file_name"]]
        boxes[image_id].append(corners(entry(annotation, "bbox", list, here), image.size, here))
        image.box_labels.append(classes[category])
    if "annotations" in document and categories:
        for key, record in records.items():
            images[record["file_name"]].boxes = boxes[key]
    return tuple(categories.values())


def set_maps(folder: Path, target: str, images: Mapping[str, Labelled]) -> bool:
    """Give each image its file of a target, headers checked; whether there is any."""
    by_stem = {image.path.stem: image for image in images.values()}
    files = find_maps(folder, target, {stem: image.size for stem, image in by_stem.items()})
    for stem, path in files.items():
        by_stem[stem].maps[target] = path
    return bool(files)


def mask_classes(images: Mapping[str, Labelled]) -> tuple[str, ...]:
    """Names for the class ids of masks that nobody named: "class 0" and so on."""
    masks = [image.maps["mask"] for image in images.values() if "mask" in image.maps]
    return tuple(f"class {number}" for number in range(number_of_mask_classes(masks)))


class LabelledImages:
    """Images in files and their labels, as a set of images of one size."""

    def __init__(
        self,
        images: dict[str, Labelled],
        targets: Mapping[str, Target],
        *,
        size: tuple[int, int],
        test: frozenset[str] = frozenset(),
        zero_is_ignored: bool = False,
    ) -> None:
        """Take images whose headers and labels are read and checked.

        Args:
            images: by name.
            targets: what they are labelled with.
            size: (H, W) that images are resized to.
            test: names of those that are the test; without any, a share of all will be.
            zero_is_ignored: class ids in mask files start at 1, and 0 is a pixel that nobody knows.
        """
        self.targets = targets
        self.names = tuple(images)
        self.test = test
        self._images = tuple(images.values())
        self._size = size
        self._zero_is_ignored = zero_is_ignored

    def only(self, targets: Collection[str]) -> Self:
        """The same images with the named labels alone; files of the others are not read."""
        fewer = copy(self)
        fewer.targets = {name: target for name, target in self.targets.items() if name in targets}
        return fewer

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """The image at ``index``, resized together with its labels.

        Raises:
            UserError: its pixels cannot be read, or its mask holds an undeclared class id.
        """
        image = self._images[index]
        height, width = self._size
        with opened(image.path) as file:
            pixels = upright(file).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        stored = {name: self._stored(image, name) for name in self.targets}
        return Sample(
            image=torch.from_numpy(np.array(pixels).transpose(2, 0, 1).copy()),
            targets={
                name: self.targets[name].kind.resize(value, image.size, self._size)
                for name, value in stored.items()
                if value is not None and self.targets[name].kind.is_known(value)
            },
        )

    def _stored(self, image: Labelled, target: str) -> Any:
        """A label at the size of its file, None where the image has none."""
        if target == "label":
            return image.label
        if target == "boxes":
            if image.boxes is None:
                return None
            corners = torch.tensor(image.boxes, dtype=torch.float32).reshape(-1, 4)
            return Boxes(corners, torch.tensor(image.box_labels, dtype=torch.int64))
        path = image.maps.get(target)
        if path is None:
            return None
        return self._class_ids(path) if target == "mask" else torch.from_numpy(FORMATS[target].read(path))

    def _class_ids(self, path: Path) -> torch.Tensor:
        ids, classes = FORMATS["mask"].read(path), len(self.targets["mask"].classes)
        if self._zero_is_ignored:
            ids = np.where((ids == 0) | (ids == IGNORE), IGNORE, ids - 1).astype(np.uint8)
        unknown = ids[(ids >= classes) & (ids != IGNORE)]
        if unknown.size:
            stored = int(unknown[0]) + self._zero_is_ignored
            raise UserError(
                f"{path} holds class id {stored}, {classes} mask classes are named. "
                f"Name the class, or use {IGNORE} for pixels to ignore"
            )
        return torch.from_numpy(np.array(ids))


def read_several_tasks(root: Path, size: tuple[int, int]) -> LabelledImages:
    """A folder for several tasks, everything but the pixels checked; see the module.

    Args:
        root: the folder; see the module.
        size: (H, W) that images are resized to.

    Raises:
        UserError: something is missing or wrong; the message names it and the way out.
    """
    if not root.is_dir():
        raise UserError(f"folder {root} does not exist: name one with images/ and, say, instances.json or masks/")
    images = list_images(root / "images")
    maps = [name for name, form in FORMATS.items() if set_maps(root / form.folder, name, images)]
    document: dict[str, Any] = {"images": []}
    where = str(root / "instances.json")
    if (root / "instances.json").exists():
        document = read_document(root / "instances.json")
    elif not maps:
        folders = ", ".join(f"{form.folder}/" for form in FORMATS.values())
        raise UserError(f"{root} has no instances.json and no file in any of {folders}: label for one task at least")
    records = listed_images(document, images, where)
    classes = {
        "label": set_labels(records, images, names(document, "labels", where), where),
        "boxes": set_boxes(document, records, images, where),
        "mask": names(document, "mask_classes", where) or mask_classes(images),
    }
    if not any(image.is_labelled for image in images.values()):
        raise UserError(f"{where} labels no image, and neither do the folders beside it: label one at least")
    kinds = {"label": CLASS, "boxes": BOXES} | {name: form.kind for name, form in FORMATS.items()}
    targets = {name: Target(kind=kinds[name], classes=named) for name, named in classes.items() if named}
    targets |= {name: Target(kind=kinds[name]) for name in maps if name not in classes}
    return LabelledImages(images, targets, size=size)
