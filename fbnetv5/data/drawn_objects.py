"""What exports of annotation tools share: drawn objects give boxes, and a class map where all of them have a shape."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fbnetv5.data.folder import box_corners
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.notes import Notes
from fbnetv5.data.shape_maps import Shape, ShapeMaps, map_classes, map_ids
from fbnetv5.data.targets import BOXES, CLASS, CLASS_MAP, IGNORE, Target

ROTATED = "rotated rectangles, of which the upright box around them is read"
"""A note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnObject:
    """An object of an image, in its pixels."""

    class_id: int
    outline: list[float] | Shape
    """A box [x, y, width, height], or its shape."""
    where: str
    """The annotation, for messages."""


@dataclass(slots=True, kw_only=True)
class DrawnObjects:
    """Adds objects to the records of images, and keeps what class maps need."""

    labels: tuple[str, ...]
    """Classes of images."""
    objects: tuple[str, ...]
    """Classes of objects."""
    notes: Notes
    shapes: dict[str, list[Shape]] = field(default_factory=dict)
    """By path of the image, where all objects have a shape."""

    def map_id(self, class_id: int) -> int:
        """The id in class maps of a class of objects."""
        return map_ids(self.objects)[class_id]

    def add(self, record: ImageRecord, objects: Iterable[DrawnObject], *, is_complete: bool) -> None:
        """Add the objects of an image to its record.

        Args:
            record: of the image.
            objects: that are read.
            is_complete: the image has no other objects.

        Raises:
            UserError: an object reaches outside of the image.
        """
        if not self.objects:
            return
        record.boxes, record.box_labels = [], []
        shapes: list[Shape] = []
        for item in objects:
            box = item.outline.bbox if isinstance(item.outline, Shape) else item.outline
            is_complete &= isinstance(item.outline, Shape)
            if not box[2] or not box[3]:
                self.notes.add("objects without width or height left out")
                continue
            record.boxes.append(box_corners(box, record.size, item.where))
            record.box_labels.append(item.class_id)
            shapes += [item.outline] if isinstance(item.outline, Shape) else []
        if is_complete:
            self.shapes[record.path] = shapes

    def data_set(self, images: dict[str, ImageRecord], test: frozenset[str] = frozenset()) -> LabelledImages:
        """The data set; class maps belong to it if any image has shapes and there are few enough classes."""
        targets = {"label": Target(kind=CLASS, classes=self.labels)} if self.labels else {}
        targets |= {"boxes": Target(kind=BOXES, classes=self.objects)} if self.objects else {}
        readers: dict[str, Any] = {}
        if any(self.shapes.values()) and 1 < len(map_classes(self.objects)) <= IGNORE:
            targets["mask"] = Target(kind=CLASS_MAP, classes=map_classes(self.objects))
            readers["mask"] = ShapeMaps(self.shapes, {image.path: image.size for image in images.values()})
            for image in images.values():
                image.maps = {"mask": image.path} if image.path in self.shapes else None
        return LabelledImages(images, targets, test=test, readers=readers, notes=self.notes.lines())


def upright_box(box: list[float], degrees: float, pivot: tuple[float, float], size: tuple[int, int]) -> list[float]:
    """The upright box around a rotated one, cut to the image.

    Args:
        box: [x, y, width, height] before the rotation.
        degrees: of the rotation, clockwise as images are shown.
        pivot: point (x, y) that it is rotated around.
        size: (H, W) of the image.

    Returns:
        [x, y, width, height].
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x - pivot[0], y - pivot[1]) for x in (box[0], box[0] + box[2]) for y in (box[1], box[1] + box[3])]
    xs = [pivot[0] + x * cosine - y * sine for x, y in corners]
    ys = [pivot[1] + x * sine + y * cosine for x, y in corners]
    left, top = max(0.0, min(xs)), max(0.0, min(ys))
    return [left, top, min(float(size[1]), max(xs)) - left, min(float(size[0]), max(ys)) - top]
