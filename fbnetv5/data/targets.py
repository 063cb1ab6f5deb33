"""The kinds of image labels, and how labels of each kind are stacked, fitted to the input and augmented.

A target has a name ("label", "boxes", "mask", "depth", ...), a kind and, if it has classes, their names. A
new kind of label is a subclass of ``Kind``: loading, augmentation and mixup depend on no particular one. Which targets
a user's folder may hold is in ``fbnetv5.data.folder`` and ``fbnetv5.data.maps``; which the demo
scenes have, in ``fbnetv5.data.scenes``.

A missing label is explicit: ``Sample.targets`` lacks its name. In a batch, ``Batch.present`` marks the images that
have the label, and each kind fills the rows of the others as its ``collate`` documents.

Augmentations are torchvision's ``transforms.v2``: a kind wraps its value in the ``tv_tensors`` class that they flip,
resize, crop and pad together with the image, and unwraps the result.

Shape legend: N images, H x W pixels, M the largest number of boxes of an image of the batch, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from export.placement import Placement
from fbnetv5.data.resolution import Resolution

ABSENT = -1
"""Class id of an image, or of a padding box, that has none."""
IGNORED_BOXES = "ignored_boxes"
"""Name of the target with the boxes that are not learned and not measured, such as COCO's crowds. Training treats them
as background, and the metric ignores detections that match them."""
IGNORE = 255
"""Class id of pixels that neither loss nor metric uses."""
MIN_BOX_SIDE = 2.0
"""Pixels: an augmentation drops a box whose remaining width or height is smaller."""

MIN_VISIBLE = 0.25
"""A mosaic drops a box of which it shows a smaller share."""

Patch = tuple[slice, slice]
"""The rows and columns of a box in an image."""


class Kind(ABC):
    """One kind of label. A value is the label of one image; a collated value is that of a batch."""

    padding: ClassVar[Mapping[type | str, float]] = {}
    """By ``tv_tensors`` class that ``wrap`` returns: the value of pixels that a crop adds outside of the image."""
    of_whole_image: ClassVar[bool] = False
    """Whether it labels the image as a whole, wherever its objects are."""
    can_paste: ClassVar[bool] = False
    """Whether ``paste`` returns the labels of images with a pasted patch."""

    @abstractmethod
    def collate(self, values: Sequence[Any], size: Resolution) -> Any:
        """Stack the values of a batch: a tensor or a NamedTuple of tensors whose first axis is N.

        Args:
            values: of the batch's images; None where an image is not labelled.
            size: (H, W) of the images.
        """

    def to_input(self, value: Any, placement: Placement) -> Any:
        """The value of an image at its own size -> of the image as it lies in the input of a network."""
        return value

    def has_labels(self, value: Any) -> bool:
        """Whether the value labels anything; a map without a labelled pixel does not."""
        return True

    def wrap(self, value: Any, size: Resolution) -> Any:
        """The value of an image of ``size`` as torchvision's transforms expect it."""
        return value

    def unwrap(self, transformed: Any) -> Any:
        """The value from a transformed result of ``wrap``."""
        return transformed

    def paste(self, collated: Any, present: Tensor, patch: Patch) -> tuple[Any, Tensor]:
        """The labels of a batch in which each image has a patch of its partner, and which images have labels.

        Labels of whole images stay those of the image that the patch is pasted into.

        Args:
            collated: the labels of the batch.
            present: bool [N], which images have labels.
            patch: pasted from image N - 1 - n into image n.
        """
        return collated, present

    def mosaic(self, collated: Any, present: Tensor, patches: Sequence[Patch]) -> tuple[Any, Tensor]:
        """The labels of a batch in which patch k of image n shows image n + k, and which images have labels.

        Labels of whole images stay those of image n.

        Args:
            collated: the labels of the batch.
            present: bool [N], which images have labels.
            patches: they cover the image without overlap; image n + k is n + k - N after the last.
        """
        return collated, present


class ClassKind(Kind):
    """One class per image. Value: class id, an int; collated: int64 [N], ABSENT where not labelled."""

    of_whole_image = can_paste = True

    def collate(self, values: Sequence[int | None], size: Resolution) -> Tensor:
        return torch.tensor([ABSENT if value is None else value for value in values])


class Boxes(NamedTuple):
    """Objects of one image, or of a batch, padded to its largest number."""

    xyxy: Tensor
    """float32 [M, 4] or [N, M, 4]: (x0, y0, x1, y1) in pixels; zeros where padded. No box means no object."""
    labels: Tensor
    """int64 [M] or [N, M]: class id of each box, ABSENT where padded."""


