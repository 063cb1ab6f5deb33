"""Random changes of a training picture, its boxes and its mask moved along, by torchvision.transforms.v2.

A change is a function of (seed, draw) alone, the draw being the picture's place in the endless stream of a training:
the same picture looks different in every epoch, and a resumed training sees what the killed one would have seen.

Pictures come in at the size the network reads and leave at that size: enlarging magnifies their pixels.
Left out: rotation, and pasting objects from picture to picture.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fbnetv5.data.sample import IGNORE, Sample
from fbnetv5.training.config import TrainConfig

LEAST_SIDE = 2.0
"""A box of which less than this many pixels are left after a crop, in width or height, is dropped."""
GREY = 114
"""What surrounds a picture that was made smaller."""


class Augment:
    """The changes of one training; called with a sample and its draw."""

    def __init__(self, config: TrainConfig) -> None:
        fill = {tv_tensors.Image: GREY, tv_tensors.Mask: IGNORE, "others": 0}
        changes: list[v2.Transform] = [v2.RandomHorizontalFlip(config.flip)]
        if config.scale != (1.0, 1.0):
            shorter = [round(min(config.data.size) * factor) for factor in config.scale]
            changes.append(v2.RandomResize(shorter[0], shorter[1] + 1))
            changes.append(v2.RandomCrop(config.data.size, pad_if_needed=True, fill=fill))
        if config.colour:
            changes.append(v2.ColorJitter(config.colour, config.colour, config.colour))
        self._change = v2.Compose(changes)
        self._seed = config.seed

    def __call__(self, sample: Sample, draw: int) -> Sample:
        """The changed sample; the one given stays as it is."""
        size = sample.image.shape[1:]
        boxes = torch.zeros(0, 4) if sample.boxes is None else sample.boxes
        parts: list[Tensor] = [
            tv_tensors.Image(sample.image),
            tv_tensors.BoundingBoxes(boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size),
        ]
        if sample.mask is not None:
            parts.append(tv_tensors.Mask(sample.mask))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self._seed, draw]).generate_state(1, np.uint64)[0]))
            image, boxes, *mask = (part.as_subclass(Tensor) for part in self._change(*parts))
        kept = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= LEAST_SIDE
        return Sample(
            image=image,
            label=sample.label,
            boxes=None if sample.boxes is None else boxes[kept],
            box_labels=None if sample.box_labels is None else sample.box_labels[kept],
            mask=mask[0] if mask else None,
        )
