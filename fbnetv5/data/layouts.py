"""The layouts of a user's folder: the one for several tasks, and those that public data sets use.

    ImageFolder   [train/ and val/] CLASS/NAME.jpg, as torchvision reads them: classification
    COCO          annotations/instances_SPLIT.json, images in SPLIT/, images/SPLIT/, images/ or beside: detection
    ADE20K        images/training/NAME.jpg and annotations/training/NAME.png, validation/ likewise: segmentation
    YOLO          data.yaml, images/ and labels/: ``fbnetv5.data.yolo``
    PASCAL-Context and NYUD-v2 with labels for several tasks: ``fbnetv5.data.pascal_context``, ``fbnetv5.data.nyud``

The layout is recognised by the folder's content. A validation split of the data set becomes the test split, and the
other images are divided as in ``fbnetv5.data.splits``. Splits called val, valid, validation, test or testing, in upper
or lower case, count as validation splits. A validation split without labels is ignored: no metric could be computed.

In the ADE20K layout 0 in a mask is an unlabelled pixel and class ids start at 1, as in the scene-parsing benchmark of
that name (Zhou et al., arXiv 1608.05442); ``objectInfo150.txt`` names the classes if it exists. Masks in which 0 is a
class of its own need the layout for several tasks.

Left out: COCO's polygons and crowds, and its boxes without width or height, of which the published files have some;
hidden folders and files, as the copies that notebooks make.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from fbnetv5.data.folder import (
    add_boxes,
    add_maps,
    field,
    image_record,
    list_images,
    numbered_classes,
    read_document,
    read_image_records,
    read_several_tasks,
)
from fbnetv5.data.header_index import HeaderIndex, header_index
from fbnetv5.data.image_files import image_names_within, list_image_names
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.nyud import NYUD
from fbnetv5.data.pascal_context import PASCAL_CONTEXT
from fbnetv5.data.targets import BOXES, CLASS, CLASS_MAP, Target
from fbnetv5.data.yolo import find_description, read_yolo

TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "test", "testing")
ADE20K_NAMES = "objectInfo150.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to arrange a data set in a folder."""

    name: str
    looks_like: str
    """What a folder must contain; a part of messages."""
    fits: Callable[[Path], bool]
    read: Callable[[Path, HeaderIndex], LabelledImages]
    """(folder, its headers) -> its images, checked."""


def layout_of(root: Path) -> Layout:
    """The layout of a folder.

    Raises:
        UserError: it does not exist, or has none of the layouts.
    """
    if not root.is_dir():
        raise UserError(f"folder {root} does not exist")
    for layout in LAYOUTS:
        if layout.fits(root):
            return layout
    layouts = "; ".join(f"{layout.name}: {layout.looks_like}" for layout in LAYOUTS)
    raise UserError(f"{root} has none of the known layouts. {layouts}")


def open_folder(root: Path) -> LabelledImages:
    """The data set in a folder of any layout, with all of its labels.

    Raises:
        UserError: the layout is unknown, or something in the folder is wrong.
    """
    layout = layout_of(root)
    with header_index(root) as headers:
        return layout.read(root, headers)


def _is_several_tasks(root: Path) -> bool:
    if not (root / "images").is_dir():
        return False
    if (root / "instances.json").exists() or (root / "masks").is_dir():
        return True
    maps = any(any((root / form.folder).glob("*.png")) for form in FORMATS.values())
    return maps and not _is_coco(root) and not _is_ade20k(root)


def _is_coco(root: Path) -> bool:
    return any((root / "annotations").glob("instances_*.json"))


