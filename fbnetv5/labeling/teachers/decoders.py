"""From the raw outputs of a teacher for one image to its prediction, at the image's own pixels.

Shape legend: C classes, A rows of a detector, M boxes, h x w pixels of an output, H x W pixels of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms, box_convert

from export.errors import UserError
from export.placement import Placement
from fbnetv5.data.fit import map_to_original
from fbnetv5.data.predictions import NMS_IOU, ClassScores, ProbabilityMap, ScoredBoxes

Name = Literal["logits", "yolo", "ssd", "pixel_logits", "probability", "depth", "normals"]

MIN_SCORE = 0.01
"""Boxes with a lower score are dropped before suppression."""
MAX_ROWS = 1000
"""Of the highest scores that enter suppression."""
MIN_SIDE = 1.0
"""Pixels of the image: narrower and lower boxes are dropped."""
TASKS: dict[str, tuple[str, ...]] = {
    "logits": ("cls",),
    "yolo": ("det",),
    "ssd": ("det",),
    "pixel_logits": ("seg", "parts"),
    "probability": ("saliency", "edges"),
    "depth": ("depth",),
    "normals": ("normals",),
}
"""By decoder: the tasks that it serves."""


class ScoredMap(NamedTuple):
    """A class for every pixel."""

    ids: Tensor
    """int64 [H, W]: class ids of the teacher."""
    confidences: Tensor
    """float32 [H, W]: the probability of each pixel's class."""


class DenseValues(NamedTuple):
    """Numbers of every pixel, without a confidence."""

    values: Tensor
    """float32 [H, W], depth in metres, or [3, H, W], unit vectors; NaN where unknown."""


Prediction: TypeAlias = ClassScores[Tensor] | ScoredBoxes[Tensor] | ScoredMap | ProbabilityMap[Tensor] | DenseValues


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the outputs of a teacher are read."""

    name: Name
    classes: int = 0
    """Number of classes; 0 where the task has none."""
    nms_iou: float = NMS_IOU
    """Overlap above which the lower-scored of two boxes of one class is a duplicate."""
    max_boxes: int = 100
    """Of an image."""
    first_label: int = 0
    """Label of the first class in the outputs of an "ssd"."""
    relative_boxes: bool = False
    """The boxes of an "ssd" are shares of the input's sides instead of its pixels."""
    metres: float = 1.0
    """Of one unit of a depth output."""

    def __call__(self, outputs: Sequence[Tensor], place: Placement) -> Prediction:
        """Raw outputs for one image -> its prediction.

        Raises:
            UserError: the outputs do not have the decoder's form.
        """
        return _DECODERS[self.name](self, [output.cpu() for output in outputs], place)

    def check_classes(self, count: int) -> None:
        """Raise UserError if an output has another number of classes."""
        if count != self.classes:
            raise UserError(f"its output has {count} classes, and {self.classes} are named: name each class once")


def _only(outputs: Sequence[Tensor], name: str) -> Tensor:
    if len(outputs) != 1:
        raise UserError(f"decoder {name!r} reads one output, and it has {len(outputs)}: name the one to read")
    return outputs[0].float()


