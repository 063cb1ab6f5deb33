"""COCO AP of detections, as pycocotools computes it, in memory that allows for a million images.

pycocotools has a dictionary for each box. Here a box is a row of 29 bytes in an array, and pycocotools evaluates the
boxes of one class in ``PART`` images at a time: its results per image and class are independent of each other.

Crowds of COCO and difficult objects of VOC are "ignored boxes": a detection of the class that matches one is neither
right nor wrong. For both, any number of detections may match a box, and the overlap is divided by the detection's area,
as COCO does for crowds; VOC's development kit divides by the union.

Left out: COCO's area of an object's mask. Small, medium and large are by the areas of boxes.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import coco, cocoeval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.predictions import TOP_K
from fbnetv5.data.sample import Batch
from fbnetv5.data.targets import ABSENT, IGNORED_BOXES, Boxes

COCO_FIGURES = (
    "ap",
    "ap_50",
    "ap_75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar_1",
    "ar_10",
    "ar_100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
"""Names of pycocotools' ``COCOeval.stats``, in its order: average precision and, recall by detections per image."""
PART = 1000
"""Images that pycocotools evaluates at a time."""
ROW = np.dtype([("image", "i4"), ("label", "i4"), ("score", "f4"), ("is_ignored", "?"), ("xyxy", "f4", 4)])
"""A box of an image, true or detected; the score of a true box is 1."""
_IS_QUIET = ContextVar("_IS_QUIET", default=False)
"""Whether pycocotools prints nothing in this thread."""

Detections = tuple[Tensor, Tensor, Tensor]
"""Of one image: boxes [k, 4], scores [k] from high to low, labels int64 [k]."""
Rows = NDArray[np.void]
"""Boxes of type ``ROW``, [n], in ascending order of their images."""


class AveragePrecision:
    """COCO AP: mean over classes that occur and over IoU .50, .55 .. .95, as computed by pycocotools.

    Boxes are compared in pixels of the stored images, so that figures do not depend on how images fit the input, and
    found boxes are cut at the images' borders, as ``fbnetv5 predict`` writes them; those outside are dropped.
    """

    def __init__(self, classes: int, finish: Callable[[Sequence[Tensor]], list[Detections]]) -> None:
        self._classes = classes
        self._finish = finish
        self._images = 0
        self._truth: list[Rows] = []
        self._detections: list[Rows] = []

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        truth: list[Rows] = []
        detected: list[Rows] = []
        for row, (boxes, scores, labels) in enumerate(self._finish(outputs)):
            if not batch.present["boxes"][row]:
                continue
            truth += _true_rows(self._images, batch, row)
            boxes = batch.placement(row).boxes_to_original(boxes.float())
            inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
            detected.append(_rows(self._images, boxes[inside], labels[inside], scores[inside]))
            self._images += 1
        self._truth.append(_joined(truth))
        self._detections.append(_joined(detected))

    def merge(self, other: "AveragePrecision") -> None:
        for own, added in ((self._truth, other._truth), (self._detections, other._detections)):
            for rows in added:
                renumbered = rows.copy()
                renumbered["image"] += self._images
                own.append(renumbered)
        self._images += other._images

    def compute(self) -> float:
        """AP, 0..1.

        Raises:
            UserError: no image had a labelled box.
        """
        if all(rows["is_ignored"].all() for rows in self._truth):
            raise UserError("no labelled boxes in the test images: ap needs at least one")
        params = Params(iouType="bbox")
        # AP itself needs all sizes together at 100 detections; the other figures would take five times as long.
        params.areaRng, params.areaRngLbl = params.areaRng[:1], ["all"]
        params.maxDets = [TOP_K]
        precision = self._evaluated(params).eval["precision"]  # -1 for classes that do not occur
        return float(precision[precision > -1].mean())

    def report(self) -> dict[str, Any]:
        """COCO's twelve figures as summarised by pycocotools; None for its -1, where there are no such objects.

        Small, medium and large are up to 32x32, up to 96x96 and above, in pixels of the stored images.
        """
        evaluation = self._evaluated(Params(iouType="bbox"))
        with _quiet():
            evaluation.summarize()
        return {
            name: float(value) if value > -1 else None
            for name, value in zip(COCO_FIGURES, evaluation.stats, strict=True)
        }

    def _evaluated(self, params: Params) -> COCOeval:
        """The accumulated evaluation of all classes."""
        truth, detections = (_by_label(_joined(rows), self._classes) for rows in (self._truth, self._detections))
        with _quiet():
            results = [_accumulated(params, *of_class) for of_class in zip(truth, detections, strict=True)]
        whole = COCOeval(iouType="bbox")
        whole.params = params
        whole.eval = {
            "precision": np.concatenate([result["precision"] for result in results], axis=2),
            "recall": np.concatenate([result["recall"] for result in results], axis=1),
        }
        return whole


