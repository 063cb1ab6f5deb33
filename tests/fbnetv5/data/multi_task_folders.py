"""Tiny data sets in the published layouts of PASCAL-Context and NYUD-v2, made of demo scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from fbnetv5.data.sample import Sample
from fbnetv5.data.scenes import Scenes

Array = NDArray[Any]

SIDE = (64, 64)
TRAINING, TEST = range(20), range(20, 24)
IDS = [f"2008_{number:06d}" for number in range(24)]
CONTEXT_CLASSES = (431, 284, 207)
"""Ids of "unknown", "person", which NYU-v2 has, and "horse", which it has not."""


def scene(number: int) -> Sample:
    """A demo scene: mask ids 0 to 10, parts 0 to 3."""
    return Scenes("train", size=SIDE, count=24)[number]


def write_lists(folder: Path, ids: Sequence[str] = IDS) -> None:
    folder.mkdir(parents=True)
    for name, numbers in {"train": TRAINING, "val": TEST}.items():
        (folder / f"{name}.txt").write_text("".join(f"{ids[number]}\n" for number in numbers), encoding="utf-8")


def save_image(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_numbers(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def context_classes(number: int) -> Array:
    """A class of PASCAL-Context at each pixel: another one on each part of the scene's objects."""
    classes: Array = np.array((*CONTEXT_CLASSES, 1), dtype=np.uint16)[scene(number).targets["parts"].numpy()]
    return classes


def save_parts(path: Path, objects: Sequence[tuple[int, dict[str, Array]]]) -> None:
    """An annotation of PASCAL-Part.

    Args:
        path: of the file.
        objects: class id and the mask of each part by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    items = np.zeros((1, len(objects)), dtype=fields)
    for position, (class_id, masks) in enumerate(objects):
        parts: Array = np.zeros((1, len(masks)), dtype=[("part_name", object), ("mask", object)])
        for place, (name, mask) in enumerate(masks.items()):
            parts[0, place] = (name, mask.astype(np.uint8))
        items[0, position] = ("any", class_id, np.zeros(SIDE, np.uint8), parts if masks else np.zeros((0, 0)))
    savemat(path, {"anno": {"imname": path.stem, "objects": items}}, do_compression=True)


def make_pascal_context(root: Path) -> Path:
    """24 images with every label, of which those with an even number have a person with parts."""
    write_lists(root / "ImageSets/Context")
    for number, id_ in enumerate(IDS):
        sample = scene(number)
        save_image(root / f"JPEGImages/{id_}.jpg", sample.image.permute(1, 2, 0).numpy())
        semseg = "VOC12" if number % 3 else "pascal-context"
        save_image(root / f"semseg/{semseg}/{id_}.png", sample.targets["mask"].numpy())
        save_image(root / f"sal_distill/{id_}.png", sample.targets["saliency"].numpy() * 200)
        colours = (sample.targets["normals"].nan_to_num(-1).permute(1, 2, 0) + 1) * 127.5
        save_image(root / f"normals_distill/{id_}.png", colours.round().to(torch.uint8).numpy())
        (root / "pascal-context/trainval").mkdir(parents=True, exist_ok=True)
        savemat(root / f"pascal-context/trainval/{id_}.mat", {"LabelMap": context_classes(number)})
        parts = sample.targets["parts"].numpy()
        person = {"hair": parts == 1, "neck": parts == 2, "rfoot": parts == 3}
        objects = [(15, person), (15, {})] if number % 2 == 0 else [(13, {"head": parts == 1}), (15, {})]
        save_parts(root / f"human_parts/{id_}.mat", objects)
    return root


def make_nyud(root: Path) -> Path:
    """24 images with every label, the last one a .png."""
    write_lists(root / "gt_sets")
    for number, id_ in enumerate(IDS):
        sample = scene(number)
        suffix = "jpg" if number < 23 else "png"
        save_image(root / f"images/{id_}.{suffix}", sample.image.permute(1, 2, 0).numpy())
        save_image(root / f"segmentation/{id_}.png", sample.targets["mask"].numpy())
        save_numbers(root / f"depth/{id_}.npy", sample.targets["depth"].numpy())
        save_numbers(root / f"normals/{id_}.npy", sample.targets["normals"].permute(1, 2, 0).numpy())
        save_numbers(root / f"edge/{id_}.npy", sample.targets["edges"].numpy().astype(np.float32))
    return root
