"""Cityscapes (Cordts et al., CVPR 2016, arXiv:1604.01685): segmentation into the 19 classes of its benchmark.

    leftImg8bit/train/CITY/NAME_leftImg8bit.png
    gtFine/train/CITY/NAME_gtFine_labelIds.png      as published; or _labelTrainIds.png, which its scripts make

Images of val/ are the test split. Those of test/ are left out: their published labels are empty. Ids of labels become
those of the benchmark (cityscapesscripts/helpers/labels.py), and all others are pixels to ignore.

Left out: coarse annotations, instances and disparities.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.data.folder import image_record
from fbnetv5.data.header_index import HeaderIndex
from fbnetv5.data.image_files import image_names_within
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layout import Layout
from fbnetv5.data.maps import check_map_header, read_class_ids
from fbnetv5.data.notes import Notes
from fbnetv5.data.split_names import as_test_split
from fbnetv5.data.targets import CLASS_MAP, IGNORE, Target

IMAGES, LABELS, IMAGE_SUFFIX = "leftImg8bit", "gtFine", "_leftImg8bit"
LABEL_SUFFIXES = ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")
SPLITS, TEST, UNLABELLED = ("train", "val"), "val", "test"
CLASS_IDS: Mapping[str, int] = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The id in a labelIds file of each class of the benchmark, in the benchmark's order."""
TRAIN_IDS = np.full(256, IGNORE, np.uint8)
"""The class of each id."""
TRAIN_IDS[list(CLASS_IDS.values())] = np.arange(len(CLASS_IDS))


def is_cityscapes(root: Path) -> bool:
    """Whether a folder has the folders of images and of fine labels."""
    return (root / IMAGES).is_dir() and (root / LABELS).is_dir()


def read_cityscapes(root: Path, headers: HeaderIndex) -> LabelledImages:
    """A folder of this layout; images are named SPLIT/CITY/FILE.

    Raises:
        UserError: a label file is of another size or form than its image, or there is none of any training image.
    """
    images: dict[str, ImageRecord] = {}
    notes, test = Notes(), set[str]()
    for split in SPLITS:
        folder = root / IMAGES / split
        names = sorted(image_names_within(folder)) if folder.is_dir() else []
        labelled = {name: path for name in names if (path := label_file(root / LABELS / split, name)) is not None}
        notes.add(f"images of {split} without a label file left out", len(names) - len(labelled))
        for name, path in labelled.items():
            record = image_record(f"{folder}{os.sep}{name}", headers)
            check_map_header(path, headers.header(path), "mask", record.size)
            record.maps = {"mask": path}
            images[f"{split}/{name}"] = record
        test |= {f"{split}/{name}" for name in labelled if split == TEST}
    if len(images) == len(test):
        raise UserError(
            f"{root / LABELS / SPLITS[0]} has no label of any image: unpack gtFine_trainvaltest.zip beside {IMAGES}/"
        )
    if (root / IMAGES / UNLABELLED).is_dir():
        notes.add("images of test left out, whose labels are not published", len(_test_images(root)))
    target = Target(kind=CLASS_MAP, classes=tuple(CLASS_IDS))
    readers = {"mask": read_label}
    return LabelledImages(
        images, {"mask": target}, test=as_test_split(test, images), readers=readers, notes=notes.lines()
    )


def _test_images(root: Path) -> list[str]:
    return list(image_names_within(root / IMAGES / UNLABELLED))


def label_file(folder: Path, image: str) -> str | None:
    """The label file of an image of a split; None where it has none.

    Args:
        folder: of the split's labels.
        image: CITY/FILE.
    """
    start = image.rpartition(".")[0].removesuffix(IMAGE_SUFFIX)
    paths = (f"{folder}{os.sep}{start}{suffix}" for suffix in LABEL_SUFFIXES)
    return next((path for path in paths if Path(path).is_file()), None)


def read_label(path: str) -> NDArray[np.uint8]:
    """The class of each pixel of a label file, uint8 [H, W]; IGNORE where it is none of the benchmark's."""
    ids = read_class_ids(path)
    return ids if path.endswith(LABEL_SUFFIXES[1]) else TRAIN_IDS[ids]


CITYSCAPES = Layout(
    name="Cityscapes",
    looks_like="leftImg8bit/ and gtFine/, each with train/ and val/",
    fits=is_cityscapes,
    read=read_cityscapes,
)