class BoxesKind(Kind):
    """Boxes with classes. Value and collated: ``Boxes``; a batch has at least one row per image, M >= 1."""

    def collate(self, values: Sequence[Boxes | None], size: Resolution) -> Boxes:
        max_boxes = max(1, max((len(value.labels) for value in values if value is not None), default=0))
        batch = Boxes(torch.zeros(len(values), max_boxes, 4), torch.full((len(values), max_boxes), ABSENT))
        for row, value in enumerate(values):
            if value is not None:
                batch.xyxy[row, : len(value.labels)] = value.xyxy
                batch.labels[row, : len(value.labels)] = value.labels
        return batch

    def to_input(self, value: Boxes, placement: Placement) -> Boxes:
        return Boxes(placement.boxes_to_input(value.xyxy), value.labels)

    def wrap(self, value: Boxes, size: Resolution) -> Boxes:
        boxes = tv_tensors.BoundingBoxes(value.xyxy, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size)
        return Boxes(boxes, value.labels)

    def unwrap(self, transformed: Boxes) -> Boxes:
        boxes = transformed.xyxy.as_subclass(Tensor)
        kept = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= MIN_BOX_SIDE
        return Boxes(boxes[kept], transformed.labels[kept])

    def mosaic(self, collated: Boxes, present: Tensor, patches: Sequence[Patch]) -> tuple[Boxes, Tensor]:
        """Boxes cut at the borders of their patches; an image has labels if all images that it shows have them."""
        parts = [_visible_boxes(collated, shift, patch) for shift, patch in enumerate(patches)]
        xyxy, labels = torch.cat([part.xyxy for part in parts], 1), torch.cat([part.labels for part in parts], 1)
        absent_last = (labels == ABSENT).long().argsort(dim=1, stable=True)
        order = absent_last[:, : max(1, int((labels != ABSENT).sum(1).max()))]
        boxes = Boxes(xyxy.gather(1, order[..., None].expand(-1, -1, 4)), labels.gather(1, order))
        return boxes, torch.stack([present.roll(-shift) for shift in range(len(patches))]).all(0)


def _visible_boxes(collated: Boxes, shift: int, patch: Patch) -> Boxes:
    """The boxes of images n + shift as a patch of image n shows them, ABSENT if it shows too little."""
    rows, columns = patch
    xyxy, labels = collated.xyxy.roll(-shift, 0), collated.labels.roll(-shift, 0)
    low, high = xyxy.new_tensor([columns.start, rows.start] * 2), xyxy.new_tensor([columns.stop, rows.stop] * 2)
    cut = xyxy.clamp(low, high)
    sides = cut[..., 2:] - cut[..., :2]
    area = (xyxy[..., 2:] - xyxy[..., :2]).prod(-1)
    visible = (sides.amin(-1) >= MIN_BOX_SIDE) & (sides.prod(-1) >= MIN_VISIBLE * area)
    return Boxes(cut * visible[..., None], labels.where(visible, ABSENT))


