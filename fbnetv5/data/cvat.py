"""CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format/): all of boxes, class maps and classes.

    annotations.xml
    images/NAME.jpg             images/SUBSET/NAME.jpg in exports of projects; or beside annotations.xml

Rectangles, polygons and masks give boxes. Those of an image whose shapes are polygons and masks alone give its class
map over background, class 0. Where shapes overlap, the one with the larger ``z_order`` is in front; pixels of several
classes of one order are ignored. The tag of an image is its class. A subset with the name of a validation split is the
test split. Labels of type tag, and those that tags alone use, are classes of images; all others are classes of boxes.

A rotated rectangle gives the upright box around it. Left out: polylines, points, ellipses, cuboids, skeletons,
attributes, and exports of videos, whose shapes are tracks.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import UserError
from fbnetv5.data.cvat_file import CvatFile, CvatImage, Item, Parser
from fbnetv5.data.folder import box_corners, image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.instance_masks import BACKGROUND
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.notes import Notes
from fbnetv5.data.shape_maps import Shape, ShapeMaps
from fbnetv5.data.split_names import as_test_split, is_validation
from fbnetv5.data.targets import BOXES, CLASS, CLASS_MAP, IGNORE, Target

FILE = "annotations.xml"
HEAD_BYTES = 4096
OBJECTS = ("box", "polygon", "mask", "ellipse", "cuboid", "skeleton")
"""Shapes that cover an area."""
READ = ("box", "polygon", "mask")


def is_cvat(root: Path) -> bool:
    """Whether a folder has such a file."""
    try:
        with (root / FILE).open("rb") as file:
            return b"<annotations" in file.read(HEAD_BYTES)
    except OSError:
        return False


def read_cvat(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of this layout; images are named by their paths in the folder of images.

    Raises:
        UserError: the file is damaged, or an image or a shape is wrong.
    """
    content, notes = Parser(root / FILE).parse(), Notes()
    tags, objects = _classes(content)
    reader = _Reader(root=root, headers=headers, tags=tags, objects=objects, notes=notes)
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    for image in content.images:
        name, record = reader.record(image)
        if name in images:
            raise UserError(f"{image.where} lists {name!r} again. Keep one element per image")
        images[name] = record
        if is_validation(image.attributes.get("subset", "")):
            test.add(name)
    if not any(image.boxes or image.label is not None for image in images.values()):
        raise UserError(f"{root / FILE} has no box, polygon, mask or tag of any image. Annotate one at least")
    return reader.data_set(images, as_test_split(test, images))


