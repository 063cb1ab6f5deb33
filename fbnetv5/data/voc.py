"""The layout of PASCAL VOC (Everingham et al., IJCV 2010): detection, and segmentation from its class maps.

    JPEGImages/NAME.jpg
    Annotations/NAME.xml            objects with their names and boxes
    ImageSets/Main/train.txt        a name per line; likewise val.txt, test.txt and, without train.txt, trainval.txt
    SegmentationClass/NAME.png      a class id per pixel, 255 where unknown

    train/NAME.jpg, train/NAME.xml  Roboflow's export; valid/ and test/ likewise

Corners of boxes are pixels from 1 on, the last one included, as VOC's development kit defines them: xmin 1 and xmax 10
are the first ten columns. Objects that are marked "difficult" are left out of training, and the metric ignores
detections that match them, nearly as VOC's evaluation does (``fbnetv5.tasks.average_precision``). Images of val.txt and
test.txt are the test split, unless train.txt lists them; without any list, images are divided like any folder.

Left out: SegmentationObject/, parts, and the lists of ImageSets/Segmentation/.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from export.errors import UserError
from fbnetv5.data.folder import add_maps, box_corners, image_record, numbered_classes, set_boxes
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import list_image_names
from fbnetv5.data.labelled_images import Corners, ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.listed_images import read_ids
from fbnetv5.data.notes import Notes
from fbnetv5.data.pascal_context import CLASSES
from fbnetv5.data.split_names import TRAINING, VALIDATION, as_test_split, is_validation
from fbnetv5.data.targets import BOXES, CLASS_MAP, Target

IMAGES, ANNOTATIONS, CLASS_MAPS, LISTS = "JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def is_voc(root: Path) -> bool:
    """Whether a folder has the layout's folders, or splits with .xml files."""
    if (root / IMAGES).is_dir():
        return (root / ANNOTATIONS).is_dir() or (root / CLASS_MAPS).is_dir()
    return bool(_split_folders(root))


def _split_folders(root: Path) -> list[Path]:
    """The splits that contain .xml files beside images, sorted."""
    folders = (path for path in root.iterdir() if path.name.lower() in TRAINING + VALIDATION and path.is_dir())
    return sorted(folder for folder in folders if next(folder.glob("*.xml"), None) and list_image_names(folder))