class MapKind(Kind):
    """A label per pixel. Value: a tensor [..., H, W]; collated: [N, ..., H, W]."""

    can_paste = True
    unknown: ClassVar[float]
    """Value of a pixel without a label."""

    @abstractmethod
    def resize(self, value: Tensor, size: Resolution) -> Tensor:
        """The map at another size."""

    def to_input(self, value: Tensor, placement: Placement) -> Tensor:
        """The map resized like its image; padded pixels are unknown."""
        resized = self.resize(value, placement.inner)
        return resized if placement.fills else functional.pad(resized, placement.margins, value=self.unknown)

    def paste(self, collated: Tensor, present: Tensor, patch: Patch) -> tuple[Tensor, Tensor]:
        """The map pasted like the image; an image has labels if it or its partner has them."""
        return paste(collated, patch), present | present.flip(0)

    def mosaic(self, collated: Tensor, present: Tensor, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        """The map composed like the image; an image has labels if any image that it shows has them."""
        shown = [present.roll(-shift) for shift in range(len(patches))]
        return compose(collated, patches), torch.stack(shown).any(0)


class ClassMapKind(MapKind):
    """A class per pixel. Value: uint8 [H, W] with IGNORE where unknown; collated: uint8 [N, H, W]."""

    unknown = IGNORE
    padding: ClassVar[Mapping[type | str, float]] = {tv_tensors.Mask: unknown}

    def collate(self, values: Sequence[Tensor | None], size: Resolution) -> Tensor:
        return _stack(values, torch.full(size, IGNORE, dtype=torch.uint8))

    def has_labels(self, value: Tensor) -> bool:
        return bool((value != IGNORE).any())

    def resize(self, value: Tensor, size: Resolution) -> Tensor:
        return _nearest(value, size)

    def wrap(self, value: Tensor, size: Resolution) -> Tensor:
        mask: Tensor = tv_tensors.Mask(value)
        return mask

    def unwrap(self, transformed: Tensor) -> Tensor:
        plain: Tensor = transformed.as_subclass(Tensor)
        return plain


class LineMapKind(ClassMapKind):
    """A class map of lines one pixel wide, 1 on a line and 0 beside it: downscaling must not remove them.

    Only ``resize`` ensures that; augmentations scale it like any class map.
    """

    def resize(self, value: Tensor, size: Resolution) -> Tensor:
        """1 where Pillow's box filter covers a pixel of a line; elsewhere as for class maps."""
        covered = Image.fromarray((value == 1).numpy().astype(np.float32)).resize(size[::-1], Image.Resampling.BOX)
        return _nearest(value, size).masked_fill(torch.from_numpy(np.asarray(covered) > 0), 1)


class DenseTensor(tv_tensors.Mask):  # type: ignore[misc]  # torchvision has no types
    """Numbers per pixel: torchvision transforms them like a mask, without mixing neighbours."""


class DenseMapKind(MapKind):
    """A number per pixel. Value: float32 [H, W], NaN where unknown; collated: float32 [N, H, W]."""

    unknown = float("nan")
    padding: ClassVar[Mapping[type | str, float]] = {DenseTensor: unknown}

    def collate(self, values: Sequence[Tensor | None], size: Resolution) -> Tensor:
        return _stack(values, torch.full(size, float("nan")))

    def has_labels(self, value: Tensor) -> bool:
        return not value.isnan().all()

    def resize(self, value: Tensor, size: Resolution) -> Tensor:
        return _nearest(value, size)

    def wrap(self, value: Tensor, size: Resolution) -> Tensor:
        return DenseTensor(value)

    def unwrap(self, transformed: Tensor) -> Tensor:
        plain: Tensor = transformed.as_subclass(Tensor)
        return plain


class VectorTensor(DenseTensor):
    """A vector (x, y, z) per pixel, [3, H, W], x to the right: a mirrored image mirrors x as well."""


@transforms.register_kernel(transforms.horizontal_flip, VectorTensor)  # type: ignore[untyped-decorator]
def _flip_vectors(vectors: VectorTensor) -> VectorTensor:
    """The mirrored map, x with the opposite sign."""
    x, others = vectors.as_subclass(Tensor).flip(-1).split((1, 2))
    flipped: VectorTensor = tv_tensors.wrap(torch.cat([-x, others]), like=vectors)
    return flipped


class VectorMapKind(DenseMapKind):
    """A unit vector per pixel. Value: float32 [3, H, W], NaN where unknown; collated: float32 [N, 3, H, W].

    Resizing moves vectors and does not turn them, even where it changes the aspect.
    """

    padding: ClassVar[Mapping[type | str, float]] = {VectorTensor: DenseMapKind.unknown}

    def collate(self, values: Sequence[Tensor | None], size: Resolution) -> Tensor:
        return _stack(values, torch.full((3, *size), float("nan")))

    def resize(self, value: Tensor, size: Resolution) -> Tensor:
        return torch.stack([_nearest(component, size) for component in value])

    def wrap(self, value: Tensor, size: Resolution) -> Tensor:
        return VectorTensor(value)


class SoftLabel(NamedTuple):
    """The most probable classes of one image by a teacher, or of a batch, padded to its largest number."""

    probabilities: Tensor
    """float32 [K] or [N, K], above 0, descending; 0 where padded. Their sum is at most 1: other classes have the
    rest."""
    class_ids: Tensor
    """int64 [K] or [N, K]: the class of each probability; 0 where padded."""


class SoftLabelKind(Kind):
    """Probabilities of classes of an image. Value and collated: ``SoftLabel``; a batch has K >= 1."""

    of_whole_image = can_paste = True

    def collate(self, values: Sequence[SoftLabel | None], size: Resolution) -> SoftLabel:
        most = max(1, max((len(value.class_ids) for value in values if value is not None), default=0))
        batch = SoftLabel(torch.zeros(len(values), most), torch.zeros(len(values), most, dtype=torch.int64))
        for row, value in enumerate(values):
            if value is not None:
                batch.probabilities[row, : len(value.class_ids)] = value.probabilities
                batch.class_ids[row, : len(value.class_ids)] = value.class_ids
        return batch

    def has_labels(self, value: SoftLabel) -> bool:
        return len(value.class_ids) > 0


CLASS, BOXES, CLASS_MAP, LINE_MAP = ClassKind(), BoxesKind(), ClassMapKind(), LineMapKind()
DENSE_MAP, VECTOR_MAP, SOFT_LABEL = DenseMapKind(), VectorMapKind(), SoftLabelKind()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One label of the images of a set."""

    kind: Kind
    classes: tuple[str, ...] = ()
    """Names of the classes, a class id being an index into them; () if it has no classes."""


def class_names(targets: Mapping[str, Target]) -> dict[str, tuple[str, ...]]:
    """The names of each target's classes."""
    return {name: target.classes for name, target in targets.items()}


def compose(images: Tensor, patches: Sequence[Patch]) -> Tensor:
    """Images or maps [N, ..., H, W] of which patch k of image n shows image n + k."""
    composed = images.clone()
    for shift, (rows, columns) in enumerate(patches):
        composed[..., rows, columns] = images.roll(-shift, 0)[..., rows, columns]
    return composed


def paste(images: Tensor, patch: Patch) -> Tensor:
    """Images or maps [N, ..., H, W] in which the patch of image n is that of image N - 1 - n."""
    pasted = images.clone()
    pasted[..., *patch] = images.flip(0)[..., *patch]
    return pasted


def _stack(values: Sequence[Tensor | None], absent: Tensor) -> Tensor:
    return torch.stack([absent if value is None else value for value in values])


def _nearest(value: Tensor, size: Resolution) -> Tensor:
    return torch.from_numpy(np.array(Image.fromarray(value.numpy()).resize(size[::-1], Image.Resampling.NEAREST)))
