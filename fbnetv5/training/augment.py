"""Augmentation: random changes of a training image and its labels, by torchvision.transforms.v2.

A change is a function of (seed, draw) alone, where the draw is the image's position in the endless stream of a
training: the same image is changed differently in every epoch, and a resumed training has the images of an
uninterrupted one.

Images enter and leave at the size that the network reads; enlarging magnifies their pixels.
Not included: rotation and shear of images with boxes or maps, and pasting objects from image to image.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from export.placement import PADDING
from fbnetv5.data.sample import Sample
from fbnetv5.data.targets import Target
from fbnetv5.training.config import TrainConfig

MAX_MAGNITUDE = 30
"""The largest magnitude of RandAugment (arXiv 1909.13719), which a strength of 1 stands for."""


class PhotometricRandAugment(v2.RandAugment):  # type: ignore[misc]  # torchvision has no types
    """RandAugment with the operations that move no pixel, so that boxes and maps stay right."""

    _AUGMENTATION_SPACE: ClassVar[Mapping[str, Any]] = {
        name: operation
        for name, operation in v2.RandAugment._AUGMENTATION_SPACE.items()
        if name not in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
    }


class Augment:
    """The augmentation of one training; called with a sample and its draw."""

    def __init__(self, config: TrainConfig, targets: Mapping[str, Target]) -> None:
        fill: dict[type | str, float] = {tv_tensors.Image: PADDING, "others": 0}
        for target in targets.values():
            fill.update(target.kind.padding)
        changes: list[v2.Transform] = [v2.RandomHorizontalFlip(config.flip)]
        if config.scale != (1.0, 1.0):
            shorter = [round(min(config.data.size) * factor) for factor in config.scale]
            changes.append(v2.RandomResize(shorter[0], shorter[1] + 1))
            changes.append(v2.RandomCrop(config.data.size, pad_if_needed=True, fill=fill))
        if config.colour:
            changes.append(v2.ColorJitter(config.colour, config.colour, config.colour))
        self._change = v2.Compose(changes)
        self._operations = rand_augment(config.augment, targets) if config.augment else nn.Identity()
        self._seed = config.seed
        self._kinds = {name: target.kind for name, target in targets.items()}

    def __call__(self, sample: Sample, draw: int) -> Sample:
        """Return a changed copy of the sample."""
        height, width = sample.image.shape[1:]
        wrapped = {name: self._kinds[name].wrap(value, (height, width)) for name, value in sample.targets.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self._seed, draw]).generate_state(1, np.uint64)[0]))
            image, targets = self._change(tv_tensors.Image(sample.image), wrapped)
            image = self._operations(image)
        return Sample(
            image=image.as_subclass(Tensor),
            targets={name: self._kinds[name].unwrap(value) for name, value in targets.items()},
        )


def rand_augment(strength: float, targets: Mapping[str, Target]) -> v2.RandAugment:
    """RandAugment with two operations; those that move pixels only if all labels are of whole images."""
    geometric = all(target.kind.of_whole_image for target in targets.values())
    operations = v2.RandAugment if geometric else PhotometricRandAugment
    return operations(2, round(MAX_MAGNITUDE * strength), MAX_MAGNITUDE + 1, fill=PADDING)
