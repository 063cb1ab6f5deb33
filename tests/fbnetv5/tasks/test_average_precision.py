import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from export.errors import UserError
from export.placement import FITS, Fit, place
from fbnetv5.data.predictions import TOP_K
from fbnetv5.data.targets import IGNORED_BOXES, Boxes
from fbnetv5.tasks import average_precision
from tests.fbnetv5.tasks.detections import TASK, ap, image, random_answers, random_image, stack, stats_of_pycocotools


def test_ap_of_perfect_and_of_missing_detections(capsys: pytest.CaptureFixture[str]) -> None:
    batch = stack([image(torch.tensor([[4.0, 4.0, 20.0, 30.0]]), torch.tensor([2]))])
    nothing = (torch.zeros(1, 0, 4), torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int64))
    boxes, labels = batch.targets["boxes"]
    assert ap((boxes, torch.ones(1, 1), labels), batch) == pytest.approx(1.0)
    assert ap((boxes, torch.ones(1, 1), labels - 1), batch) == 0.0
    assert ap(nothing, batch) == 0.0
    assert capsys.readouterr().out == ""


def test_output_of_other_threads_is_kept_while_ap_is_computed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = stack([image(torch.tensor([[4.0, 4.0, 20.0, 30.0]]), torch.tensor([2]))])
    evaluate = COCOeval.evaluate

    def evaluate_while_others_print(self: COCOeval) -> None:
        other = threading.Thread(target=lambda: (COCO().createIndex(), sys.stdout.write("progress\n")))
        other.start()
        other.join()
        evaluate(self)

    monkeypatch.setattr(COCOeval, "evaluate", evaluate_while_others_print)
    boxes, labels = batch.targets["boxes"]
    ap((boxes, torch.ones(1, 1), labels), batch)
    assert capsys.readouterr().out == "creating index...\nindex created!\nprogress\n"


def test_ap_is_that_of_pycocotools(tmp_path: Path) -> None:
    batch = stack([random_image(seed) for seed in range(12)])
    outputs = random_answers(batch)
    mine = ap(outputs, batch)
    assert 0.05 < mine < 0.95
    assert mine == pytest.approx(stats_of_pycocotools(outputs, batch, tmp_path)[0])


@pytest.mark.parametrize(("largest", "unmeasured"), [(1, {"medium", "large"}), (5, set())], ids=["small", "all sizes"])
def test_the_twelve_figures_are_those_of_pycocotools(tmp_path: Path, largest: int, unmeasured: set[str]) -> None:
    large = torch.zeros(3, 320, 320, dtype=torch.uint8)
    batch = stack([replace(random_image(seed), image=large) for seed in range(12)])
    magnified = torch.tensor([1.0, largest, (1 + largest) / 2]).repeat(4)
    truth = batch.targets["boxes"]
    batch = replace(batch, targets={"boxes": Boxes(truth.xyxy * magnified[:, None, None], truth.labels)})
    outputs = random_answers(batch)
    metric = TASK.new_metric()
    metric.update(outputs, batch)
    figures = metric.report()
    assert len(figures) == 12
    assert figures["ap"] == pytest.approx(metric.compute())
    assert [-1.0 if value is None else value for value in figures.values()] == pytest.approx(
        stats_of_pycocotools(outputs, batch, tmp_path)
    )
    assert {name.partition("_")[2] for name, value in figures.items() if value is None} == unmeasured


@pytest.mark.parametrize("fit", FITS)
def test_the_figures_are_those_in_pixels_of_the_stored_images(tmp_path: Path, fit: Fit) -> None:
    """The truth and the detections are moved back by hand, and evaluated by pycocotools."""
    samples = [random_image(seed) for seed in range(12)]
    places = [place((40 + 37 * row, 200 - 9 * row), (64, 64), fit) for row in range(12)]
    batch = stack([replace(sample, placement=where) for sample, where in zip(samples, places, strict=True)])
    scale = torch.tensor([[where.image[1] / where.inner[1], where.image[0] / where.inner[0]] for where in places])
    corner = torch.tensor([[float(where.left), float(where.top)] for where in places])
    boxes, scores, labels = random_answers(batch)
    stored, truth = (
        (xyxy - corner.repeat(1, 2)[:, None]) * scale.repeat(1, 2)[:, None]
        for xyxy in (boxes, batch.targets["boxes"].xyxy)
    )
    metric = TASK.new_metric()
    metric.update((boxes, scores, labels), batch)
    theirs = replace(batch, targets={"boxes": Boxes(truth, batch.targets["boxes"].labels)})
    assert [-1.0 if value is None else value for value in metric.report().values()] == pytest.approx(
        stats_of_pycocotools((stored, scores, labels), theirs, tmp_path), abs=1e-6
    )
    if fit == "stretch":  # else boxes reach into the padding, where they are cut
        assert metric.compute() == pytest.approx(ap((boxes, scores, labels), stack(samples)), abs=1e-6)


def test_detections_that_match_ignored_boxes_do_not_count(tmp_path: Path) -> None:
    """The figures are those of pycocotools with these boxes as crowds, and others than without them."""
    batch = stack([random_image(seed) for seed in range(12)])
    outputs = random_answers(batch)
    boxes, _, labels = (output[:, ::7] for output in outputs)
    labels = labels.where(torch.arange(12)[:, None] % 3 > 0, -1)  # some images without
    ignored = replace(batch, targets={**batch.targets, IGNORED_BOXES: Boxes(boxes, labels)})
    metric = TASK.new_metric()
    metric.update(outputs, ignored)
    expected = stats_of_pycocotools(outputs, ignored, tmp_path)
    assert [-1.0 if value is None else value for value in metric.report().values()] == pytest.approx(expected)
    assert metric.compute() == pytest.approx(expected[0])
    assert metric.compute() > ap(outputs, batch)


def test_ignored_boxes_alone_cannot_be_measured() -> None:
    batch = stack([image(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])
    boxes, labels = torch.tensor([[[4.0, 4.0, 20.0, 30.0]]]), torch.tensor([[2]])
    ignored = replace(batch, targets={**batch.targets, IGNORED_BOXES: Boxes(boxes, labels)})
    with pytest.raises(UserError, match="no labelled boxes in the test images"):
        ap((boxes, torch.ones(1, 1), labels), ignored)


def test_parts_and_merged_metrics_have_the_figures_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = stack([random_image(seed) for seed in range(12)])
    outputs = random_answers(batch)
    whole = TASK.new_metric()
    whole.update(outputs, batch)
    figures, value = whole.report(), whole.compute()
    monkeypatch.setattr(average_precision, "PART", 2)
    merged = TASK.new_metric()
    for rows in (torch.arange(0, 5), torch.arange(5, 10), torch.arange(10, 12)):
        part = TASK.new_metric()
        boxes, scores, labels = (output[rows] for output in outputs)
        part.update((boxes, scores, labels), batch.rows(rows))
        merged.merge(part)
    assert (merged.report(), merged.compute()) == (figures, value)


def test_an_image_takes_29_bytes_per_detection() -> None:
    """Beside its true boxes; a million images of 100 detections take 2.9 GB."""
    batch = stack([random_image(0)])
    boxes = torch.rand(1, TOP_K, 2) * 30
    labels = torch.arange(TOP_K)[None] % 3
    metric = TASK.new_metric()
    size = len(pickle.dumps(metric))
    metric.update((torch.cat([boxes, boxes + 20], dim=2), torch.rand(1, TOP_K), labels), batch)
    assert len(pickle.dumps(metric)) - size < 29 * (TOP_K + 1) + 600