def read_coco(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of COCO's layout; images are named SPLIT/FILE."""
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    classes: dict[Path, tuple[str, ...]] = {}
    listing = _Listing()
    for path in sorted((root / "annotations").glob("instances_*.json")):
        split = path.stem.removeprefix("instances_")
        document = read_document(path)
        is_test = split.lower().startswith(VALIDATION)
        if is_test and not document.get("annotations"):
            continue
        document["annotations"] = [
            annotation for annotation in field(document, "annotations", list, str(path)) if _has_area(annotation)
        ]
        records = _coco_images(document, root, split, str(path), headers)
        classes[path] = add_boxes(document, read_image_records(document, records, str(path)), records, str(path))
        for image in records.values():
            listing.add(image.path, path)
        images |= {f"{split}/{name}": image for name, image in records.items()}
        if is_test:
            test |= {f"{split}/{name}" for name in records}
    if not any(image.boxes for image in images.values()):
        raise UserError(f"{root / 'annotations'} has no box of any image. Export the files with their annotations")
    if len(set(classes.values())) != 1:
        raise UserError(
            f"{' and '.join(map(str, classes))} have different categories. Give them the same, in one order"
        )
    (boxes,) = set(classes.values())
    targets = {"boxes": Target(kind=BOXES, classes=boxes)}
    return LabelledImages(images, targets, test=_test_names(test, images))


class _Listing:
    """Which COCO file lists which image. An image that is listed twice could be in both training and test split."""

    def __init__(self) -> None:
        self._sources: dict[str, Path] = {}
        self._folders: dict[str, str] = {}

    def add(self, image: str, source: Path) -> None:
        """Note that ``source`` lists the image at a path.

        Raises:
            UserError: the same file is listed already, under this or another path.
        """
        resolved = self._resolve(image)
        if resolved in self._sources:
            raise UserError(
                f"{self._sources[resolved]} and {source} both list {image}, and an image is listed once. "
                "Remove one of the two .json files, or the second record if it is one file"
            )
        self._sources[resolved] = source

    def _resolve(self, image: str) -> str:
        """The path without links, as ``Path.resolve`` gives it; the folder, with five calls a path, only once."""
        if Path(image).is_symlink():
            return str(Path(image).resolve())
        folder, _, name = image.rpartition(os.sep)
        if folder not in self._folders:
            self._folders[folder] = str(Path(folder).resolve())
        return f"{self._folders[folder]}{os.sep}{name}"


def _coco_images(
    document: dict[str, Any], root: Path, split: str, where: str, headers: HeaderIndex
) -> dict[str, ImageRecord]:
    """The images that a COCO file lists, headers read, by file name."""
    files = [
        field(record, "file_name", str, f"{where}: images[{position}]")
        for position, record in enumerate(field(document, "images", list, where))
    ]
    if not files:
        raise UserError(f'{where} lists no "images". Remove the file or export it again')
    folders = (root / split, root / "images" / split, root / "images", root)
    image_folder = next((folder for folder in folders if (folder / files[0]).is_file()), None)
    if image_folder is None:
        searched = ", ".join(map(str, folders))
        raise UserError(f"{where} lists {files[0]!r}, which is in none of {searched}. Put its images into one of them")
    return {name: image_record(f"{image_folder}{os.sep}{name}", headers) for name in sorted(files)}


def _has_area(annotation: Any) -> bool:
    """Whether an annotation's box has width and height; True for malformed boxes, which are refused later."""
    box = annotation.get("bbox") if isinstance(annotation, dict) else None
    return not (isinstance(box, list) and len(box) == 4 and (box[2] == 0 or box[3] == 0))


def _is_ade20k(root: Path) -> bool:
    return bool(_splits(root / "images", TRAINING) and _splits(root / "annotations", TRAINING))


def read_ade20k(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of ADE20K's layout; images are named SPLIT/FILE."""
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    for folder in _splits(root / "images", TRAINING + VALIDATION):
        records = list_images(folder, headers)
        annotations, is_test = root / "annotations" / folder.name, folder.name.lower() in VALIDATION
        if not add_maps(annotations, "mask", records, headers):
            if is_test:
                continue
            raise UserError(f"{annotations} has no mask of any image: a mask is a .png of its image's name")
        images |= {f"{folder.name}/{name}": image for name, image in records.items()}
        if is_test:
            test |= {f"{folder.name}/{name}" for name in records}
    classes = _ade20k_names(root) or numbered_classes("mask", images, headers)[1:]
    targets = {"mask": Target(kind=CLASS_MAP, classes=classes)}
    return LabelledImages(images, targets, test=_test_names(test, images), zero_is_ignored=True)


def _ade20k_names(root: Path) -> tuple[str, ...]:
    """The last column of ``objectInfo150.txt`` after its heading, distinct; () where there is no such file."""
    path = root / ADE20K_NAMES
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}). Save it as such") from None
    names = tuple(line.rpartition("\t")[2].strip() for line in lines if line.strip())
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} names {repeated[0]!r} twice. Give each class a name of its own")
    return names


def _is_image_folder(root: Path) -> bool:
    base = (_splits_of_classes(root, TRAINING) or [root])[0]
    return len(_classes(base)) > 1