def _true_rows(image: int, batch: Batch, row: int) -> Iterator[Rows]:
    """The true boxes and the ignored boxes of an image of a batch, in pixels of the stored image."""
    for target in ("boxes", IGNORED_BOXES):
        truth: Boxes | None = batch.targets.get(target)
        if truth is not None:
            real = truth.labels[row] != ABSENT
            boxes = batch.placement(row).boxes_to_original(truth.xyxy[row, real], clip=False)
            labels = truth.labels[row, real]
            yield _rows(image, boxes, labels, labels.new_ones(len(labels)), is_ignored=target == IGNORED_BOXES)


def _rows(image: int, boxes: Tensor, labels: Tensor, scores: Tensor, *, is_ignored: bool = False) -> Rows:
    """Boxes [k, 4] of an image as rows."""
    rows = np.zeros(len(boxes), dtype=ROW)
    rows["image"], rows["is_ignored"] = image, is_ignored
    rows["label"], rows["score"] = labels.cpu().numpy(), scores.detach().float().cpu().numpy()
    rows["xyxy"] = boxes.detach().float().cpu().numpy()
    return rows


def _joined(rows: Sequence[Rows]) -> Rows:
    return np.concatenate([np.zeros(0, dtype=ROW), *rows])


def _by_label(rows: Rows, classes: int) -> list[Rows]:
    """The rows of each class, in their order."""
    order = np.argsort(rows["label"], kind="stable")
    return np.split(rows[order], np.searchsorted(rows["label"][order], np.arange(1, classes)))


def _accumulated(params: Params, truth: Rows, detections: Rows) -> dict[str, Any]:
    """The results for the boxes of one class by pycocotools: "precision" [T, R, 1, A, M] and "recall" [T, 1, A, M].

    T are thresholds of the IoU, R recalls, A ranges of areas, and M limits of the number of detections.
    """
    images = np.union1d(truth["image"], detections["image"]).tolist()
    by_range: list[list[dict[str, Any]]] = [[] for _ in params.areaRng]
    for start in range(0, len(images), PART):
        part = images[start : start + PART]
        evaluation = COCOeval(_coco(truth, part), _coco(detections, part), "bbox")
        evaluation.params = _params_of(params, part)
        evaluation.evaluate()
        for number, results in enumerate(by_range):
            results += map(_compact, evaluation.evalImgs[number * len(part) : (number + 1) * len(part)])
    whole = COCOeval(iouType="bbox")
    whole.params = whole._paramsEval = _params_of(params, images)
    whole.evalImgs = [result for results in by_range for result in results]
    whole.accumulate()
    accumulated: dict[str, Any] = whole.eval
    return accumulated


def _params_of(params: Params, images: list[int]) -> Params:
    """The parameters for one class and some images, each of which has a box."""
    changed = copy(params)
    changed.catIds, changed.imgIds = [0], images
    return changed


def _compact(result: dict[str, Any]) -> dict[str, Any]:
    """The part of pycocotools' result of an image that it accumulates; of ids of matches only whether there is one."""
    return {
        "dtScores": np.array(result["dtScores"], dtype=np.float32),
        "dtMatches": result["dtMatches"] > 0,
        "dtIgnore": result["dtIgnore"] > 0,
        "gtIgnore": result["gtIgnore"] > 0,
    }


def _coco(rows: Rows, images: list[int]) -> COCO:
    """The rows of some images, which follow each other, as annotations of category 0.

    Ids start at 1, because pycocotools uses 0 for "unmatched".
    """
    first, end = np.searchsorted(rows["image"], [images[0], images[-1] + 1])
    part = rows[first:end]
    columns = (part[name].tolist() for name in ("image", "score", "is_ignored", "xyxy"))
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": 0,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": int(is_ignored),
            "score": score,
        }
        for number, (image, score, is_ignored, (x0, y0, x1, y1)) in enumerate(zip(*columns, strict=True), 1)
    ]
    index = COCO()
    index.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": 0}],
        "annotations": annotations,
    }
    index.createIndex()
    return index


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what pycocotools prints in this thread; all other output of the process is left alone."""
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)


def _print(*values: object, **options: Any) -> None:
    """``print`` for pycocotools, whose messages have no switch."""
    if not _IS_QUIET.get():
        print(*values, **options)  # noqa: T201


for _module in (coco, cocoeval):
    vars(_module)["print"] = _print
