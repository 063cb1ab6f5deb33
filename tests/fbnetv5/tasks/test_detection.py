import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from fbnetv5.blocks import conv_norm, initialise
from fbnetv5.data.sample import Batch, Classes, Sample, collate
from fbnetv5.tasks.detection import CLASS_PRIOR, TOP_K, Detection, decode, suppress

TASK = Detection(Classes(labels=("x",), boxes=("red", "green", "blue"), masks=("x",)))
IMAGE = torch.zeros(3, 64, 64, dtype=torch.uint8)


def picture(boxes: Tensor | None, labels: Tensor | None, image: Tensor = IMAGE) -> Sample:
    return Sample(image=image, label=0, boxes=boxes, box_labels=labels, mask=None)


def random_picture(seed: int) -> Sample:
    """A grey picture with rectangles of the three colours, the later ones on top."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 + seed % 3
    corner = torch.randint(0, 36, (count, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(10, 28, (count, 2), generator=generator)], dim=1)
    labels = torch.randint(3, (count,), generator=generator)
    image = torch.full_like(IMAGE, 90)
    for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        image[:, y0:y1, x0:x1] = torch.eye(3, dtype=torch.uint8)[label][:, None, None] * 255
    return picture(boxes.float(), labels, image)


def random_answers(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The truth, blurred, among wrong boxes."""
    generator = torch.Generator().manual_seed(0)
    near = batch.boxes + 2 * torch.randn(batch.boxes.shape, generator=generator)
    corner = torch.rand(len(near), 20, 2, generator=generator) * 40
    boxes = torch.cat([near, torch.cat([corner, corner + 20], dim=-1)], dim=1)
    labels = torch.randint(3, boxes.shape[:2], generator=generator)
    labels[:, : near.shape[1]] = batch.box_labels.clamp(min=0)
    scores = torch.rand(boxes.shape[:2], generator=generator)
    scores[:, : near.shape[1]] += 0.5
    return boxes, scores, labels


def ap(outputs: tuple[Tensor, Tensor, Tensor], batch: Batch) -> float:
    metric = TASK.new_metric()
    metric.update(outputs, batch)
    return metric.compute()