def _classes(content: CvatFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes of images and those of objects, in the order of the labels."""
    uses = {(item.label, item.kind == "tag"): item for image in content.images for item in image.items}
    tagged = {label for label, is_tag in uses if is_tag}
    drawn = {label for label, is_tag in uses if not is_tag}
    for (label, _), item in uses.items():
        if label not in content.labels:
            raise UserError(f"{item.where} has the label {label!r}, which the file does not list. Export it again")
    tags = tuple(label for label, kind in content.labels.items() if label in tagged or kind == "tag")
    return tags, tuple(label for label in content.labels if label in drawn or label not in tags)


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Reads the elements of a file, and keeps what class maps need."""

    root: Path
    headers: HeaderIndex
    tags: tuple[str, ...]
    objects: tuple[str, ...]
    notes: Notes
    shapes: dict[str, list[Shape]] = field(default_factory=dict)
    """By path of the image, where all objects have a shape."""

    def record(self, image: CvatImage) -> tuple[str, ImageRecord]:
        """Name and record of an image.

        Raises:
            UserError: its file is missing or of another size, or a shape is wrong.
        """
        name, path = self._find(image)
        record = image_record(str(path), self.headers)
        stated = tuple(image.attributes.get(side) for side in ("height", "width"))
        if stated != tuple(map(str, record.size)):
            raise UserError(
                f"{image.where} says that {name!r} is {stated[1]}x{stated[0]}, its file is {record.size[1]}x"
                f"{record.size[0]} (width x height, upright). Export the file again"
            )
        record.label = self._label(image)
        if self.objects:
            self._add_objects(record, image)
        return name, record

    def _find(self, image: CvatImage) -> tuple[str, Path]:
        name, subset = image.attributes.get("name", "").replace("\\", "/"), image.attributes.get("subset", "")
        folder = self.root / "images"
        for place in (folder / subset / name, folder / name, self.root / name):
            if name and place.is_file():
                return place.relative_to(folder if place.is_relative_to(folder) else self.root).as_posix(), place
        raise UserError(f'{image.where} lists {name!r}, which is not in {folder}. Export the task with "Save images"')

    def _label(self, image: CvatImage) -> int | None:
        labels = {item.label for item in image.items if item.kind == "tag"}
        if len(labels) > 1:
            self.notes.add("images with several tags, whose class is left out")
        return self.tags.index(labels.pop()) if len(labels) == 1 else None

    def _add_objects(self, record: ImageRecord, image: CvatImage) -> None:
        """Add boxes to a record, and the shapes of its class map where all objects have one."""
        record.boxes, record.box_labels = [], []
        shapes: list[Shape] = []
        for item in image.items:
            if item.kind not in READ:
                if item.kind != "tag":
                    self.notes.add(f"{item.kind} elements left out")
                continue
            class_id = self.objects.index(item.label)
            shape = None if item.kind == "box" else _shape(item, class_id + 1, record.size)
            box = self._box(item, record.size) if shape is None else shape.bbox
            if not box[2] or not box[3]:
                self.notes.add("shapes without width or height left out")
                continue
            record.boxes.append(box_corners(box, record.size, item.where))
            record.box_labels.append(class_id)
            shapes += [] if shape is None else [shape]
        if len(shapes) == sum(item.kind in OBJECTS for item in image.items):
            self.shapes[record.path] = shapes

    def _box(self, item: Item, size: tuple[int, int]) -> list[float]:
        """[x, y, width, height] of a rectangle, or of the upright one around a rotated one."""
        x0, y0, x1, y1 = (item.number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        angle = math.radians(item.number("rotation", "0"))
        if not angle:
            return [x0, y0, x1 - x0, y1 - y0]
        self.notes.add("rotated rectangles, of which the upright box around them is read")
        cosine, sine, (width, height) = abs(math.cos(angle)), abs(math.sin(angle)), (x1 - x0, y1 - y0)
        half_w, half_h = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        left, top = max(0.0, x - half_w), max(0.0, y - half_h)
        right, bottom = min(float(size[1]), x + half_w), min(float(size[0]), y + half_h)
        return [left, top, right - left, bottom - top]

    def data_set(self, images: dict[str, ImageRecord], test: frozenset[str]) -> LabelledImages:
        """The data set; class maps belong to it if any image has shapes and there are few enough classes."""
        targets = {"label": Target(kind=CLASS, classes=self.tags)} if self.tags else {}
        targets |= {"boxes": Target(kind=BOXES, classes=self.objects)} if self.objects else {}
        readers: dict[str, Any] = {}
        if any(self.shapes.values()) and len(self.objects) < IGNORE:
            targets["mask"] = Target(kind=CLASS_MAP, classes=(BACKGROUND, *self.objects))
            sizes = {image.path: image.size for image in images.values()}
            readers["mask"] = ShapeMaps(self.shapes, sizes)
            for image in images.values():
                image.maps = {"mask": image.path} if image.path in self.shapes else None
        return LabelledImages(images, targets, test=test, readers=readers, notes=self.notes.lines())


def _shape(item: Item, class_id: int, size: tuple[int, int]) -> Shape:
    """The shape of a polygon or mask.

    Raises:
        UserError: its points or run lengths are malformed.
    """
    order = item.number("z_order", "0")
    if item.kind == "polygon":
        points = _numbers(item, "points", ";", ",")
        if len(points) < 6 or len(points) % 2:
            raise UserError(f"{item.where}: a polygon needs three points x,y;x,y;x,y. Correct or remove it")
        return Shape(class_id=class_id, order=order, polygons=(points,))
    left, top, width, height = (int(item.number(name)) for name in ("left", "top", "width", "height"))
    runs = np.array(_numbers(item, "rle", ","), dtype=np.int64)
    is_inside = min(left, top) >= 0 and left + width <= size[1] and top + height <= size[0]
    if not is_inside or (runs < 0).any() or runs.sum() != width * height or not width * height:
        raise UserError(
            f"{item.where}: the run lengths of a mask must cover its {width}x{height} pixels inside of the image. "
            "Export the file again"
        )
    return Shape(class_id=class_id, order=order, place=(left, top, width, height), runs=tuple(runs.tolist()))


def _numbers(item: Item, name: str, *separators: str) -> tuple[float, ...]:
    text = item.attributes.get(name, "")
    for separator in separators:
        text = text.replace(separator, " ")
    try:
        numbers = tuple(map(float, text.split()))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError(f"{item.where}: {name!r} of a {item.kind} must be numbers. Export the file again")
    return numbers


CVAT = Layout(
    name="CVAT",
    looks_like="annotations.xml of CVAT for images and images/",
    fits=is_cvat,
    read=read_cvat,
)
