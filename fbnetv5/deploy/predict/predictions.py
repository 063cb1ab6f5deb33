"""From the outputs of a network for one image to predictions in the pixels of that image, without torch.

Shape legend: C classes, K boxes of a detector, M boxes left, h x w pixels of the input, H x W pixels of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from export.errors import UserError
from export.placement import Placement
from export.runners import Array
from fbnetv5.data.predictions import NMS_IOU, TOP_K, ClassScores, ProbabilityMap, ScoredBoxes


@dataclass(frozen=True, slots=True)
class ClassMap:
    """A class for every pixel."""

    ids: Array
    """uint8 [H, W]."""


@dataclass(frozen=True, slots=True)
class DepthMap:
    """A distance for every pixel."""

    metres: Array
    """float32 [H, W]."""


@dataclass(frozen=True, slots=True)
class NormalMap:
    """A direction for every pixel."""

    vectors: Array
    """float32 [3, H, W], of length 1."""


Prediction: TypeAlias = (
    ClassScores[Array] | ScoredBoxes[Array] | ClassMap | ProbabilityMap[Array] | DepthMap | NormalMap
)


def decode(task: str, outputs: Sequence[Array], place: Placement) -> Prediction:
    """The prediction of a task for one image.

    Args:
        task: its name.
        outputs: of the network in the task's order, of one image; with or without a batch axis.
        place: where the image lies in the input.

    Raises:
        UserError: there is no such task.
    """
    if task == "det":
        return _boxes([_without_batch(output, rank) for output, rank in zip(outputs, (2, 1, 1), strict=False)], place)
    (values,) = outputs
    if task == "cls":
        return ClassScores(softmax(values.reshape(-1)))
    maps = _without_batch(values, 3).astype(np.float32)
    if task in ("seg", "parts"):
        return ClassMap(_highest(maps, place))
    if task in ("saliency", "edges"):
        return ProbabilityMap(place.map_to_original(maps[0]))
    if task == "depth":
        return DepthMap(place.map_to_original(maps[0]))
    if task == "normals":
        vectors = np.stack([place.map_to_original(values) for values in maps])
        return NormalMap(vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-9))
    raise UserError(f"there is no way to show the outputs of task {task}")


def _without_batch(output: Array, rank: int) -> Array:
    """The output of the only image; scores of the form "decode" have a class axis as well."""
    return output[0] if output.ndim > rank and len(output) == 1 else output


def softmax(logits: Array) -> Array:
    """[C] -> float32 [C] that sum to 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    probabilities: Array = (powers / powers.sum()).astype(np.float32)
    return probabilities


def _highest(logits: Array, place: Placement) -> Array:
    """[C, h, w] -> uint8 [H, W]; one class at a time, because all classes of a large image take gigabytes."""
    best, ids = place.map_to_original(logits[0]), np.zeros(place.image, dtype=np.uint8)
    for number in range(1, len(logits)):
        values = place.map_to_original(logits[number])
        higher = values > best
        best[higher], ids[higher] = values[higher], number
    return ids


def _boxes(outputs: Sequence[Array], place: Placement) -> ScoredBoxes[Array]:
    """Boxes, scores and labels of the forms "topk" and "nms", or boxes and scores [A, C] of the form "decode"."""
    boxes, scores = outputs[0].astype(np.float32), outputs[1].astype(np.float32)
    if len(outputs) == 2:
        classes = scores.shape[-1]
        best = np.argsort(-scores.reshape(-1), kind="stable")[:TOP_K]
        boxes, labels, scores = boxes[best // classes], best % classes, scores.reshape(-1)[best]
    else:
        labels = outputs[2].astype(np.int64)
    kept = suppress(boxes, scores, labels)
    placed = place.boxes_to_original(boxes[kept])
    inside = (placed[:, 2:] > placed[:, :2]).all(axis=1)
    return ScoredBoxes(placed[inside], scores[kept][inside], labels[kept][inside])


def suppress(boxes: Array, scores: Array, labels: Array) -> Array:
    """Rows of [K, 4], [K] and [K] without duplicates, from the highest score to the lowest: int64 [M].

    Within each class, a box that overlaps a higher-scored one by more than ``NMS_IOU`` is a duplicate.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for row in order:
        same = [other for other in kept if labels[other] == labels[row]]
        if not same or overlaps(boxes[row], boxes[same]).max() <= NMS_IOU:
            kept.append(int(row))
    return np.array(kept, dtype=np.int64)


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box [4] with others [M, 4]: [M]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(np.clip(each[..., 2:] - each[..., :2], 0, None), axis=-1) for each in (box, others)]
    shares: Array = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    return shares
