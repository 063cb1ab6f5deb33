"""Random changes of a training image, its labels moved along, by torchvision.transforms.v2.

A change is a function of (seed, draw) alone, the draw being the image's place in the endless stream of a training:
the same image looks different in every epoch, and a resumed training sees what the killed one would have seen.

Images come in at the size the network reads and leave at that size: enlarging magnifies their pixels.
Left out: rotation, and pasting objects from image to image.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fbnetv5.data.sample import Sample
from fbnetv5.data.targets import Target
from fbnetv5.training.config import TrainConfig

GREY = 114
"""What surrounds an image that was made smaller."""


class Augment:
    """The changes of one training; called with a sample and its draw."""

    def __init__(self, config: TrainConfig, targets: Mapping[str, Target]) -> None:
        fill: dict[type | str, float] = {tv_tensors.Image: GREY, "others": 0}
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
        self._seed = config.seed
        self._kinds = {name: target.kind for name, target in targets.items()}

    def __call__(self, sample: Sample, draw: int) -> Sample:
        """The changed sample; the one given stays as it is."""
        height, width = sample.image.shape[1:]
        wrapped = {name: self._kinds[name].wrap(value, (height, width)) for name, value in sample.targets.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self._seed, draw]).generate_state(1, np.uint64)[0]))
            image, moved = self._change(tv_tensors.Image(sample.image), wrapped)
        return Sample(
            image=image.as_subclass(Tensor),
            targets={name: self._kinds[name].unwrap(value) for name, value in moved.items()},
        )
