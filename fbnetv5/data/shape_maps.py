"""Class maps of drawn shapes: polygons, and masks as run lengths of a part of the image.

pycocotools turns polygons into pixels, as for COCO. A shape of a larger order is in front of others; pixels of shapes
of several classes with one order are IGNORE, because nothing says which is in front.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from fbnetv5.data.targets import IGNORE

BACKGROUND = "background"


def map_classes(objects: Sequence[str]) -> tuple[str, ...]:
    """The classes of a map that is drawn from objects of these classes: the background, 0, then theirs.

    A class of objects that is called background is the background itself.
    """
    return (BACKGROUND, *(name for name in objects if name != BACKGROUND))


def map_ids(objects: Sequence[str]) -> tuple[int, ...]:
    """By class id of objects, the id in their map."""
    ids = {name: class_id for class_id, name in enumerate(map_classes(objects))}
    return tuple(ids[name] for name in objects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An object's pixels, in pixels of its image."""

    class_id: int
    """Of its pixels."""
    order: float = 0.0
    """Larger is in front."""
    polygons: tuple[tuple[float, ...], ...] = ()
    """Each (x0, y0, x1, y1, ...)."""
    place: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(x, y, width, height) of the part that ``runs`` covers."""
    runs: tuple[int, ...] = ()
    """Numbers of pixels outside and inside in turn, row by row; () for polygons."""

    @property
    def bbox(self) -> list[float]:
        """[x, y, width, height] of the polygons' points, or of the pixels inside."""
        if self.runs:
            ys, xs = np.nonzero(self._part())
            x, y = (self.place[0] + xs.min(), self.place[1] + ys.min()) if xs.size else self.place[:2]
            return list(map(float, (x, y, np.ptp(xs) + 1, np.ptp(ys) + 1) if xs.size else (x, y, 0, 0)))
        xs, ys = (np.concatenate([polygon[start::2] for polygon in self.polygons]) for start in (0, 1))
        return [float(xs.min()), float(ys.min()), float(np.ptp(xs)), float(np.ptp(ys))]

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels in an image of (H, W): bool [H, W]."""
        if self.runs:
            mask, (x, y, width, height) = np.zeros(size, bool), self.place
            mask[y : y + height, x : x + width] = self._part()
            return mask
        runs = coco_masks.merge(coco_masks.frPyObjects([list(polygon) for polygon in self.polygons], *size))
        covered: NDArray[np.bool_] = coco_masks.decode(runs).astype(bool)
        return covered

    def _part(self) -> NDArray[np.bool_]:
        """The pixels of ``place``: bool [height, width]."""
        inside = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(inside, self.runs).reshape(self.place[3], self.place[2])


@dataclass(frozen=True, slots=True)
class ShapeMaps:
    """Reads the class map of an image from its shapes; class 0 is the background."""

    shapes: Mapping[str, Sequence[Shape]]
    """By path of the image."""
    sizes: Mapping[str, tuple[int, int]]
    """(H, W) by path of the image."""

    def __call__(self, path: str) -> NDArray[np.uint8]:
        """The class of each pixel, uint8 [H, W]; IGNORE where shapes of several classes are equally in front."""
        size = self.sizes[path]
        ids, is_ambiguous, front = np.zeros(size, np.uint8), np.zeros(size, bool), np.full(size, -np.inf)
        for shape in sorted(self.shapes[path], key=lambda shape: shape.order):
            mask = shape.mask(size)
            is_equal = mask & (front == shape.order)
            is_ambiguous &= ~(mask & ~is_equal)
            is_ambiguous |= is_equal & (ids != shape.class_id)
            ids[mask], front[mask] = shape.class_id, shape.order
        ids[is_ambiguous] = IGNORE
        return ids
