"""One labelled image, a ``Sample``; several, stacked in a ``Batch``; and the protocols of sets of samples.

An image may lack the labels of any task; it then trains the other tasks. ``fbnetv5.data.targets`` describes labels.

Shape legend: N images, H x W pixels.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from accelerate.utils import recursively_apply
from torch import Tensor

from export.placement import Placement, place
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its labels."""

    image: Tensor
    """uint8 [3, H, W], RGB."""
    targets: Mapping[str, Any]
    """Its labels by name, of the type that the target's kind documents; no entry where it is not labelled."""
    placement: Placement | None = None
    """Where the stored image lies in ``image``; None if they are the same, or if ``image`` was augmented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples of one size, stacked."""

    images: Tensor
    """uint8 [N, 3, H, W]."""
    indices: Tensor
    """int64 [N], each image's index in its set."""
    targets: Mapping[str, Any]
    """Labels by name, collated as the target's kind documents."""
    present: Mapping[str, Tensor]
    """bool [N] by name: which images have the label."""
    placements: Tensor
    """int64 [N, 6], the rows of ``Placement.row``: where the stored images lie in ``images``."""
    unreadable: tuple[str, ...] = ()
    """The errors of images that could not be read and were replaced by others of the set."""

    def placement(self, index: int) -> Placement:
        """Where the stored image lies in image ``index`` of the batch."""
        height, width = self.images.shape[2:]
        return Placement.of_row(self.placements[index].tolist(), (height, width))

    def to(self, device: torch.device) -> Self:
        """The same batch on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def flipped(self) -> Self:
        """The same images in reverse order."""
        return self._map(lambda tensor: tensor.flip(0))

    def rows(self, indices: Tensor) -> Self:
        """The images at these positions, int64 [n], in this order."""
        return self._map(lambda tensor: tensor.index_select(0, indices))

    def pin_memory(self) -> Self:
        """The same batch in pinned memory; torch's ``DataLoader`` calls it."""
        return self._map(lambda tensor: tensor.pin_memory())

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor of the batch."""
        tensors: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        self._map(keep)
        return tensors

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(
            images=change(self.images),
            indices=change(self.indices),
            targets=recursively_apply(change, self.targets),
            present=recursively_apply(change, self.present),
            placements=change(self.placements),
            unreadable=self.unreadable,
        )


class ImageSet(Protocol):
    """A set of samples of one size, by index."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """The labels of its samples by name; not every sample has every label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class ResizableSet(ImageSet, Protocol):
    """An image set that can be viewed at another size."""

    def resized(self, size: Resolution) -> "ResizableSet":
        """The same images and labels at ``size``, (H, W); nothing is read again."""


@runtime_checkable
class KnowsLabels(Protocol):
    """An image set that knows which labels an image has without decoding the image."""

    def has_labels(self, index: int, targets: Collection[str]) -> bool:
        """Whether the image at ``index`` has all of these labels."""


def has_labels(images: ImageSet, index: int, targets: Collection[str]) -> bool:
    """Whether an image of a set has all of these labels; it is decoded only where the set cannot know without.

    Raises:
        UserError: a label, or an image that must be decoded, cannot be read.
    """
    if isinstance(images, KnowsLabels):
        return images.has_labels(index, targets)
    return images[index].targets.keys() >= set(targets)


def collate(samples: Sequence[Sample], targets: Mapping[str, Target], indices: Sequence[int] | None = None) -> Batch:
    """Stack samples of one size into a batch; without ``indices`` the samples are a whole set in order."""
    height, width = samples[0].image.shape[1:]
    labels = {name: [sample.targets.get(name) for sample in samples] for name in targets}
    whole = place((height, width), (height, width), "stretch")
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        indices=torch.tensor(range(len(samples)) if indices is None else indices),
        targets={name: target.kind.collate(labels[name], (height, width)) for name, target in targets.items()},
        present={name: torch.tensor([value is not None for value in labels[name]]) for name in targets},
        placements=torch.tensor([(sample.placement or whole).row for sample in samples]),
    )
