"""Detection: boxes with classes, read from the three coarser paths, one prediction per cell, without anchor boxes.

Head: per path a 1x1 convolution, then a branch for classes and a branch for the box, as in FCOS (arXiv 1904.01355) but
depthwise-separable. A box is an offset of its centre from the cell's centre and a log size, both in strides, so that a
cell just beside a tiny box can still describe it. Training: task-aligned assignment (``fbnetv5.tasks.assign``), binary
cross entropy against its soft targets and generalised IoU (arXiv 1902.09630). Metric: COCO AP over IoU .5 to .95.

Several cells may predict one object, so detections are chosen in two steps: the ``TOP_K`` boxes with the highest
scores, then non-maximum suppression within each class. A deployed network contains none, the first or both of the
steps, by its form; its user runs the other steps on the host, as the metric does.

- "topk", the default: the ``TOP_K`` boxes; ``suppress`` remains.
- "decode": the boxes of all cells with the scores of all classes; ``select``, then ``suppress`` remain. For users who
  choose boxes in another way, and for runtimes that are slow at TopK.
- "nms": the boxes after suppression, of one image at a time, since their number differs between images. TensorRT has
  no such outputs: this form is for ONNX Runtime.

Shape legend: N images, A cells of all levels, C classes, M objects, K detections. Boxes are (x0, y0, x1, y1) in pixels.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, nms

from export.errors import UserError
from fbnetv5.blocks.convolutions import PointwiseConv2d
from fbnetv5.blocks.specs import conv_norm, initialise
from fbnetv5.data.predictions import NMS_IOU, TOP_K
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import Boxes
from fbnetv5.tasks.assign import Assignment, assign
from fbnetv5.tasks.average_precision import AveragePrecision, Detections
from fbnetv5.tasks.divergence import binary_divergence
from fbnetv5.tasks.task import ClassNames, Metric, MetricInfo, Task

WIDTH = 64
"""Channels of both branches."""
BOX_WEIGHT = 2.0
"""Of the box loss beside the class loss, as in TOOD (arXiv 2108.07755)."""
CLASS_PRIOR = 0.01
"""Score of every cell before training (focal loss, arXiv 1708.02002, section 4.1)."""
SIZE_PRIOR = 4.0
"""Side of every box before training, in strides."""
MAX_LOG_SIZE = math.log(128.0)
"""Of a box, in strides: bounds the exponential."""


class Detection(Task):
    """Raw: per path [N, C + 4, h, w]: class logits, then (x, y) offset of the centre, then log (width, height)."""

    name = "det"
    order = 2
    by_default = True
    targets = ("boxes",)
    min_classes = 1
    paths = (8, 16, 32)
    metric = MetricInfo(name="ap")
    training: ClassVar[Mapping[str, Any]] = {"scale": (0.7, 1.4)}
    output_names: tuple[str, ...] = ("boxes", "scores", "labels")
    ranked_by: str | None = "scores"
    forms = ("topk", "decode", "nms")

    def __init__(self, classes: ClassNames, *, form: str | None = None) -> None:
        super().__init__(classes, form=form)
        if self.form == "decode":
            self.output_names, self.ranked_by = ("boxes", "scores"), None
        if self.form == "nms":
            self.max_images, self.ranked_by = 1, None  # its rows are not of [N, K], and how many depends on ties

    def build_head(self, channels: Sequence[int]) -> nn.Module:
        return DetectionHead(channels, len(self.labels))

    def losses(self, raw: Sequence[Tensor], batch: Batch) -> Tensor:
        """Class loss + BOX_WEIGHT * box loss, each over the image's sum of targets (at least 1): -> [N]."""
        truth: Boxes = batch.targets["boxes"]
        logits, cell_boxes = _flatten([level.float() for level in raw])
        centres, strides = _cells(raw, self.paths)
        boxes = decode(cell_boxes, centres, strides)
        assignment = assign(
            logits.detach().sigmoid(),
            boxes.detach(),
            centres=centres,
            strides=strides,
            true_boxes=truth.xyxy,
            true_labels=truth.labels,
        )
        total = _class_losses(logits, assignment, truth) + BOX_WEIGHT * _box_losses(boxes, assignment, truth)
        return (total / assignment.target.sum(1).clamp(min=1.0)) * self.labelled(batch)

    def distillation_losses(self, raw: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
        """Class divergence + BOX_WEIGHT * box distance, over the sum of the teacher's confidences (at least 1): -> [N].

        The divergence is that of the binary scores of all cells and classes. The distance is the smooth L1 loss of the
        offsets and log sizes, in strides, summed over the four. It is weighted by the teacher's confidence, the cell's
        highest score: in the background the teacher's boxes have no meaning.
        """
        logits, boxes = _flatten([level.float() for level in raw])
        teacher_logits, teacher_boxes = _flatten([level.float() for level in teacher])
        confidence = teacher_logits.sigmoid().amax(2)
        classes = binary_divergence(logits, teacher_logits, temperature).sum((1, 2))
        distance = functional.smooth_l1_loss(boxes, teacher_boxes, reduction="none").sum(2)
        total = classes + BOX_WEIGHT * (distance * confidence).sum(1)
        return total / confidence.sum(1).clamp(min=1.0)

    def deploy(self, raw: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs of the task's form.

        "topk": boxes [N, K, 4], scores [N, K] from high to low, labels int64 [N, K]. K is TOP_K, or A * C if that is
        less; an exported graph keeps the K of the size it was traced at. "decode": boxes [N, A, 4], scores [N, A, C].
        "nms": of one image, boxes [k, 4], scores [k] from high to low, labels int64 [k], k <= K.
        """
        logits, cell_boxes = _flatten(raw)
        boxes, scores = decode(cell_boxes, *_cells(raw, self.paths)), logits.sigmoid()
        if self.form == "decode":
            return boxes, scores
        best = select(boxes, scores)
        return best if self.form == "topk" else _suppress_one_image(*best)

    def new_metric(self) -> Metric:
        return AveragePrecision(len(self.labels), self.finish)

    def finish(self, outputs: Sequence[Tensor]) -> list[Detections]:
        """Each image's detections after the steps that the task's form leaves to the host."""
        if self.form == "topk":
            return suppress(outputs)
        if self.form == "decode":
            return suppress(select(*outputs))
        boxes, scores, labels = (output.cpu() for output in outputs)
        return [(boxes, scores, labels)]


class DetectionHead(nn.Module):
    """Features of strides 8, 16, 32 -> per path [N, C + 4, h, w]."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(LevelHead(width, classes) for width in channels)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(level(x) for level, x in zip(self.levels, features, strict=True))


class LevelHead(nn.Module):
    """The head on one path, with weights of its own: [N, F, h, w] -> [N, C + 4, h, w]."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.reduce = conv_norm(width, WIDTH, act=True)
        self.classify = _branch(torch.full((classes,), math.log(CLASS_PRIOR / (1 - CLASS_PRIOR))))
        self.locate = _branch(torch.tensor([0.0, 0.0, math.log(SIZE_PRIOR), math.log(SIZE_PRIOR)]))
        initialise(self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return torch.cat([self.classify(x), self.locate(x)], dim=1)


def decode(cell_boxes: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Offsets and log sizes in strides [N, A, 4] -> boxes in pixels [N, A, 4].

    Args:
        cell_boxes: as the head gives them.
        centres: [A, 2], (x, y) of each cell's centre in pixels.
        strides: [A], in pixels.
    """
    side = strides[:, None]
    centre = centres + cell_boxes[..., :2] * side
    half = cell_boxes[..., 2:].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() * side / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def select(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ``TOP_K`` highest scores over cells and classes, with their boxes and labels.

    Boxes [N, A, 4], scores [N, A, C] -> boxes [N, K, 4], scores [N, K], labels [N, K]. An exported graph keeps the K of
    the size it was traced at.
    """
    cells, classes = _size(scores, 1), _size(scores, 2)
    top, index = scores.flatten(1).topk(min(TOP_K, cells * classes), dim=1)
    cell = torch.div(index, classes, rounding_mode="trunc")
    return boxes.gather(1, cell[:, :, None].expand(-1, -1, 4)), top, index - cell * classes


def suppress(outputs: Sequence[Tensor]) -> list[Detections]:
    """Remove duplicates from boxes [N, K, 4], scores [N, K] and labels [N, K]: k <= K remain per image.

    The last step of detection, on the host: within each class, a box that overlaps a higher-scored one by more than
    NMS_IOU is removed.
    """
    boxes, scores, labels = (output.cpu() for output in outputs)
    kept = []
    for row in range(len(boxes)):
        keep = batched_nms(boxes[row].float(), scores[row].float(), labels[row], NMS_IOU)
        kept.append((boxes[row, keep], scores[row, keep], labels[row, keep]))
    return kept


def _suppress_one_image(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    """``suppress`` inside a graph, for boxes [1, K, 4], scores [1, K] and labels [1, K] of one image.

    Boxes of each class are shifted to a separate region, with the arithmetic of torchvision's ``batched_nms``, so that
    a single pass over all boxes compares within classes only.
    """
    if _size(boxes, 0) != 1:
        raise UserError(f"the form 'nms' of det accepts one image at a time, got {len(boxes)}")
    boxes, scores, labels = boxes[0], scores[0], labels[0]
    shifted = boxes + (labels.to(boxes.dtype) * (boxes.max() + 1))[:, None]
    keep = nms(shifted, scores, NMS_IOU)
    return boxes[keep], scores[keep], labels[keep]


def _branch(prior: Tensor) -> nn.Sequential:
    """Two depthwise-separable convolutions, then a 1x1 whose initial output is ``prior`` [P]: WIDTH -> P channels."""
    mixers: list[nn.Module] = []
    for _ in range(2):
        mixers += [conv_norm(WIDTH, WIDTH, kernel=3, groups=WIDTH, act=True), conv_norm(WIDTH, WIDTH, act=True)]
    trunk = nn.Sequential(*mixers)
    initialise(trunk)
    last = PointwiseConv2d(WIDTH, len(prior))
    nn.init.normal_(last.weight, std=0.01)
    last.bias = nn.Parameter(prior)
    return nn.Sequential(trunk, last)


def _flatten(raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Levels -> class logits [N, A, C] and undecoded boxes [N, A, 4]."""
    cells = torch.cat([level.flatten(2) for level in raw], dim=2).transpose(1, 2)
    return cells[..., :-4], cells[..., -4:]


def _cells(raw: Sequence[Tensor], paths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centres (x, y) [A, 2] and strides [A] of the cells, in pixels.

    Broadcast by adding zeros and not by ``expand``: the exported arithmetic then follows a dynamic input size, and
    exporters fold it into constants where the size is fixed.
    """
    levels = []
    for level, stride in zip(raw, paths, strict=True):
        height, width = level.shape[2:]
        ys = ((torch.arange(height, dtype=torch.float32, device=level.device) + 0.5) * stride)[:, None]
        xs = ((torch.arange(width, dtype=torch.float32, device=level.device) + 0.5) * stride)[None]
        levels.append(torch.stack([xs + ys * 0, ys + xs * 0, ys * 0 + xs * 0 + stride], dim=-1).flatten(0, 1))
    cells = torch.cat(levels)
    return cells[:, :2], cells[:, 2]


def _size(tensor: Tensor, axis: int) -> int:
    """Length of an axis as a plain number. Tracing warns that this number becomes a constant, which is intended."""
    with warnings.catch_warnings(action="ignore"):
        return int(tensor.shape[axis])


def _class_losses(logits: Tensor, assignment: Assignment, truth: Boxes) -> Tensor:
    """Binary cross entropy against the soft targets, summed over cells and classes: -> [N]."""
    label = truth.labels.gather(1, assignment.owner.clamp(min=0)).clamp(min=0)
    target = torch.zeros_like(logits).scatter_(2, label[:, :, None], assignment.target[:, :, None])
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2))


def _box_losses(boxes: Tensor, assignment: Assignment, truth: Boxes) -> Tensor:
    """1 - GIoU of each cell's box and its owner's, weighted by the target, summed over cells: -> [N]."""
    index = assignment.owner.clamp(min=0)[:, :, None].expand(-1, -1, 4)
    loss = giou_loss(boxes, truth.xyxy.gather(1, index))
    return (loss * assignment.target).sum(1)


def giou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """1 - generalised IoU (arXiv 1902.09630, algorithm 1) of each pair: [..., 4], [..., 4] -> [...].

    The arithmetic is that of torchvision's ``generalized_box_iou_loss``, which makes the host wait for an accelerator
    because it indexes with a mask.
    """
    epsilon = 1e-7
    (x0, y0, x1, y1), (other_x0, other_y0, other_x1, other_y1) = boxes.unbind(-1), others.unbind(-1)
    width = torch.min(x1, other_x1) - torch.max(x0, other_x0)
    height = torch.min(y1, other_y1) - torch.max(y0, other_y0)
    overlap = torch.where((width > 0) & (height > 0), width * height, 0.0)
    union = (x1 - x0) * (y1 - y0) + (other_x1 - other_x0) * (other_y1 - other_y0) - overlap
    hull_width = torch.max(x1, other_x1) - torch.min(x0, other_x0)
    hull_height = torch.max(y1, other_y1) - torch.min(y0, other_y0)
    hull = hull_width * hull_height
    return 1 - (overlap / (union + epsilon) - (hull - union) / (hull + epsilon))
