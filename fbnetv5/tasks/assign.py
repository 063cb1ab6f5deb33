"""Which cell of a detector answers for which object, and how sure of it the cell should be.

Task-aligned assignment (TOOD, arXiv 2108.07755, section 3.2): an object takes the cells that already score and place it
best, so classification and localisation agree on the same cells. Where it departs from the paper: a cell just beside a
tiny box may be taken too, for else such an object has no cell at all; and scores, overlaps and targets have floors, for
else an untrained network, which places nothing well, would get targets near zero and learn nothing from them.

Shape legend: N images, M objects, A cells of all levels, C classes. Boxes are (x0, y0, x1, y1) in pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fbnetv5.data.targets import ABSENT

SCORE_POWER = 0.5
"""Alpha of TOOD's equation 2 (1 there; the gentler power lets an untrained network be led by its boxes)."""
IOU_POWER = 6.0
"""Beta of the same equation."""
CELLS_PER_OBJECT = 10
"""Most cells that one object takes; 13 in TOOD, for images with a hundred times more cells."""
FLOOR = 0.01
"""Least score and overlap in the alignment, so that it is never zero."""
TARGET_FLOOR = 0.1
"""Least target of an object's best cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The answer, per cell."""

    owner: Tensor
    """int64 [N, A], index of the object that the cell answers for, ABSENT for background."""
    target: Tensor
    """float [N, A], the score that the cell should give to the owner's class: in (0, 1], 0 for background."""


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, *, centres: Tensor, strides: Tensor, true_boxes: Tensor, true_labels: Tensor
) -> Assignment:
    """Give cells to objects.

    Args:
        scores: [N, A, C], 0..1, of each cell for each class.
        boxes: [N, A, 4], what each cell predicts.
        centres: [A, 2], (x, y) of each cell's middle in pixels.
        strides: [A], side of each cell in pixels.
        true_boxes: [N, M, 4].
        true_labels: int64 [N, M], ABSENT where the object is padding.
    """
    iou = pairwise_iou(true_boxes, boxes)
    alignment = _alignment(scores, iou, true_labels)
    allowed = _candidates(centres, strides, true_boxes) & (true_labels != ABSENT)[:, :, None]
    taken = _best_cells(alignment, allowed)
    best_iou, owner = iou.masked_fill(~taken, -1.0).max(dim=1)
    answers = best_iou >= 0
    owner = owner.masked_fill(~answers, ABSENT)
    return Assignment(owner=owner, target=_targets(alignment, iou, owner))


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair within each image: [N, M, 4], [N, A, 4] -> [N, M, A]."""
    a, b = first[:, :, None], second[:, None]
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / union.clamp(min=1e-9)


def _alignment(scores: Tensor, iou: Tensor, true_labels: Tensor) -> Tensor:
    """score^alpha * iou^beta, TOOD equation 2: -> [N, M, A]."""
    index = true_labels.clamp(min=0)[:, :, None].expand(-1, -1, scores.shape[1])
    own_class = scores.transpose(1, 2).gather(1, index)
    return own_class.clamp(min=FLOOR) ** SCORE_POWER * iou.clamp(min=FLOOR) ** IOU_POWER


def _candidates(centres: Tensor, strides: Tensor, true_boxes: Tensor) -> Tensor:
    """Bool [N, M, A]: the cell's middle is inside the box, or within one stride of the box's middle."""
    low, high = true_boxes[:, :, None, :2], true_boxes[:, :, None, 2:]
    middle_distance = (centres - (low + high) / 2).abs().amax(-1)
    inside = ((centres > low) & (centres < high)).all(-1)
    return inside | (middle_distance <= strides)


def _best_cells(alignment: Tensor, allowed: Tensor) -> Tensor:
    """Bool [N, M, A]: at most CELLS_PER_OBJECT allowed cells of each object, the best aligned."""
    best = alignment.masked_fill(~allowed, 0.0).topk(min(CELLS_PER_OBJECT, alignment.shape[2]), dim=2).indices
    return torch.zeros_like(allowed).scatter_(2, best, True) & allowed


def _targets(alignment: Tensor, iou: Tensor, owner: Tensor) -> Tensor:
    """Alignment scaled so that each object's best cell gets the object's best overlap: -> [N, A]."""
    objects = torch.arange(alignment.shape[1], device=owner.device)
    won = owner[:, None] == objects[:, None]
    own = alignment * won
    scale = (iou * won).amax(2, keepdim=True).clamp(min=TARGET_FLOOR) / own.amax(2, keepdim=True).clamp(min=1e-20)
    return (own * scale).sum(1)
