"""Detection: boxes with classes, read from the three coarser paths, one prediction per cell and no anchors.

Head: per path a 1x1 convolution, then a branch for classes and a branch for the box, as in FCOS (arXiv 1904.01355) but
depthwise-separable. A box is an offset of its middle from the cell's middle and a log size, both in strides, so that a
cell just beside a tiny box can still describe it. Training: task-aligned assignment (``fbnetv5.tasks.assign``), binary
cross entropy against its soft targets and generalised IoU (arXiv 1902.09630). Metric: COCO AP over IoU .5 to .95.

The network answers its ``TOP_K`` best boxes as they are. Several cells may describe one object, so whoever uses the
network finishes with ``suppress``, on the host, as the metric does.

Shape legend: N pictures, A cells of all levels, C classes, M objects, K answers. Boxes are (x0, y0, x1, y1) in pixels.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, generalized_box_iou_loss

from export.errors import UserError
from fbnetv5.blocks import conv_norm, initialise
from fbnetv5.data.sample import ABSENT, Batch
from fbnetv5.tasks.assign import Assignment, assign
from fbnetv5.tasks.task import Metric, Task

WIDTH = 64
"""Channels of both branches."""
TOP_K = 100
"""Answers per picture; fewer where the picture has fewer than TOP_K cells times classes."""
NMS_IOU = 0.6
"""Overlap above which the less sure of two boxes of one class is a duplicate."""
BOX_WEIGHT = 2.0
"""Of the box loss beside the class loss, as in TOOD (arXiv 2108.07755)."""
CLASS_PRIOR = 0.01
"""Score of every cell before training (focal loss, arXiv 1708.02002, section 4.1)."""
SIZE_PRIOR = 4.0
"""Side of every box before training, in strides."""
MAX_LOG_SIZE = math.log(128.0)
"""Of a box, in strides: bounds the exponential."""


class Detection(Task):
    """Raw: per path [N, C + 4, h, w]: class logits, then (x, y) offset of the middle, then log (width, height)."""

    name = "det"
    paths = (8, 16, 32)
    metric_name = "ap"
    output_names = ("boxes", "scores", "labels")

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes.boxes

    def build_head(self, channels: Sequence[int]) -> nn.Module:
        return DetectionHead(channels, len(self.labels))

    def labelled(self, batch: Batch) -> Tensor:
        return batch.has_boxes

    def losses(self, raw: Sequence[Tensor], batch: Batch) -> Tensor:
        """Class loss + BOX_WEIGHT * box loss, each over the picture's sum of targets (at least 1): -> [N]."""
        logits, cell_boxes = _flatten([level.float() for level in raw])
        centres, strides = _cells(raw, self.paths)
        boxes = decode(cell_boxes, centres, strides)
        assignment = assign(
            logits.detach().sigmoid(),
            boxes.detach(),
            centres=centres,
            strides=strides,
            true_boxes=batch.boxes,
            true_labels=batch.box_labels,
        )
        total = _class_losses(logits, assignment, batch) + BOX_WEIGHT * _box_losses(boxes, assignment, batch)
        return (total / assignment.target.sum(1).clamp(min=1.0)) * batch.has_boxes

    def deploy(self, raw: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Boxes [N, K, 4], scores [N, K] from high to low, labels int64 [N, K].

        K is TOP_K, or A * C if that is less; an exported graph keeps the K of the size it was traced at.
        """
        logits, cell_boxes = _flatten(raw)
        scores = logits.sigmoid().flatten(1)
        top, index = scores.topk(_answers(scores), dim=1)
        cell = torch.div(index, len(self.labels), rounding_mode="trunc")
        boxes = decode(cell_boxes, *_cells(raw, self.paths))
        return boxes.gather(1, cell[:, :, None].expand(-1, -1, 4)), top, index - cell * len(self.labels)

    def new_metric(self) -> Metric:
        return AveragePrecision(len(self.labels))


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
        centres: [A, 2], (x, y) of each cell's middle in pixels.
        strides: [A], in pixels.
    """
    side = strides[:, None]
    middle = centres + cell_boxes[..., :2] * side
    half = cell_boxes[..., 2:].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() * side / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def suppress(outputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Drop duplicates from the deployable outputs: per picture boxes [k, 4], scores [k], labels [k], k <= K.

    The last step of detection, on the host: class by class, a box that overlaps a surer one by more than NMS_IOU goes.
    """
    boxes, scores, labels = (output.cpu() for output in outputs)
    kept = []
    for row in range(len(boxes)):
        keep = batched_nms(boxes[row].float(), scores[row].float(), labels[row], NMS_IOU)
        kept.append((boxes[row, keep], scores[row, keep], labels[row, keep]))
    return kept


class AveragePrecision:
    """COCO AP: mean over classes that occur and over IoU .50, .55 .. .95, as pycocotools counts it."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._pictures = 0
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        for row, (boxes, scores, labels) in enumerate(suppress(outputs)):
            if not batch.has_boxes[row]:
                continue
            self._pictures += 1
            real = batch.box_labels[row] != ABSENT
            true_labels = batch.box_labels[row, real]
            _record(self._truth, self._pictures, batch.boxes[row, real], torch.ones_like(true_labels), true_labels)
            _record(self._found, self._pictures, boxes, scores, labels)

    def compute(self) -> float:
        """AP, 0..1.

        Raises:
            UserError: no picture had a labelled box.
        """
        if not self._truth:
            raise UserError("no labelled boxes in the test pictures: ap needs at least one")
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._coco(self._truth), self._coco(self._found), "bbox")
            # AP itself needs all sizes together at 100 answers; the other figures would take five times as long.
            evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
            evaluation.params.maxDets = [TOP_K]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"]  # -1 for classes that do not occur
        return float(precision[precision > -1].mean())

    def _coco(self, annotations: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": picture} for picture in range(1, self._pictures + 1)],
            "categories": [{"id": label} for label in range(self._classes)],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco


def _branch(prior: Tensor) -> nn.Sequential:
    """Two depthwise-separable convolutions, then a 1x1 that starts out answering ``prior`` [P]: WIDTH -> P channels."""
    mixers: list[nn.Module] = []
    for _ in range(2):
        mixers += [conv_norm(WIDTH, WIDTH, kernel=3, groups=WIDTH, act=True), conv_norm(WIDTH, WIDTH, act=True)]
    trunk = nn.Sequential(*mixers)
    initialise(trunk)
    last = nn.Conv2d(WIDTH, len(prior), 1)
    nn.init.normal_(last.weight, std=0.01)
    last.bias = nn.Parameter(prior)
    return nn.Sequential(trunk, last)


def _flatten(raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Levels -> class logits [N, A, C] and undecoded boxes [N, A, 4]."""
    cells = torch.cat([level.flatten(2) for level in raw], dim=2).transpose(1, 2)
    return cells[..., :-4], cells[..., -4:]


def _cells(raw: Sequence[Tensor], paths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Middles (x, y) [A, 2] and strides [A] of the cells, in pixels.

    Broadcast by adding zeros and not by ``expand``: so exported, the arithmetic follows the input's size where that is
    dynamic, and exporters fold it into constants where it is fixed.
    """
    levels = []
    for level, stride in zip(raw, paths, strict=True):
        height, width = level.shape[2:]
        ys = ((torch.arange(height, device=level.device) + 0.5) * stride)[:, None]
        xs = ((torch.arange(width, device=level.device) + 0.5) * stride)[None]
        levels.append(torch.stack([xs + ys * 0, ys + xs * 0, ys * 0 + xs * 0 + stride], dim=-1).flatten(0, 1))
    cells = torch.cat(levels)
    return cells[:, :2], cells[:, 2]


def _answers(scores: Tensor) -> int:
    """How many of the scores [N, A * C] are answered. Tracing warns that it fixes this number, as is meant."""
    with warnings.catch_warnings(action="ignore"):
        return min(TOP_K, int(scores.shape[1]))


def _class_losses(logits: Tensor, assignment: Assignment, batch: Batch) -> Tensor:
    """Binary cross entropy against the soft targets, summed over cells and classes: -> [N]."""
    label = batch.box_labels.gather(1, assignment.owner.clamp(min=0)).clamp(min=0)
    target = torch.zeros_like(logits).scatter_(2, label[:, :, None], assignment.target[:, :, None])
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2))


def _box_losses(boxes: Tensor, assignment: Assignment, batch: Batch) -> Tensor:
    """1 - GIoU of each cell's box and its owner's, weighted by the target, summed over cells: -> [N]."""
    index = assignment.owner.clamp(min=0)[:, :, None].expand(-1, -1, 4)
    loss: Tensor = generalized_box_iou_loss(boxes, batch.boxes.gather(1, index))
    return (loss * assignment.target).sum(1)


def _record(records: list[dict[str, Any]], picture: int, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
    """Append boxes [k, 4] as COCO annotations; ids start at 1, for pycocotools takes 0 for "unmatched"."""
    for (x0, y0, x1, y1), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
        width, height = x1 - x0, y1 - y0
        records.append(
            {
                "id": len(records) + 1,
                "image_id": picture,
                "category_id": label,
                "bbox": [x0, y0, width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": score,
            }
        )