def _logits(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> ClassScores[Tensor]:
    """[C], or [C, 1, 1]."""
    logits = _only(outputs, "logits").flatten()
    decoding.check_classes(len(logits))
    return ClassScores(logits.softmax(0))


def _yolo(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> ScoredBoxes[Tensor]:
    """[A, 4 + C] or [A, 5 + C], or its transpose: centre x, centre y, width, height, (objectness,) class scores."""
    rows = _only(outputs, "yolo")
    lengths = (4 + decoding.classes, 5 + decoding.classes)
    if rows.ndim != 2 or not set(rows.shape) & set(lengths):
        raise UserError(
            f"decoder 'yolo' reads rows of {lengths[0]} or {lengths[1]} numbers for {decoding.classes} classes, and "
            f"its output is {list(rows.shape)}: name each class once"
        )
    if rows.shape[1] not in lengths:
        rows = rows.T
    scores = rows[:, -decoding.classes :]
    if rows.shape[1] == lengths[1]:
        scores = scores * rows[:, 4:5]
    best, labels = scores.max(1)
    return _suppressed(decoding, box_convert(rows[:, :4], "cxcywh", "xyxy"), best, labels, place)


def _ssd(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> ScoredBoxes[Tensor]:
    """Boxes [A, 4] as (x0, y0, x1, y1), with scores [A] and labels [A], or with scores [A, C]."""
    if len(outputs) not in (2, 3) or outputs[0].shape[-1:] != (4,) or outputs[1].ndim != 5 - len(outputs) - 1:
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        raise UserError(
            f"decoder 'ssd' reads boxes [A, 4], scores [A] and labels [A], or boxes and scores [A, C], and its outputs "
            f"are {shapes}: list the outputs in this order"
        )
    boxes, scores = outputs[0].float(), outputs[1].float()
    if decoding.relative_boxes:
        boxes = boxes * boxes.new_tensor(place.outer[::-1]).repeat(2)
    if len(outputs) == 3:
        return _suppressed(decoding, boxes, scores, outputs[2].long() - decoding.first_label, place)
    decoding.check_classes(scores.shape[1])
    best, pairs = scores.flatten().topk(min(MAX_ROWS, scores.numel()))
    return _suppressed(decoding, boxes[pairs // decoding.classes], best, pairs % decoding.classes, place)


def _suppressed(
    decoding: Decoding, boxes: Tensor, scores: Tensor, labels: Tensor, place: Placement
) -> ScoredBoxes[Tensor]:
    """The boxes [A, 4] in pixels of the input, without duplicates and in pixels of the image.

    Raises:
        UserError: a score is outside of 0..1, or a label is no class.
    """
    if scores.numel() and not (scores.min() >= 0 and scores.max() <= 1 + 1e-4):
        raise UserError(
            f"its scores reach from {scores.min():.3g} to {scores.max():.3g}, and a score is from 0 to 1: export it "
            "with the sigmoid or softmax of its scores"
        )
    order = scores.argsort(descending=True, stable=True)[:MAX_ROWS]
    order = order[scores[order] >= MIN_SCORE]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    if len(labels) and not (labels.min() >= 0 and labels.max() < decoding.classes):
        raise UserError(
            f"it returns labels from {int(labels.min())} to {int(labels.max())} after its first label is subtracted, "
            f"and {decoding.classes} classes are named: name each class once"
        )
    keep = batched_nms(boxes, scores, labels, decoding.nms_iou)[: decoding.max_boxes]
    placed = place.boxes_to_original(boxes[keep])
    large = (placed[:, 2:] - placed[:, :2]).amin(1) >= MIN_SIDE
    return ScoredBoxes(placed[large], scores[keep][large], labels[keep][large])


def _pixel_logits(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> ScoredMap:
    """[C, h, w] -> the class of the highest logit, with its softmax.

    Each class is resampled to the image by itself, since all classes at once would need gigabytes for a large image.
    """
    logits = _only(outputs, "pixel_logits")
    if logits.ndim != 3:
        raise UserError(f"decoder 'pixel_logits' reads [N, classes, h, w], and its output is [N, {logits.shape}]")
    decoding.check_classes(len(logits))
    highest = map_to_original(logits[0], place)
    ids, total = torch.zeros(place.image, dtype=torch.int64), torch.ones(place.image)
    for class_id in range(1, len(logits)):
        plane = map_to_original(logits[class_id], place)
        ids[plane > highest] = class_id
        new = torch.maximum(highest, plane)
        total = total * (highest - new).exp() + (plane - new).exp()
        highest = new
    return ScoredMap(ids, 1 / total)


def _probability(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> ProbabilityMap[Tensor]:
    """[1, h, w] or [h, w], from 0 to 1."""
    return ProbabilityMap(map_to_original(_flat(_only(outputs, "probability")), place))


def _depth(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> DenseValues:
    """[1, h, w] or [h, w]; 0 and less is unknown."""
    metres = map_to_original(_flat(_only(outputs, "depth")), place) * decoding.metres
    return DenseValues(metres.masked_fill(metres <= 0, float("nan")))


def _normals(decoding: Decoding, outputs: Sequence[Tensor], place: Placement) -> DenseValues:
    """[3, h, w], vectors of any length."""
    vectors = _only(outputs, "normals")
    if vectors.ndim != 3 or len(vectors) != 3:
        raise UserError(f"decoder 'normals' reads [N, 3, h, w], and its output is [N, {list(vectors.shape)}]")
    components = [map_to_original(component, place) for component in vectors]
    return DenseValues(functional.normalize(torch.stack(components), dim=0))


def _flat(values: Tensor) -> Tensor:
    """[1, h, w] or [h, w] -> [h, w]."""
    if values.ndim == 3 and len(values) == 1:
        return values[0]
    if values.ndim != 2:
        raise UserError(f"it returns {list(values.shape)} for an image, and one number per pixel is expected")
    return values


_DECODERS: dict[str, Callable[[Decoding, Sequence[Tensor], Placement], Prediction]] = {
    "logits": _logits,
    "yolo": _yolo,
    "ssd": _ssd,
    "pixel_logits": _pixel_logits,
    "probability": _probability,
    "depth": _depth,
    "normals": _normals,
}
