"""What a picture with labels is: one ``Sample``, and the ``Batch`` that every task reads.

A picture may lack the labels of any task; it then trains the others. Absence is explicit: ``label == ABSENT``,
``boxes is None``, ``mask is None`` in a sample; ``labels == ABSENT``, ``has_boxes`` and ``has_mask`` in a batch.

Shape legend: N pictures, H x W pixels, M most boxes of any picture of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Tensor

ABSENT = -1
"""Label of a picture, or of a padding box, that has none."""
IGNORE = 255
"""Mask value that neither loss nor metric looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Names of what each kind of label can be; an index into the tuple is the class id."""

    labels: tuple[str, ...]
    """Of whole pictures."""
    boxes: tuple[str, ...]
    """Of objects in boxes."""
    masks: tuple[str, ...]
    """Of pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture and whatever labels it has."""

    image: Tensor
    """uint8 [3, H, W], RGB."""
    label: int
    """Class id of the picture, or ABSENT."""
    boxes: Tensor | None
    """float32 [n, 4], (x0, y0, x1, y1) in pixels; n = 0 says "nothing is there"; None says "not labelled"."""
    box_labels: Tensor | None
    """int64 [n], class id of each box; None together with ``boxes``."""
    mask: Tensor | None
    """uint8 [H, W], class id of each pixel or IGNORE; None where not labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples of one size, stacked. Boxes are padded to the batch's largest number."""

    images: Tensor
    """uint8 [N, 3, H, W]."""
    indices: Tensor
    """int64 [N], each picture's place in its set."""
    labels: Tensor
    """int64 [N], ABSENT where not labelled."""
    boxes: Tensor
    """float32 [N, M, 4], zeros where padded; M >= 1."""
    box_labels: Tensor
    """int64 [N, M], ABSENT where padded."""
    has_boxes: Tensor
    """bool [N]: whether the picture's boxes are labelled (possibly with none)."""
    masks: Tensor
    """uint8 [N, H, W], all IGNORE where not labelled."""
    has_mask: Tensor
    """bool [N]."""

    def to(self, device: torch.device) -> Self:
        """The same batch on ``device``."""
        return type(self)(
            **{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        )


class PictureSet(Protocol):
    """A set of samples of one size, by index."""

    classes: Classes

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def collate(samples: Sequence[Sample], indices: Sequence[int] | None = None) -> Batch:
    """Stack samples of one size into a batch; without ``indices`` the samples are taken for a whole set."""
    most = max(1, *(len(sample.boxes) for sample in samples if sample.boxes is not None), 1)
    boxes = torch.zeros(len(samples), most, 4)
    box_labels = torch.full((len(samples), most), ABSENT)
    height, width = samples[0].image.shape[1:]
    masks = torch.full((len(samples), height, width), IGNORE, dtype=torch.uint8)
    for row, sample in enumerate(samples):
        if sample.boxes is not None and sample.box_labels is not None:
            boxes[row, : len(sample.boxes)] = sample.boxes
            box_labels[row, : len(sample.boxes)] = sample.box_labels
        if sample.mask is not None:
            masks[row] = sample.mask
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        indices=torch.tensor(range(len(samples)) if indices is None else indices),
        labels=torch.tensor([sample.label for sample in samples]),
        boxes=boxes,
        box_labels=box_labels,
        has_boxes=torch.tensor([sample.boxes is not None for sample in samples]),
        masks=masks,
        has_mask=torch.tensor([sample.mask is not None for sample in samples]),
    )
