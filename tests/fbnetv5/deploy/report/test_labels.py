import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from export.files import write_json
from fbnetv5.deploy.report import labels
from fbnetv5.deploy.report.files import RunFiles, open_run
from latency.page.content import Figure, Figures, Gallery, Section, Table, Text


@pytest.fixture
def labelled(image_folder: Path) -> Path:
    """A data set of 24 images as ``fbnetv5 label`` leaves it."""
    counts = {"labelled": 24, "kept": 4, "teacher": 20, "derived": 0}
    teacher = {"teacher": "t.onnx", "threshold": 0.6, "thresholds": {"coat": 0.7}, "sha256": "0123456789abcdef"}
    settings = {"images": "/images", "teachers": {"cls": teacher}, "derive": {"edges": "seg"}}
    document = {"schema": 1, "kind": "labels", "images": 24, "left_out": 1, "settings": settings}
    write_json(image_folder / "labels.json", document | {"tasks": dict.fromkeys(("cls", "det", "seg"), counts)})
    return image_folder


def sections_of(folder: Path) -> dict[str, Section]:
    return {section.name: section for section in labels.label_sections(open_run(folder))}


def test_counts_by_class_are_those_of_the_data_set(labelled: Path) -> None:
    document: dict[str, Any] = json.loads((labelled / "instances.json").read_text(encoding="utf-8"))
    (classes,) = sections_of(labelled)["classes"].items
    assert isinstance(classes, Figures)
    of_images = Counter(image["label"] for image in document["images"])
    names = {category["id"]: category["name"] for category in document["categories"]}
    of_boxes = Counter(names[box["category_id"]] for box in document["annotations"])
    for figure, expected in zip(classes.items[:2], (of_images, of_boxes), strict=True):
        (bars,) = figure.plot.data
        assert Counter(dict(zip(bars.y, bars.x, strict=True))) == expected
    assert max(classes.items[2].plot.data[0].x) == 24  # the background


def test_counts_by_task_and_thresholds_are_shown(labelled: Path) -> None:
    sections = sections_of(labelled)
    (counts,), (teachers,) = sections["labels"].items, sections["teachers"].items
    assert isinstance(counts, Figure)
    assert [list(trace.x) for trace in counts.plot.data] == [[4] * 3, [20] * 3, [0] * 3]
    assert isinstance(teachers, Table)
    assert teachers.rows == [
        ["cls", "t.onnx", "0.6", "coat 0.7", "0123456789ab"],
        ["edges", "derived: seg", "-", "-", "-"],
    ]


def test_some_images_are_drawn_for_every_task(labelled: Path) -> None:
    galleries = sections_of(labelled)["images"].items
    assert [(item.title, len(item.images)) for item in galleries if isinstance(item, Gallery)] == [
        ("cls: labels", 6),
        ("det: labels", 6),
        ("seg: labels", 6),
    ]


def test_a_large_data_set_is_not_opened(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MAX_OPENED", 23)
    (remark,) = sections_of(labelled)["classes"].items
    assert isinstance(remark, Text)
    assert "more than 23 images" in remark.paragraphs[0]
    assert isinstance(open_run(labelled), RunFiles)
