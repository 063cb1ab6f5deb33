"""The masks of COCO's annotated objects, polygons or run lengths, and the maps that follow from them.

pycocotools turns "segmentation" into pixels, as COCO's own evaluation does (Lin et al., arXiv:1405.0312). A class map
has the classes of ``fbnetv5.data.shape_maps.map_classes``: those of the boxes after class 0, the background. A pixel
that masks of different classes cover is IGNORE, because nothing says which object is in front. Edges are the inner
outlines of all masks, except those of crowds.

Shape legend: H x W pixels of the image.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from export.errors import UserError
from export.manifest import file_sha256
from fbnetv5.data.coco import CocoFile, coco_files, image_folder
from fbnetv5.data.folder import field, read_categories, read_document
from fbnetv5.data.maps import borders
from fbnetv5.data.notes import Notes
from fbnetv5.data.shape_maps import map_ids
from fbnetv5.data.split_names import is_validation
from fbnetv5.data.targets import IGNORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An annotated object."""

    class_id: int
    """Of its box."""
    segmentation: Any
    """Polygons, a list of [x0, y0, x1, y1, ...]; or run lengths, an object with "size" and "counts"."""
    is_crowd: bool
    where: str
    """The annotation, for messages."""

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Its pixels in an image of (H, W): bool [H, W].

        Raises:
            UserError: the segmentation is malformed, or of an image of another size.
        """
        height, width = size
        try:
            if isinstance(self.segmentation, list):
                runs = coco_masks.merge(coco_masks.frPyObjects(self.segmentation, height, width))
            elif isinstance(self.segmentation["counts"], list):
                runs = coco_masks.frPyObjects(self.segmentation, height, width)
            else:
                runs = self.segmentation
            mask: NDArray[np.bool_] = coco_masks.decode(runs).astype(bool)
        except Exception as error:  # noqa: BLE001 - pycocotools raises plain Exceptions as well
            reason = " ".join(str(error).split())
            raise UserError(f'{self.where}: "segmentation" is neither polygons nor run lengths ({reason})') from None
        if mask.shape != size:
            raise UserError(
                f'{self.where}: "segmentation" is of {mask.shape[1]}x{mask.shape[0]}, its image is {width}x{height}'
            )
        return mask


Instances = Sequence[Instance] | None
"""The objects of an image; None where one of them has no mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMasks:
    """The annotated objects of a data set."""

    classes: tuple[str, ...]
    """Names of the classes of the boxes."""
    by_image: Mapping[str, Instances]
    """By name of the image; no entry where it is not listed."""

    def class_map(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The class of every pixel, uint8 [H, W]: 0 is the background, IGNORE is covered by several classes."""
        instances = self.by_image.get(name)
        if instances is None:
            return None
        ids, is_ambiguous = np.zeros(size, np.uint8), np.zeros(size, bool)
        ids_of_classes = map_ids(self.classes)
        for instance in instances:
            class_id = ids_of_classes[instance.class_id]
            if not class_id:
                continue
            mask = instance.mask(size)
            is_ambiguous |= mask & (ids != 0) & (ids != class_id)
            ids[mask] = class_id
        ids[is_ambiguous] = IGNORE
        return ids

    def saliency(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """1 where any object is, uint8 [H, W]."""
        instances = self.by_image.get(name)
        if instances is None:
            return None
        covered = np.zeros(size, bool)
        for instance in instances:
            covered |= instance.mask(size)
        return covered.astype(np.uint8)

    def edges(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """1 on the outlines of the objects, uint8 [H, W]."""
        instances = self.by_image.get(name)
        if instances is None:
            return None
        lines = np.zeros(size, np.uint8)
        for instance in instances:
            if not instance.is_crowd:
                lines |= borders(instance.mask(size))
        return lines


def read_instance_masks(root: Path) -> InstanceMasks:
    """The annotated objects of a folder of COCO's layout, or of the one for several tasks.

    Images are named as ``fbnetv5.data.layouts`` names them. All of the annotations are in memory.

    Raises:
        UserError: a file is damaged, or no annotation has a mask.
    """
    by_image: dict[str, Instances] = {}
    classes: tuple[str, ...] = ()
    for file in _annotation_files(root):
        document, where = read_document(file.path), str(file.path)
        if is_validation(file.split) and not document.get("annotations"):
            continue  # as the data set leaves it out
        image_folder(document, file, Notes())
        classes = tuple(read_categories(document, where).values())
        by_image |= {file.name(name): instances for name, instances in _instances(document, where).items()}
    if not any(by_image.values()):
        raise UserError(
            f'{root} has no "segmentation" of any image: masks of objects need annotations with polygons or run lengths'
        )
    return InstanceMasks(classes=classes, by_image=by_image)


def instance_masks_digest(root: Path) -> str:
    """A checksum of the files that ``read_instance_masks`` reads.

    Raises:
        UserError: a file cannot be read.
    """
    checksums = "".join(file_sha256(file.path) for file in _annotation_files(root))
    return hashlib.sha256(checksums.encode()).hexdigest()


def _annotation_files(root: Path) -> list[CocoFile]:
    several_tasks = root / "instances.json"
    if several_tasks.exists():
        return [CocoFile(path=several_tasks, split="", folders=(root / "images",))]
    return coco_files(root)


def _instances(document: dict[str, Any], where: str) -> dict[str, Instances]:
    """The objects of each listed image by file name."""
    class_ids = {key: position for position, key in enumerate(read_categories(document, where))}
    names = {field(record, "id", int, where): field(record, "file_name", str, where) for record in document["images"]}
    instances: dict[str, list[Instance]] = {name: [] for name in names.values()}
    without_mask: set[str] = set()
    for position, annotation in enumerate(document.get("annotations", ())):
        here = f"{where}: annotations[{position}]"
        name = names[field(annotation, "image_id", int, here)]
        segmentation = annotation.get("segmentation")
        if not segmentation:
            without_mask.add(name)
            continue
        instances[name].append(
            Instance(
                class_id=class_ids[field(annotation, "category_id", int, here)],
                segmentation=segmentation,
                is_crowd=annotation.get("iscrowd") == 1,
                where=f"{here} {short(annotation.get('id'))}",
            )
        )
    return {name: None if name in without_mask else tuple(objects) for name, objects in instances.items()}