def read_voc(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of PASCAL VOC's layout; images are named by their files, with the split's folder if there is one.

    Raises:
        UserError: an annotation or a list is wrong, or there is no label at all.
    """
    notes, objects = Notes(), dict[str, list["VocObject"]]()
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    folders = [(root / IMAGES, root / ANNOTATIONS, "")]
    if not (root / IMAGES).is_dir():
        folders = [(folder, folder, f"{folder.name}/") for folder in _split_folders(root)]
    for image_folder, annotations, prefix in folders:
        records = {f"{prefix}{name}": record for name, record in _records(image_folder, headers).items()}
        objects |= _objects(records, annotations, notes)
        images |= records
        if prefix and is_validation(prefix):
            test |= records.keys()
    has_maps = add_maps(root / CLASS_MAPS, "mask", images, headers)
    if (root / LISTS).is_dir():
        images, test = _listed(root / LISTS, images)
    targets = _add_boxes(images, objects)
    if has_maps:
        targets["mask"] = Target(kind=CLASS_MAP, classes=_class_names(images, targets, headers))
    unlabelled = [name for name, image in images.items() if not image.is_labelled]
    notes.add("images without a label left out", len(unlabelled))
    for name in unlabelled:
        del images[name]
    if not images or not targets:
        raise UserError(
            f"{root} has no label of any image: put NAME.xml into {ANNOTATIONS}/ or NAME.png into {CLASS_MAPS}/"
        )
    test &= images.keys()
    return LabelledImages(images, targets, test=as_test_split(test, images), notes=notes.lines())


def _records(folder: Path, headers: HeaderIndex) -> dict[str, ImageRecord]:
    return {name: image_record(f"{folder}{os.sep}{name}", headers) for name in list_image_names(folder)}


def _objects(images: dict[str, ImageRecord], annotations: Path, notes: Notes) -> dict[str, list["VocObject"]]:
    """The objects of the images with an annotation, by name.

    Raises:
        UserError: an annotation is wrong, or of no image.
    """
    by_stem = {image.stem: name for name, image in images.items()}
    if len(by_stem) != len(images):
        raise UserError(f"two images beside {annotations} share a name, and so an annotation. Rename one of them")
    paths = sorted(annotations.glob("*.xml")) if annotations.is_dir() else []
    objects: dict[str, list[VocObject]] = {}
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.stem not in by_stem:
            raise UserError(f"{path} is the annotation of no image: there is no {path.stem}.jpg. Add it or remove this")
        name = by_stem[path.stem]
        objects[name] = list(read_annotation(path, images[name].size, notes))
    return objects


@dataclass(frozen=True, slots=True, kw_only=True)
class VocObject:
    """An annotated object."""

    name: str
    corners: Corners
    is_difficult: bool


def read_annotation(path: Path, size: tuple[int, int], notes: Notes) -> Iterator[VocObject]:
    """The objects of an annotation.

    Args:
        path: of the .xml file.
        size: (H, W) of its image.
        notes: counts the objects that are left out of training.

    Raises:
        UserError: the file is damaged or of an image of another size, or a box is wrong.
    """
    try:
        document = ET.fromstring(path.read_bytes())  # expat limits the expansion of entities
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it a readable file") from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not valid XML ({error}). Export it again") from None
    stated = (document.findtext("size/height", "0").strip(), document.findtext("size/width", "0").strip())
    if stated not in (("0", "0"), (str(size[0]), str(size[1]))):
        raise UserError(
            f"{path} says that its image is {stated[1]}x{stated[0]}, and the file is {size[1]}x{size[0]} "
            "(width x height, upright). Correct the annotation and its boxes"
        )
    for position, item in enumerate(document.iter("object"), 1):
        where = f"{path}, object {position}"
        name = item.findtext("name", "").strip()
        if not name:
            raise UserError(f"{where} has no name. Add it or remove the object")
        is_difficult = item.findtext("difficult", "0").strip() == "1"
        notes.add("objects marked difficult left out of training", int(is_difficult))
        yield VocObject(name=name, corners=_corners(item, size, where), is_difficult=is_difficult)


def _corners(item: ET.Element, size: tuple[int, int], where: str) -> Corners:
    texts = [item.findtext(f"bndbox/{corner}", "") for corner in CORNERS]
    try:
        x0, y0, x1, y1 = map(float, texts)
    except ValueError:
        raise UserError(f"{where} has no bndbox of four numbers xmin, ymin, xmax and ymax, got {texts}") from None
    return box_corners([x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1], size, where)


def _listed(lists: Path, images: dict[str, ImageRecord]) -> tuple[dict[str, ImageRecord], set[str]]:
    """The images that the lists name, and the names of the test split; all images where there is no list."""
    by_stem = {image.stem: name for name, image in images.items()}
    names = {path.stem: _list_names(path, by_stem) for path in lists.glob("*.txt") if path.stem in _LISTED}
    training = names.get("train") or names.get("trainval") or []
    test = {name for split in ("val", "test") for name in names.get(split, ())} - set(training)
    if not training:
        return images, test
    return {name: images[name] for name in (*training, *sorted(test))}, test


_LISTED = ("train", "val", "trainval", "test")


def _list_names(path: Path, by_stem: dict[str, str]) -> list[str]:
    """The images of a list; a line is a name, or a name and a number."""
    stems = [line if line in by_stem else line.rpartition(" ")[0].strip() or line for line in read_ids(path)]
    if missing := [stem for stem in stems if stem not in by_stem]:
        raise UserError(f"{path} lists {missing[0]!r}, and {IMAGES} has no such image. Add it or remove the line")
    return [by_stem[stem] for stem in dict.fromkeys(stems)]


def _add_boxes(images: dict[str, ImageRecord], objects: dict[str, list[VocObject]]) -> dict[str, Target]:
    """Add the boxes to the images' records; the target of the boxes, if there are any.

    The classes are those of objects that can be learned.
    """
    listed = {name: items for name, items in objects.items() if name in images}
    classes = tuple(sorted({item.name for items in listed.values() for item in items if not item.is_difficult}))
    ids = {name: position for position, name in enumerate(classes)}
    for name, items in listed.items() if classes else ():
        boxes: tuple[list[tuple[Corners, int]], list[tuple[Corners, int]]] = ([], [])
        for item in items:
            if item.name in ids:
                boxes[item.is_difficult].append((item.corners, ids[item.name]))
        set_boxes(images[name], *boxes)
    return {"boxes": Target(kind=BOXES, classes=classes)} if classes else {}


def _class_names(images: dict[str, ImageRecord], targets: dict[str, Target], headers: HeaderIndex) -> tuple[str, ...]:
    """VOC's names for the ids of class maps where the boxes have VOC's classes, else numbers."""
    numbered = numbered_classes("mask", images, headers)
    names = targets["boxes"].classes if "boxes" in targets else ()
    return CLASSES if names and set(names) <= set(CLASSES) and len(numbered) <= len(CLASSES) else numbered


VOC = Layout(
    name="PASCAL VOC",
    looks_like="JPEGImages/ and Annotations/ with a .xml of each image's name, or SPLIT/ with both",
    fits=is_voc,
    read=read_voc,
)
