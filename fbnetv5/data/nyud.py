"""NYUD-v2 (Silberman et al., ECCV 2012) with labels for four tasks, as multi-task benchmarks publish it: ``NYUD_MT``.

    gt_sets/train.txt, val.txt    795 and 654 ids
    images/ID.jpg                 or .png
    segmentation/ID.png           id of one of 40 classes (Gupta et al., CVPR 2013), from 1 on; 0 is ignored
    depth/ID.npy                  metres, [H, W]
    normals/ID.npy                vectors, [H, W, 3]
    edge/ID.npy                   1 on edges, [H, W]

It is the form of Vandenhende et al. (arXiv 2004.13379). ASTMT's archive has the same folders with other file types
(.mat, .jpg, .png), which are not read.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fbnetv5.data.array_files import read_npy
from fbnetv5.data.listed_images import LabelFiles, ListedImages
from fbnetv5.data.maps import read_class_ids, unit_vectors

CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture", "other prop",
)  # fmt: skip


def read_depth(path: str | Path) -> NDArray[np.float32]:
    """Metres, NaN where they are not positive and finite: float32 [H, W]."""
    metres = read_npy(path, 2).astype(np.float32)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32("nan"))


def read_normals(path: str | Path) -> NDArray[np.float32]:
    """Unit vectors, NaN where a vector is 0: float32 [3, H, W]."""
    return unit_vectors(read_npy(path, 3))


def read_edges(path: str | Path) -> NDArray[np.uint8]:
    """1 where the array is positive: uint8 [H, W]."""
    edges: NDArray[np.uint8] = (read_npy(path, 2) > 0).astype(np.uint8)
    return edges


NYUD = ListedImages(
    lists="gt_sets",
    images="images",
    suffixes=(".jpg", ".png"),
    labels={
        "mask": LabelFiles(places=(("segmentation", ".png"),), read=read_class_ids, classes=CLASSES),
        "depth": LabelFiles(places=(("depth", ".npy"),), read=read_depth),
        "normals": LabelFiles(places=(("normals", ".npy"),), read=read_normals),
        "edges": LabelFiles(places=(("edge", ".npy"),), read=read_edges),
    },
    zero_is_ignored=True,
)
"""The layout of ``NYUD_MT``."""
