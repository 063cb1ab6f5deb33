"""PASCAL-Context with labels for five tasks, as ASTMT (Maninis et al., arXiv 1904.08918) published it: ``PASCAL_MT``.

    ImageSets/Context/train.txt, val.txt       4998 and 5105 ids
    JPEGImages/ID.jpg
    semseg/VOC12/ID.png                        classes of PASCAL VOC, 255 ignored; without it
    semseg/pascal-context/ID.png               the same classes
    human_parts/ID.mat                         PASCAL-Part (Chen et al., arXiv 1406.2031): a mask per object and part
    sal_distill/ID.png                         saliency that a network predicted
    normals_distill/ID.png                     normals that a network predicted
    pascal-context/trainval/ID.mat             PASCAL-Context (Mottaghi et al., CVPR 2014): 459 classes

Parts are the 24 of PASCAL-Part's persons, merged to six; an image without any is not labelled. Edges are the borders
between the 459 classes. The predicted normals count where the class also exists in NYU-v2, on which their network was
trained. The readers of ASTMT mark both sides of a border and thin the result, so their edges lie up to a pixel beside
ours, which are the pixels on the side of the larger id.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError
from fbnetv5.data.array_files import DAMAGES, read_mat
from fbnetv5.data.image_files import read_pixels
from fbnetv5.data.listed_images import LabelFiles, ListedImages
from fbnetv5.data.maps import borders, read_class_ids, read_normals

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Classes of PASCAL VOC, by id."""
PERSON = CLASSES.index("person")
PARTS = ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
MERGED_PARTS = {
    "head": "head hair lear rear lebrow rebrow leye reye nose mouth",
    "torso": "torso neck",
    "upper arms": "luarm ruarm",
    "lower arms": "llarm rlarm lhand rhand",
    "upper legs": "luleg ruleg",
    "lower legs": "llleg rlleg lfoot rfoot",
}
"""The names of a person's parts in PASCAL-Part by merged part."""
PART_IDS = {name: PARTS.index(part) for part, names in MERGED_PARTS.items() for name in names.split()}
NYU_CLASSES = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56,
    59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122,
    124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199,
    202, 213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260,
    261, 263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310,
    314, 315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380,
    383, 384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441,
    442, 443, 444, 446, 454, 457,
)  # fmt: skip
"""Ids of the classes of PASCAL-Context whose names are also among the 894 of NYU-v2, and 427, "tvmonitor"."""
CONTEXT_FOLDER = "pascal-context/trainval"


def read_context_classes(path: str | Path) -> NDArray[np.int64]:
    """The ids 1 to 459 of PASCAL-Context's classes: int64 [H, W].

    Raises:
        UserError: the file cannot be read or contains no map of ids.
    """
    ids = read_mat(path, "LabelMap")
    if ids.ndim != 2 or ids.dtype.kind not in "uif":
        raise UserError(f"{path}: LabelMap has shape {ids.shape}, not height x width. Replace the file or remove it")
    return ids.astype(np.int64)


def read_edges(path: str | Path) -> NDArray[np.uint8]:
    """1 on the borders between classes: uint8 [H, W]."""
    return borders(read_context_classes(path))


def read_saliency(path: str | Path) -> NDArray[np.uint8]:
    """1 where a grey file is brighter than 127: uint8 [H, W]."""
    salient: NDArray[np.uint8] = (read_pixels(path) > 127).astype(np.uint8)
    return salient


def read_valid_normals(path: str | Path) -> NDArray[np.float32]:
    """Unit vectors, NaN where the pixel's class does not exist in NYU-v2: float32 [3, H, W].

    Args:
        path: the file in ``normals_distill``; the classes are in its image's file of ``pascal-context/trainval``.

    Raises:
        UserError: a file is missing or cannot be read, or the two have different sizes.
    """
    normals, classes_path = read_normals(path), Path(path).parents[1] / CONTEXT_FOLDER / f"{Path(path).stem}.mat"
    if not classes_path.exists():
        raise UserError(
            f"there is no {classes_path}, whose classes tell which pixels of {path} are valid: add it, or remove {path}"
        )
    classes = read_context_classes(classes_path)
    if classes.shape != normals.shape[1:]:
        (h, w), (height, width) = normals.shape[1:], classes.shape
        raise UserError(f"{path} is {w}x{h} and {classes_path} is {width}x{height}. Replace the files")
    return np.where(np.isin(classes, NYU_CLASSES), normals, np.float32("nan"))


def read_parts(path: str | Path) -> NDArray[np.uint8] | None:
    """The merged part of each pixel, later ones over earlier ones: uint8 [H, W]; None where no person has a part.

    Raises:
        UserError: the file cannot be read or is no annotation of PASCAL-Part.
    """
    annotation = read_mat(path, "anno")
    try:
        masks = list(_part_masks(annotation))
        if not masks:
            return None
        parts = np.zeros(masks[0][1].shape, dtype=np.uint8)
        for name, mask in masks:
            if name not in PART_IDS:
                raise ValueError(f"a person has no part {name!r}")
            parts[mask] = PART_IDS[name]
    except DAMAGES as error:
        raise UserError(
            f"{path}: anno is no annotation of PASCAL-Part ({error}). Replace the file or remove it"
        ) from None
    return parts if parts.any() else None


def _part_masks(annotation: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The name of each part of each person in MATLAB's struct, and its pixels, bool [H, W]."""
    for item in annotation["objects"][0, 0].ravel():
        if int(item["class_ind"].item()) == PERSON and item["parts"].size:
            for part in item["parts"].ravel():
                yield str(part["part_name"].item()), part["mask"].astype(bool)


PASCAL_CONTEXT = ListedImages(
    lists="ImageSets/Context",
    images="JPEGImages",
    suffixes=(".jpg",),
    labels={
        "mask": LabelFiles(
            places=(("semseg/VOC12", ".png"), ("semseg/pascal-context", ".png")), read=read_class_ids, classes=CLASSES
        ),
        "parts": LabelFiles(places=(("human_parts", ".mat"),), read=read_parts, classes=PARTS),
        "saliency": LabelFiles(places=(("sal_distill", ".png"),), read=read_saliency),
        "normals": LabelFiles(places=(("normals_distill", ".png"),), read=read_valid_normals),
        "edges": LabelFiles(places=((CONTEXT_FOLDER, ".mat"),), read=read_edges),
    },
)
"""The layout of ``PASCAL_MT``."""
