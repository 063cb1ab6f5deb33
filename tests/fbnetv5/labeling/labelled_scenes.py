"""Photographs with coloured rectangles, unlabelled, and teachers that find exactly these rectangles."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbnetv5.data.scenes import photographs
from fbnetv5.labeling.config import LabelConfig, TeacherConfig
from fbnetv5.labeling.labeller import Labeller
from fbnetv5.labeling.run import open_labelling
from tests.fbnetv5.labeling.teachers.onnx_files import classifier, save_png, segmenter

SIZES = ((64, 64), (48, 80), (96, 64))
DIMMED = 0.35
"""Factor of the photographs, so that none of their pixels is taken for a rectangle."""


def rectangle(number: int) -> tuple[int, int, int, int, int]:
    """(x0, y0, x1, y1, class) of the rectangle in an image, even coordinates."""
    height, width = SIZES[number % len(SIZES)]
    rng = np.random.default_rng(number)
    x0, y0 = 2 * int(rng.integers(width // 8)), 2 * int(rng.integers(height // 8))
    return x0, y0, x0 + width // 2, y0 + height // 2, number % 2


def image(number: int) -> Tensor:
    """A dimmed photograph with its rectangle, uint8 [3, H, W]."""
    height, width = SIZES[number % len(SIZES)]
    photos = photographs("train")
    photo = np.asarray(photos[number % len(photos)].resize((width, height)), np.float32) * DIMMED
    pixels = torch.from_numpy(photo.astype(np.uint8).transpose(2, 0, 1).copy())
    x0, y0, x1, y1, colour = rectangle(number)
    pixels[:, y0:y1, x0:x1] = 0
    pixels[colour, y0:y1, x0:x1] = 255
    return pixels


def true_mask(number: int) -> Tensor:
    """The class map of an image: 0 is the background, then red and green."""
    height, width = SIZES[number % len(SIZES)]
    mask = torch.zeros(height, width, dtype=torch.uint8)
    x0, y0, x1, y1, colour = rectangle(number)
    mask[y0:y1, x0:x1] = colour + 1
    return mask


def write_images(root: Path, count: int) -> Path:
    """Images 0, 1, ... in two folders, as 0/0000.png, 1/0001.png, 0/0002.png, ..."""
    for number in range(count):
        save_png(root / str(number % 2) / f"{number:04d}.png", image(number))
    return root


def number_of(name: str) -> int:
    """The number of an image from its name in the source or in the new data set."""
    return int(Path(name).stem[-4:])


def make_config(root: Path, *, count: int = 12, **fields: Any) -> LabelConfig:
    """Images in ``root/images`` with a classifier and a segmenter in ``root``."""
    write_images(root / "images", count)
    teachers = {
        "cls": TeacherConfig(teacher=str(classifier(root / "cls.onnx")), threshold=0.6),
        "seg": TeacherConfig(teacher=str(segmenter(root / "seg.onnx", size=[96, 96]))),
    }
    settings: dict[str, Any] = {"images": str(root / "images"), "teachers": teachers, "ignore_labels": True}
    return LabelConfig(**settings | {"chunk": 4, "batch": 3} | fields)


def make_labeller(root: Path, **fields: Any) -> Labeller:
    return open_labelling(make_config(root, **fields)).labeller