def read_image_folder(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of torchvision's ImageFolder layout; images are named [SPLIT/]CLASS/FILE."""
    splits = [root]
    if _splits_of_classes(root, TRAINING):
        splits = _splits_of_classes(root, TRAINING + VALIDATION)
    else:
        _refuse_splits(root)
    filled = {split: _classes(split) for split in splits}
    class_names = {folder.name for folders in filled.values() for folder in folders}
    labels = tuple(folder.name for folder in _folders(splits[0]) if folder.name in class_names)
    images: dict[str, ImageRecord] = {}
    test: set[str] = set()
    for split, folders in filled.items():
        for folder in folders:
            if folder.name not in labels:
                raise UserError(f"{folder} is of a class that {splits[0]} has not. Rename or remove it")
            records = _class_records(folder, labels.index(folder.name), headers)
            prefix = folder.relative_to(root).as_posix()
            images |= {f"{prefix}/{name}": record for name, record in records.items()}
            if split.name.lower() in VALIDATION and split != root:
                test |= {f"{prefix}/{name}" for name in records}
    targets = {"label": Target(kind=CLASS, classes=labels)}
    return LabelledImages(images, targets, test=_test_names(test, images))


def _class_records(folder: Path, label: int, headers: HeaderIndex) -> dict[str, ImageRecord]:
    """Records of the images in a class's folder and in folders within, by path in the folder."""
    records: dict[str, ImageRecord] = {}
    for name in sorted(image_names_within(folder), key=lambda name: name.split("/")):
        records[name] = image_record(f"{folder}{os.sep}{name}", headers)
        records[name].label = label
    return records


def _splits_of_classes(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The splits that contain folders of images; a folder that contains images itself may be a class of that name."""
    return [folder for folder in _splits(root, names) if _classes(folder)]


def _refuse_splits(root: Path) -> None:
    """Refuse validation splits of a folder without a training split: they would be classes."""
    for folder in _splits_of_classes(root, VALIDATION):
        if not list_image_names(folder):
            raise UserError(
                f"{folder} looks like a split, but there is no training split. Put the images to learn from into "
                f"{root / TRAINING[0]}/CLASS; or, if {folder.name!r} is a class, its images directly into its folder"
            )


def _classes(folder: Path) -> list[Path]:
    """The sub-folders that contain an image."""
    return [path for path in _folders(folder) if next(image_names_within(path), None) is not None]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _splits(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The sub-folders of these names, in upper or lower case, in the order of the names."""
    paths = folder.iterdir() if folder.is_dir() else ()
    splits = [path for path in paths if path.name.lower() in names and path.is_dir()]
    return sorted(splits, key=lambda path: (names.index(path.name.lower()), path.name))


def _test_names(test: set[str], images: dict[str, ImageRecord]) -> frozenset[str]:
    """The test split; empty if it contains all images, which are then divided like any folder."""
    return frozenset(test) if len(test) < len(images) else frozenset()


LAYOUTS = (
    Layout(
        name="PASCAL-Context",
        looks_like="ImageSets/Context/ and JPEGImages/",
        fits=PASCAL_CONTEXT.fits,
        read=PASCAL_CONTEXT.read,
    ),
    Layout(name="NYUD-v2", looks_like="gt_sets/ and images/", fits=NYUD.fits, read=NYUD.read),
    Layout(
        name="several tasks",
        looks_like="images/ beside instances.json, masks/, parts/, saliency/, edges/, depth/ or normals/",
        fits=_is_several_tasks,
        read=read_several_tasks,
    ),
    Layout(
        name="COCO",
        looks_like="annotations/instances_SPLIT.json, and the images in SPLIT/ or images/",
        fits=_is_coco,
        read=read_coco,
    ),
    Layout(
        name="ADE20K",
        looks_like="images/training/ and annotations/training/ with a mask .png of each image's name",
        fits=_is_ade20k,
        read=read_ade20k,
    ),
    Layout(
        name="YOLO",
        looks_like="data.yaml with train, val and names, and labels/ with a .txt of each image's name",
        fits=lambda root: find_description(root) is not None,
        read=read_yolo,
    ),
    Layout(
        name="ImageFolder",
        looks_like="a folder of images for each of at least two classes, or train/ and val/ with such folders",
        fits=_is_image_folder,
        read=read_image_folder,
    ),
)
"""The first layout that fits is used."""