def ap_by_pycocotools(outputs: tuple[Tensor, Tensor, Tensor], batch: Batch, folder: Path) -> float:
    """Through files, as COCO's users do."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for row, (boxes, scores, labels) in enumerate(suppress(outputs)):
        for box, label in zip(batch.boxes[row].tolist(), batch.box_labels[row].tolist(), strict=True):
            if label >= 0:
                xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                entry = {"id": len(truth) + 1, "image_id": row, "category_id": label, "bbox": xywh}
                truth.append(entry | {"area": xywh[2] * xywh[3], "iscrowd": 0})
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            found.append({"image_id": row, "category_id": label, "bbox": xywh, "score": score})
    images = [{"id": row} for row in range(len(batch.boxes))]
    categories = [{"id": label} for label in range(3)]
    (folder / "gt.json").write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    (folder / "dt.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "gt.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "dt.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def test_decode_by_hand() -> None:
    log_sizes = torch.tensor([2.0, 0.5]).log()
    cell = torch.cat([torch.tensor([0.5, -1.0]), log_sizes])[None, None]
    boxes = decode(cell, torch.tensor([[12.0, 20.0]]), torch.tensor([8.0]))
    torch.testing.assert_close(boxes, torch.tensor([[[8.0, 10.0, 24.0, 14.0]]]))


def test_deploy_reads_the_cell_of_each_level() -> None:
    raw = [torch.full((1, 7, size, size), -9.0) for size in (8, 4, 2)]
    raw[0][0, :, 1, 6] = torch.tensor([-9.0, -9.0, 4.0, 0.0, 0.0, 0.0, 0.0])  # stride 8, row 1, column 6, "blue"
    raw[2][0, :, 1, 0] = torch.tensor([3.0, -9.0, -9.0, 0.0, 0.0, 0.0, 0.0])  # stride 32, row 1, column 0, "red"
    boxes, scores, labels = TASK.deploy(raw)
    assert boxes.shape == (1, TOP_K, 4)
    assert boxes[0, :2].tolist() == [[48.0, 8.0, 56.0, 16.0], [0.0, 32.0, 32.0, 64.0]]
    assert labels[0, :2].tolist() == [2, 0]
    torch.testing.assert_close(scores[0, :2], torch.tensor([4.0, 3.0]).sigmoid())


def test_a_picture_with_few_cells_has_fewer_answers() -> None:
    raw = [torch.zeros(2, 7, size, size) for size in (4, 2, 1)]
    assert [x.shape for x in TASK.deploy(raw)] == [(2, 63, 4), (2, 63), (2, 63)]


def test_head_starts_at_its_priors() -> None:
    head = TASK.build_head([8, 8, 8]).eval()
    boxes, scores, _ = TASK.deploy(head([torch.zeros(1, 8, size, size) for size in (8, 4, 2)]))
    torch.testing.assert_close(scores, torch.full((1, TOP_K), CLASS_PRIOR), rtol=0.5, atol=0)
    sides = boxes[..., 2:] - boxes[..., :2]
    assert bool((sides > 25).all())
    assert bool((sides < 160).all())


def test_perfect_cell_leaves_only_the_class_loss() -> None:
    raw = [torch.full((1, 7, size, size), -20.0) for size in (8, 4, 2)]
    raw[0][0, :, 1, 6] = torch.tensor([-20.0, -20.0, 20.0, 0.0, 0.0, 0.0, 0.0])
    batch = collate([picture(torch.tensor([[48.0, 8.0, 56.0, 16.0]]), torch.tensor([2]))])
    assert float(TASK.losses(raw, batch)) == pytest.approx(0.0, abs=1e-4)
    raw[0][0, 3, 1, 6] = 0.5  # half a stride aside: IoU 1/3, GIoU 1/3, target 1/3, sum of targets below 1
    logit_loss = 20.0 * (1 - 1 / 3)
    expected = logit_loss + 2 * (1 / 3) * (1 - 1 / 3)
    assert float(TASK.losses(raw, batch)) == pytest.approx(expected, rel=1e-4)


def test_an_empty_picture_pays_for_every_score() -> None:
    raw = [torch.zeros(1, 7, size, size) for size in (8, 4, 2)]
    empty = collate([picture(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])
    assert float(TASK.losses(raw, empty)) == pytest.approx(84 * 3 * torch.log(torch.tensor(2.0)).item())


def test_suppress_keeps_the_surest_of_a_class() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 9.0]]])
    ((_, scores, labels),) = suppress([boxes, torch.tensor([[0.5, 0.9, 0.8]]), torch.tensor([[0, 0, 1]])])
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8]))
    assert labels.tolist() == [0, 1]


def test_ap_of_perfect_and_of_absent_answers(capsys: pytest.CaptureFixture[str]) -> None:
    batch = collate([picture(torch.tensor([[4.0, 4.0, 20.0, 30.0]]), torch.tensor([2]))])
    nothing = (torch.zeros(1, 0, 4), torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int64))
    assert ap((batch.boxes, torch.ones(1, 1), batch.box_labels), batch) == pytest.approx(1.0)
    assert ap((batch.boxes, torch.ones(1, 1), batch.box_labels - 1), batch) == 0.0
    assert ap(nothing, batch) == 0.0
    assert capsys.readouterr().out == ""


def test_ap_is_that_of_pycocotools(tmp_path: Path) -> None:
    batch = collate([random_picture(seed) for seed in range(12)])
    outputs = random_answers(batch)
    mine = ap(outputs, batch)
    assert 0.05 < mine < 0.95
    assert mine == pytest.approx(ap_by_pycocotools(outputs, batch, tmp_path))


class TinyDetector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_norm(3, 16, kernel=3, stride=2, act=True), conv_norm(16, 24, kernel=3, stride=2, act=True)
        )
        self.stages = nn.ModuleList(
            conv_norm(width, width + 24, kernel=3, stride=2, act=True) for width in (24, 48, 72)
        )
        initialise(self)
        self.head = TASK.build_head([48, 72, 96])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem((images.float() - 128) / 64)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        raw: tuple[Tensor, ...] = self.head(features)
        return raw


def test_a_tiny_network_learns_sixteen_pictures() -> None:
    torch.manual_seed(0)
    batch = collate([random_picture(seed) for seed in range(16)])
    network = TinyDetector()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(100):
        loss = TASK.losses(network(batch.images), batch).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        boxes, scores, labels = TASK.deploy(network(batch.images))
    assert ap((boxes, scores, labels), batch) > 0.7
