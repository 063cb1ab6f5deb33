"""Label assignment of a detector: the object that each cell is trained to predict, and the score it is trained to give.

Task-aligned assignment (TOOD, arXiv 2108.07755, section 3.2): an object is assigned the cells that already score and
localise it best, so classification and localisation agree on the same cells. Two differences from the paper: a cell
just beside a tiny box may be assigned too, because otherwise such an object has no cell at all; and scores, overlaps
and targets have minima, because an untrained network, which localises nothing well, would otherwise get targets near
zero and learn nothing from them.

Shape legend: N images, M objects, A cells of all levels, C classes. Boxes are (x0, y0, x1, y1) in pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fbnetv5.data.targets import ABSENT

SCORE_POWER = 0.5
"""Alpha of TOOD's equation 2 (1 there; with the smaller power, boxes decide in an untrained network)."""
IOU_POWER = 6.0
"""Beta of the same equation."""
CELLS_PER_OBJECT = 10
"""Maximum number of cells of one object; 13 in TOOD, for images with a hundred times more cells."""
MIN_ALIGNED = 0.01
"""Minimum score and overlap in the alignment, so that it is never zero."""
MIN_TARGET = 0.1
"""Minimum target of an object's best cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The assigned object and target score of each cell."""

    owner: Tensor
    """int64 [N, A], index of the object assigned to the cell, ABSENT for background."""
    target: Tensor
    """float [N, A], the target score of the owner's class: in (0, 1], 0 for background."""


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, *, centres: Tensor, strides: Tensor, true_boxes: Tensor, true_labels: Tensor
) -> Assignment:
    """Assign cells to objects.

    Args:
        scores: [N, A, C], 0..1, of each cell for each class.
        boxes: [N, A, 4], predicted by each cell.
        centres: [A, 2], (x, y) of each cell's centre in pixels.
        strides: [A], side of each cell in pixels.
        true_boxes: [N, M, 4].
        true_labels: int64 [N, M], ABSENT where the object is padding.
    """
    iou = pairwise_iou(true_boxes, boxes)
    alignment = _alignment(scores, iou, true_labels)
    allowed = _candidates(centres, strides, true_boxes) & (true_labels != ABSENT)[:, :, None]
    assigned = _best_cells(alignment, allowed)
    best_iou, owner = iou.masked_fill(~assigned, -1.0).max(dim=1)
    owner = owner.masked_fill(best_iou < 0, ABSENT)
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
    return own_class.clamp(min=MIN_ALIGNED) ** SCORE_POWER * iou.clamp(min=MIN_ALIGNED) ** IOU_POWER


def _candidates(centres: Tensor, strides: Tensor, true_boxes: Tensor) -> Tensor:
    """Bool [N, M, A]: the cell's centre is inside the box, or within one stride of the box's centre."""
    low, high = true_boxes[:, :, None, :2], true_boxes[:, :, None, 2:]
    centre_distance = (centres - (low + high) / 2).abs().amax(-1)
    inside = ((centres > low) & (centres < high)).all(-1)
    return inside | (centre_distance <= strides)


def _best_cells(alignment: Tensor, allowed: Tensor) -> Tensor:
    """Bool [N, M, A]: at most CELLS_PER_OBJECT allowed cells of each object, the best aligned."""
    best = alignment.masked_fill(~allowed, 0.0).topk(min(CELLS_PER_OBJECT, alignment.shape[2]), dim=2).indices
    return torch.zeros_like(allowed).scatter_(2, best, True) & allowed


def _targets(alignment: Tensor, iou: Tensor, owner: Tensor) -> Tensor:
    """Alignment scaled so that each object's best cell gets the object's best overlap: -> [N, A]."""
    objects = torch.arange(alignment.shape[1], device=owner.device)
    is_owner = owner[:, None] == objects[:, None]
    own = alignment * is_owner
    scale = (iou * is_owner).amax(2, keepdim=True).clamp(min=MIN_TARGET) / own.amax(2, keepdim=True).clamp(min=1e-20)
    return (own * scale).sum(1)
