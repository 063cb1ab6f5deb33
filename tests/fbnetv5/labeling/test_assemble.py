"""The files of a whole data set from those of its chunks."""

import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from export.errors import UserError
from fbnetv5.data.targets import BOXES, CLASS, Target
from fbnetv5.labeling.assemble import assemble, read_labels
from fbnetv5.labeling.chunks import ImageRow

TARGETS = {"label": Target(kind=CLASS, classes=("cat", "dog")), "boxes": Target(kind=BOXES, classes=("cat", "dog"))}
ROWS = (
    ImageRow(source="a", name="a.png", size=(40, 60), label=1, boxes=[[1.0, 2.0, 11.5, 22.0]], box_labels=[1],
             origins={"label": "kept", "boxes": "teacher"}),
    ImageRow(source="b", reason="damaged"),
    ImageRow(source="c", name="c.png", size=(8, 9), label=0, test=True, origins={"label": "derived"}),
    ImageRow(source="d", name="d.png", size=(8, 9), boxes=[], box_labels=[], origins={"boxes": "teacher"}),
)  # fmt: skip


def chunks(root: Path, rows: tuple[ImageRow, ...] = ROWS) -> list[Path]:
    """Two chunks of two images each."""
    files = [root / "0.jsonl", root / "1.jsonl"]
    for file, part in zip(files, (rows[:2], rows[2:]), strict=True):
        file.write_text("".join(row.model_dump_json() + "\n" for row in part), encoding="utf-8")
    return files


def test_the_files_describe_all_images(tmp_path: Path) -> None:
    summary = assemble(tmp_path, chunks(tmp_path), TARGETS, {"threshold": 0.5})
    assert (summary.images, summary.left_out) == (3, 1)
    assert summary.labelled["cls"] == {"kept": 1, "teacher": 0, "derived": 1}
    document = json.loads((tmp_path / "instances.json").read_text(encoding="utf-8"))
    assert document["images"] == [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 40, "label": "dog"},
        {"id": 2, "file_name": "c.png", "width": 9, "height": 8, "label": "cat", "boxes": False, "split": "test"},
        {"id": 3, "file_name": "d.png", "width": 9, "height": 8},
    ]
    coco = COCO(str(tmp_path / "instances.json"))
    assert [(row["image_id"], row["bbox"], row["category_id"]) for row in coco.dataset["annotations"]] == [
        (1, [1.0, 2.0, 10.5, 20.0], 2)
    ]
    left_out = (tmp_path / "left-out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in left_out] == [{"image": "b", "reason": "damaged"}]


def test_the_summary_is_read_back(tmp_path: Path) -> None:
    summary = assemble(tmp_path, chunks(tmp_path), TARGETS, {"threshold": 0.5})
    assert read_labels(tmp_path) == (summary, {"threshold": 0.5})
    (tmp_path / "labels.json").write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(UserError, match=r"labels\.json is damaged"):
        read_labels(tmp_path)


def test_a_data_set_without_any_label_is_refused(tmp_path: Path) -> None:
    rows = tuple(row.model_copy(update={"origins": {}}) for row in ROWS)
    with pytest.raises(UserError, match="none of 3 images got a label: lower --threshold"):
        assemble(tmp_path, chunks(tmp_path, rows), TARGETS, {})
    assert not (tmp_path / "labels.json").exists()
