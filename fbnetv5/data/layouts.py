"""The layouts of a user's folder: the one for several tasks, and those that public data sets use.

    ImageFolder   [train/ and val/] CLASS/NAME.jpg, as torchvision reads them: classification
    COCO          annotations/instances_SPLIT.json, images in SPLIT/, images/SPLIT/, images/ or beside: ``coco``
    ADE20K        images/training/NAME.jpg and annotations/training/NAME.png, validation/ likewise: segmentation
    PASCAL VOC    JPEGImages/, Annotations/ and ImageSets/Main/: ``fbnetv5.data.voc``
    YOLO          data.yaml, images/ and labels/: ``fbnetv5.data.yolo``
    Parquet shards index.json and data/SPLIT-NNNNN-of-NNNNN.parquet: ``fbnetv5.data.shards``
    PASCAL-Context and NYUD-v2 with labels for several tasks: ``fbnetv5.data.pascal_context``, ``fbnetv5.data.nyud``

The layout is recognised by the folder's content. A validation split of the data set becomes the test split, and the
other images are divided as in ``fbnetv5.data.splits``. Splits called val, valid, validation, test or testing, in upper
or lower case, count as validation splits. A validation split without labels is ignored: no metric could be computed.

In the ADE20K layout 0 in a mask is an unlabelled pixel and class ids start at 1, as in the scene-parsing benchmark of
that name (Zhou et al., arXiv 1608.05442); ``objectInfo150.txt`` names the classes if it exists. Masks in which 0 is a
class of its own need the layout for several tasks.

Left out: hidden folders and files, as the copies that notebooks make.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.errors import UserError
from fbnetv5.data.coco import is_coco, read_coco
from fbnetv5.data.folder import (
    add_maps,
    has_maps,
    image_record,
    list_images,
    numbered_classes,
    read_several_tasks,
)
from fbnetv5.data.header_index import HeaderIndex, header_index
from fbnetv5.data.image_files import image_names_within, list_image_names
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages, check_class_names
from fbnetv5.data.nyud import NYUD
from fbnetv5.data.other_layouts import refuse_other_layout
from fbnetv5.data.pascal_context import PASCAL_CONTEXT
from fbnetv5.data.shards import is_sharded, read_shards
from fbnetv5.data.split_names import TRAINING, VALIDATION, as_test_split
from fbnetv5.data.targets import CLASS, CLASS_MAP, Target
from fbnetv5.data.unused import unused_classes, unused_files
from fbnetv5.data.voc import is_voc, read_voc
from fbnetv5.data.yolo import find_description, read_yolo

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
    has_files: bool = True
    """Whether each image is a file."""


def layout_of(root: Path) -> Layout:
    """The layout of a folder.

    Raises:
        UserError: it does not exist, or has none of the layouts; the message names the one that it looks like.
    """
    if not root.is_dir():
        raise UserError(f"folder {root} does not exist")
    if (layout := find_layout(root)) is not None:
        return layout
    refuse_other_layout(root)
    layouts = "; ".join(f"{layout.name}: {layout.looks_like}" for layout in LAYOUTS)
    raise UserError(f"{root} has none of the known layouts. {layouts}")


def find_layout(root: Path) -> Layout | None:
    """The first layout that fits an existing folder, None where none does.

    Raises:
        UserError: only ImageFolder fits, and the folder has the marks of another layout.
    """
    layout = next((layout for layout in LAYOUTS if layout.fits(root)), None)
    if layout is not None and layout.fits is _is_image_folder:
        refuse_other_layout(root)
    return layout


def open_folder(root: Path) -> LabelledImages:
    """The data set in a folder of any layout, with all of its labels.

    Raises:
        UserError: the layout is unknown, or something in the folder is wrong.
    """
    layout = layout_of(root)
    with header_index(root) as headers:
        data = layout.read(root, headers)
    check_class_names(data, root)
    if layout.has_files:
        data.notes += (*unused_classes(data), *unused_files(root, data))
    return data


def _is_several_tasks(root: Path) -> bool:
    if not (root / "images").is_dir():
        return False
    if (root / "instances.json").exists() or (root / "masks").is_dir():
        return True
    return has_maps(root) and not is_coco(root) and not _is_ade20k(root)


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
    return LabelledImages(images, targets, test=as_test_split(test, images), zero_is_ignored=True)


def _ade20k_names(root: Path) -> tuple[str, ...]:
    """The last column of ``objectInfo150.txt`` after its heading, distinct; () where there is no such file."""
    path = root / ADE20K_NAMES
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]
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
    return LabelledImages(images, targets, test=as_test_split(test, images))


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


LAYOUTS = (
    Layout(
        name="Parquet shards",
        looks_like="index.json and data/ with .parquet files, as fbnetv5 convert writes them",
        fits=is_sharded,
        read=read_shards,
        has_files=False,
    ),
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
        looks_like="annotations/instances_SPLIT.json, annotations/SPLIT.json or SPLIT/_annotations.coco.json, and the "
        "images in SPLIT/ or images/",
        fits=is_coco,
        read=read_coco,
    ),
    Layout(
        name="ADE20K",
        looks_like="images/training/ and annotations/training/ with a mask .png of each image's name",
        fits=_is_ade20k,
        read=read_ade20k,
    ),
    Layout(
        name="PASCAL VOC",
        looks_like="JPEGImages/ and Annotations/ with a .xml of each image's name, or SPLIT/ with both",
        fits=is_voc,
        read=read_voc,
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
