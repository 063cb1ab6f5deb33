"""Labels images: the labels that they have, then those of the teachers, then those that follow from both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from export.errors import UnavailableError, UserError
from fbnetv5.data.folder import KINDS
from fbnetv5.data.image_files import DEEP_MODES, opened, rgb, upright
from fbnetv5.data.predictions import ClassScores
from fbnetv5.data.targets import Target
from fbnetv5.labeling.derive import Derivation
from fbnetv5.labeling.rules import LabelRule
from fbnetv5.labeling.sources import SourceImages
from fbnetv5.labeling.teachers.teacher import Teacher

Origin = Literal["kept", "teacher", "derived"]


@dataclass(slots=True, kw_only=True)
class Labelled:
    """An image with its labels at its own pixels."""

    index: int
    """In the source."""
    image: Tensor
    """uint8 [3, H, W]."""
    labels: dict[str, Any]
    """By target."""
    origins: dict[str, Origin] = field(default_factory=dict)
    """By target: where the label is from."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An image that cannot be used."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeller:
    """The images with everything that labels them."""

    source: SourceImages
    teachers: Mapping[str, tuple[Teacher, LabelRule]]
    """By task."""
    derivations: Mapping[str, Derivation]
    """By task."""
    batch: int
    """Images in memory, and in a call of a teacher."""
    soft_labels: int | None = None
    """Classes of a soft label; None for none."""

    @property
    def targets(self) -> dict[str, Target]:
        """The labels of the new data set."""
        made = {rule.target: rule.classes for _, rule in self.teachers.values()}
        made |= {"soft_label": self.teachers["cls"][1].classes} if self.soft_labels else {}
        made |= {derivation.target: derivation.classes for derivation in self.derivations.values()}
        return dict(self.source.targets) | {
            name: Target(kind=KINDS[name], classes=classes)
            for name, classes in made.items()
            if name not in self.source.targets
        }

    def label(self, indices: Sequence[int]) -> Iterator[Labelled | LeftOut]:
        """The images at these positions with their labels; unreadable ones come before those of their batch.

        Raises:
            UserError: a teacher fails, or an existing label is wrong.
            UnavailableError: the storage of an image fails.
        """
        for start in range(0, len(indices), self.batch):
            images: list[Labelled] = []
            for index in indices[start : start + self.batch]:
                try:
                    image = read_image(self.source.path(index))
                except UnavailableError:  # of the storage, for this one and all others
                    raise
                except UserError as error:
                    yield LeftOut(index=index, reason=str(error))
                    continue
                labels = self.source.labels(index)
                images.append(Labelled(index=index, image=image, labels=labels, origins=dict.fromkeys(labels, "kept")))
            self._add_labels(images)
            yield from images

    def _add_labels(self, images: Sequence[Labelled]) -> None:
        for teacher, rule in self.teachers.values():
            soft_labels = self.soft_labels if rule.target == "label" else None
            lacking = [image for image in images if soft_labels or rule.target not in image.labels]
            names = [self.source.path(image.index) for image in lacking]
            predictions = teacher.predict([image.image for image in lacking], names, batch=self.batch)
            for image, prediction in zip(lacking, predictions, strict=True):
                if rule.target not in image.labels:
                    _add(image, rule.target, rule(prediction), "teacher")
                if soft_labels and isinstance(prediction, ClassScores):
                    _add(image, "soft_label", rule.soft_label(prediction, soft_labels), "teacher")
        for derivation in self.derivations.values():
            for image in images:
                if derivation.target not in image.labels:
                    value = derivation.rule(self.source.names[image.index], image.labels, image.size)
                    _add(image, derivation.target, value, "derived")


def _add(image: Labelled, target: str, value: Any | None, origin: Origin) -> None:
    """Add a label that labels anything."""
    if value is not None and KINDS[target].has_labels(value):
        image.labels[target], image.origins[target] = value, origin


def read_image(path: str | Path) -> Tensor:
    """The pixels of an image file, uint8 [3, H, W], RGB and upright.

    Raises:
        UserError: it cannot be read, or has more than 8 bits a channel.
    """
    with opened(path) as file:
        if file.mode[0] in DEEP_MODES:
            raise UserError(f"{path} has more than 8 bits a channel (mode {file.mode}). Save it with 8")
        pixels = np.array(rgb(upright(file)))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
