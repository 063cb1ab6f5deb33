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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.errors import UserError
from fbnetv5.data.cvat_file import CvatFile, CvatImage, Item, Parser
from fbnetv5.data.drawn_objects import ROTATED, DrawnObject, DrawnObjects, upright_box
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.notes import Notes
from fbnetv5.data.shape_maps import Shape
from fbnetv5.data.split_names import as_test_split, is_validation

FILE = "annotations.xml"
HEAD_BYTES = 4096
AREAS = ("box", "polygon", "mask", "ellipse", "cuboid", "skeleton")
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
    reader = _Reader(root=root, headers=headers, drawn=DrawnObjects(labels=tags, objects=objects, notes=notes))
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
    return reader.drawn.data_set(images, as_test_split(test, images))


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
    """Reads the elements of images."""

    root: Path
    headers: HeaderIndex
    drawn: DrawnObjects

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
        for item in image.items:
            if item.kind not in (*READ, "tag"):
                self.drawn.notes.add(f"{item.kind} elements left out")
        objects = [self._object(item, record.size) for item in image.items if item.kind in READ]
        self.drawn.add(record, objects, is_complete=len(objects) == sum(item.kind in AREAS for item in image.items))
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
            self.drawn.notes.add("images with several tags, whose class is left out")
        return self.drawn.labels.index(labels.pop()) if len(labels) == 1 else None

    def _object(self, item: Item, size: tuple[int, int]) -> DrawnObject:
        class_id = self.drawn.objects.index(item.label)
        outline = self._box(item, size) if item.kind == "box" else _shape(item, self.drawn.map_id(class_id), size)
        return DrawnObject(class_id=class_id, outline=outline, where=item.where)

    def _box(self, item: Item, size: tuple[int, int]) -> list[float]:
        """[x, y, width, height] of a rectangle, or of the upright one around a rotated one."""
        x0, y0, x1, y1 = (item.number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        box, angle = [x0, y0, x1 - x0, y1 - y0], item.number("rotation", "0")
        if not angle:
            return box
        self.drawn.notes.add(ROTATED)
        return upright_box(box, angle, ((x0 + x1) / 2, (y0 + y1) / 2), size)


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
