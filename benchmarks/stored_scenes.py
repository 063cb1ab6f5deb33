"""Demo scenes composed once and kept on disk as arrays that several processes map into memory.

Composing a scene takes some 2 ms, a third of a small network's training step per image: trainings that see the same
scenes share them.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from export.errors import UserError
from export.files import read_json_object, write_json
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import Batch, Sample, collate
from fbnetv5.data.scenes import MAX_OBJECTS, TARGETS, Scenes, Split
from fbnetv5.data.targets import ABSENT, Boxes, Target

SETTINGS_FILE = "scenes.json"
STORED = ("label", "boxes", "mask")
"""The stored targets."""


class StoredScenes:
    """A folder's scenes as a set of images."""

    targets: Mapping[str, Target] = {name: TARGETS[name] for name in STORED}

    def __init__(self, folder: Path) -> None:
        """Map the arrays that ``store_scenes`` wrote."""
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._masks = np.load(folder / "masks.npy", mmap_mode="r")
        self._boxes = np.load(folder / "boxes.npy", mmap_mode="r")
        self._box_labels = np.load(folder / "box_labels.npy", mmap_mode="r")
        self._labels = np.load(folder / "labels.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        box_labels = np.array(self._box_labels[index])
        real = box_labels != ABSENT
        return Sample(
            image=torch.from_numpy(np.array(self._images[index])),
            targets={
                "label": int(self._labels[index]),
                "boxes": Boxes(
                    torch.from_numpy(np.array(self._boxes[index])[real]), torch.from_numpy(box_labels[real])
                ),
                "mask": torch.from_numpy(np.array(self._masks[index])),
            },
        )

    def batch(self, indices: Sequence[int]) -> Batch:
        """The scenes at ``indices``, stacked."""
        return collate([self[index] for index in indices], self.targets, indices)


class ResidentScenes:
    """Scenes in the memory of a device, which a GPU can read faster than they can be stacked and copied."""

    def __init__(self, scenes: StoredScenes, device: torch.device) -> None:
        """Copy all scenes to the device."""
        self._everything = scenes.batch(range(len(scenes))).to(device)

    def __len__(self) -> int:
        return len(self._everything.images)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The scenes at ``indices``, stacked; boxes are padded to the largest number of all scenes."""
        device = self._everything.images.device
        return self._everything.rows(torch.tensor(indices).to(device, non_blocking=True))


def store_scenes(folder: Path, split: Split, *, size: Resolution, count: int, seed: int) -> StoredScenes:
    """Compose scenes into a folder, unless they are there.

    Args:
        folder: to make.
        split: as of ``Scenes``, and so are ``size``, ``count`` and ``seed``.
        size: (H, W) in pixels.
        count: how many scenes.
        seed: of the scenes.

    Raises:
        UserError: the folder holds other scenes.
    """
    settings = {"split": split, "size": list(size), "count": count, "seed": seed}
    if not folder.exists():
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _compose_into(temporary, Scenes(split, size=size, count=count, seed=seed, targets=STORED), size)
        write_json(temporary / SETTINGS_FILE, settings)
        temporary.rename(folder)
    stored = read_json_object(folder / SETTINGS_FILE, what="scenes")
    if stored != settings:
        raise UserError(f"{folder} holds other scenes: {stored}, now {settings}. Name another folder")
    return StoredScenes(folder)


def _compose_into(folder: Path, scenes: Scenes, size: Resolution) -> None:
    count, (height, width) = len(scenes), size

    def array(name: str, dtype: Any, *shape: int) -> Any:
        return open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(count, *shape))

    images, masks = array("images", np.uint8, 3, height, width), array("masks", np.uint8, height, width)
    boxes, box_labels = array("boxes", np.float32, MAX_OBJECTS, 4), array("box_labels", np.int64, MAX_OBJECTS)
    labels = array("labels", np.int64)
    box_labels[:] = ABSENT
    for index in range(count):
        scene = scenes[index]
        objects: Boxes = scene.targets["boxes"]
        images[index], masks[index], labels[index] = scene.image, scene.targets["mask"], scene.targets["label"]
        boxes[index, : len(objects.xyxy)], box_labels[index, : len(objects.xyxy)] = objects
    for memmap in (images, masks, boxes, box_labels, labels):
        memmap.flush()
