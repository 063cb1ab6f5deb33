"""Label files of the YOLO layout: an object per line, all coordinates relative to the image's width and height.

    CLASS CX CY W H                 a box by its centre and size
    CLASS X1 Y1 X2 Y2 X3 Y3 ...     a polygon of three points or more, in order

Two kinds of lines differ in their numbers of columns alone, so each line is read on its own. As in Ultralytics
(``verify_image_label``), a coordinate may be outside of [0, 1] by 0.01, which rounding and clicks at the border make,
and repeated lines count once. Ultralytics leaves out an image with any other fault and trains on the rest; here the
fault is an error that names file and line, because a data set that shrinks silently changes what is measured.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from export.errors import UserError
from fbnetv5.data.labelled_images import Corners
from fbnetv5.data.notes import Notes
from fbnetv5.data.targets import IGNORE

TOLERANCE = 0.01
"""How far outside of [0, 1] a coordinate may be."""
BOX_COLUMNS = 5
MIN_POLYGON_COLUMNS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloObject:
    """A line of a label file; coordinates are relative to the image, x and y in turn, within [0, 1]."""

    class_id: int
    corners: Corners
    polygon: tuple[float, ...] | None
    """(x1, y1, x2, y2, ...); None for a box."""

    @property
    def has_area(self) -> bool:
        x0, y0, x1, y1 = self.corners
        return x0 < x1 and y0 < y1


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReader:
    """Reads the label files of one data set."""

    num_classes: int
    num_keypoint_columns: int = 0
    """Columns after a box that contain key points; they are not read."""

    def read(self, path: str, notes: Notes | None = None) -> list[YoloObject]:
        """The distinct objects with an area of a label file; [] where there is no such file.

        Args:
            path: of the file.
            notes: counts the lines that were repaired or left out.

        Raises:
            UserError: the file cannot be read, or a line is wrong; the message names it.
        """
        return list(self._lines(path, notes or Notes()))

    def _lines(self, path: str, notes: Notes) -> Iterator[YoloObject]:
        seen: set[YoloObject] = set()
        for number, line in enumerate(_text(path).splitlines(), 1):
            columns = line.split()
            if not columns:
                continue
            item = self._parse(columns, f"{path}, line {number}", notes)
            if item in seen:
                notes.add("repeated boxes removed")
            elif not item.has_area:
                notes.add("boxes without width or height left out")
            else:
                yield item
            seen.add(item)

    def _parse(self, columns: list[str], where: str, notes: Notes) -> YoloObject:
        numbers = _numbers(columns, where)
        class_id = int(numbers[0])
        if class_id != numbers[0] or not 0 <= class_id < self.num_classes:
            raise UserError(
                f"{where}: class {columns[0]} is none of the {self.num_classes} classes, 0 to {self.num_classes - 1}. "
                'Correct the line, or name the class in "names"'
            )
        values = numbers[1:]
        if self.num_keypoint_columns and len(values) == BOX_COLUMNS - 1 + self.num_keypoint_columns:
            values = values[: BOX_COLUMNS - 1]
        is_box, is_polygon = len(values) == BOX_COLUMNS - 1, len(values) >= MIN_POLYGON_COLUMNS - 1
        if not is_box and (not is_polygon or len(values) % 2):
            raise UserError(
                f"{where} has {len(columns)} columns. A line is a class with a box, CX CY W H, or with the points of a "
                "polygon, X1 Y1 X2 Y2 X3 Y3 ...: correct or remove it"
            )
        inside = _inside(values, where, notes)
        if is_polygon:
            xs, ys = inside[::2], inside[1::2]
            return YoloObject(class_id=class_id, corners=(min(xs), min(ys), max(xs), max(ys)), polygon=inside)
        return YoloObject(class_id=class_id, corners=_corners(inside, notes), polygon=None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it a readable file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}). Export it again") from None


def _numbers(columns: list[str], where: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, columns))
    except ValueError:
        raise UserError(f"{where} contains something else than numbers: {short(' '.join(columns))}") from None
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"{where} contains a number that is not finite. Correct or remove the line")
    return numbers


def _inside(values: tuple[float, ...], where: str, notes: Notes) -> tuple[float, ...]:
    """The coordinates, those outside of [0, 1] by less than the tolerance moved to its border."""
    worst = max(values, key=lambda value: abs(value - 0.5))
    if 0 <= worst <= 1:
        return values
    if not -TOLERANCE <= worst <= 1 + TOLERANCE:
        hint = "Divide pixels by the image's width and height" if worst > 2 else "Correct or remove the line"
        raise UserError(f"{where}: {worst:g} is not between 0 and 1, where coordinates are relative. {hint}")
    notes.add(f"objects with a coordinate up to {TOLERANCE} outside of their image, moved inside")
    return tuple(min(max(value, 0.0), 1.0) for value in values)


def _corners(box: tuple[float, ...], notes: Notes) -> Corners:
    """The corners of (cx, cy, w, h), cut to the image; a part of more than the tolerance that is cut off is counted."""
    cx, cy, w, h = box
    x0, y0, x1, y1 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if min(x0, y0) < -TOLERANCE or max(x1, y1) > 1 + TOLERANCE:
        notes.add("boxes that reach outside of their image, cut to it")
    return max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)


@dataclass(frozen=True, slots=True)
class PolygonMaps:
    """Reads a label file of polygons as a class map over class 0, the background."""

    labels: LabelReader
    sizes: dict[str, tuple[int, int]]
    """(H, W) of the image by label file."""
    ids: tuple[int, ...]
    """By class id of the label files, that in the map, 0 for the background."""

    def __call__(self, path: str) -> NDArray[np.uint8]:
        """The class of each pixel, uint8 [H, W]; IGNORE where polygons of different classes overlap.

        Raises:
            UserError: the file cannot be read, or a line is wrong.
        """
        height, width = self.sizes[path]
        ids, is_ambiguous = np.zeros((height, width), np.uint8), np.zeros((height, width), bool)
        for item in self.labels.read(path):
            class_id = self.ids[item.class_id]
            if not class_id:
                continue
            points = np.array(item.polygon) * np.resize([width, height], len(item.polygon or ()))
            mask = coco_masks.decode(coco_masks.frPyObjects([points.tolist()], height, width))[..., 0].astype(bool)
            is_ambiguous |= mask & (ids != 0) & (ids != class_id)
            ids[mask] = class_id
        ids[is_ambiguous] = IGNORE
        return ids
