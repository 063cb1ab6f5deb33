"""Images with boxes, detections of them, and their figures by pycocotools."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from fbnetv5.data.sample import Batch, Sample, collate
from fbnetv5.data.targets import BOXES, IGNORED_BOXES, Boxes, Target
from fbnetv5.tasks.detection import Detection, suppress

TASK = Detection({"label": ("x",), "boxes": ("red", "green", "blue"), "mask": ("x",)})
IMAGE = torch.zeros(3, 64, 64, dtype=torch.uint8)


def image(boxes: Tensor, labels: Tensor, image: Tensor = IMAGE) -> Sample:
    return Sample(image=image, targets={"boxes": Boxes(boxes, labels)})


def stack(samples: list[Sample]) -> Batch:
    return collate(samples, {"boxes": Target(kind=BOXES, classes=TASK.labels)})


def random_image(seed: int) -> Sample:
    """A grey image with rectangles of the three colours, the later ones on top."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 + seed % 3
    corner = torch.randint(0, 36, (count, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(10, 28, (count, 2), generator=generator)], dim=1)
    labels = torch.randint(3, (count,), generator=generator)
    pixels = torch.full_like(IMAGE, 90)
    for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        pixels[:, y0:y1, x0:x1] = torch.eye(3, dtype=torch.uint8)[label][:, None, None] * 255
    return image(boxes.float(), labels, pixels)


def random_answers(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The truth, blurred, among wrong boxes."""
    generator = torch.Generator().manual_seed(0)
    near = batch.targets["boxes"].xyxy + 2 * torch.randn(batch.targets["boxes"].xyxy.shape, generator=generator)
    corner = torch.rand(len(near), 20, 2, generator=generator) * 40
    boxes = torch.cat([near, torch.cat([corner, corner + 20], dim=-1)], dim=1)
    labels = torch.randint(3, boxes.shape[:2], generator=generator)
    labels[:, : near.shape[1]] = batch.targets["boxes"].labels.clamp(min=0)
    scores = torch.rand(boxes.shape[:2], generator=generator)
    scores[:, : near.shape[1]] += 0.5
    return boxes, scores, labels


def ap(outputs: tuple[Tensor, Tensor, Tensor], batch: Batch) -> float:
    metric = TASK.new_metric()
    metric.update(outputs, batch)
    return metric.compute()


def stats_of_pycocotools(outputs: tuple[Tensor, Tensor, Tensor], batch: Batch, folder: Path) -> list[float]:
    """Through files, as COCO's users do; boxes are cut at the borders of the stored images."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for row, (boxes, scores, labels) in enumerate(suppress(outputs)):
        for target in sorted(batch.targets):
            true_boxes, true_labels = (tensor[row].tolist() for tensor in batch.targets[target])
            for box, label in zip(true_boxes, true_labels, strict=True):
                if label >= 0:
                    xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                    entry = {"id": len(truth) + 1, "image_id": row, "category_id": label, "bbox": xywh}
                    truth.append(entry | {"area": xywh[2] * xywh[3], "iscrowd": int(target == IGNORED_BOXES)})
        height, width = batch.placement(row).image
        cut = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=2).flatten(1)
        for box, score, label in zip(cut.tolist(), scores.tolist(), labels.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            if min(xywh[2:]) > 0:
                found.append({"image_id": row, "category_id": label, "bbox": xywh, "score": score})
    images = [{"id": row} for row in range(len(batch.images))]
    categories = [{"id": label} for label in range(3)]
    (folder / "gt.json").write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    (folder / "dt.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "gt.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "dt.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]
