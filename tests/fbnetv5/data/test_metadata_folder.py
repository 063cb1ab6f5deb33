import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.metadata_folder import metadata_files
from fbnetv5.data.scenes import CLASSES
from tests.fbnetv5.data.rearrange import SPLITS, as_metadata_folder, draw

SIZE = (64, 64)


def write_rows(root: Path, *rows: Any) -> Path:
    """A folder with 0.png, 1.png and a line of metadata.jsonl for each row."""
    draw(root, "0.png", "1.png")
    (root / "metadata.jsonl").write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return root


def test_files_are_listed_in_a_folder_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As "." and "/" are."""
    monkeypatch.chdir(write_rows(tmp_path, {"file_name": "0.png"}))
    assert metadata_files(Path()) == [Path("metadata.jsonl")]


def test_images_labels_boxes_and_masks_are_those_of_the_folder(image_folder: Path, tmp_path: Path) -> None:
    root = as_metadata_folder(image_folder, tmp_path / "hub")
    assert layout_of(root).name == "Hugging Face image folder"
    data, original = open_folder(root), open_folder(image_folder)
    assert data.targets["boxes"].classes == tuple(sorted(CLASSES["boxes"]))
    assert data.test == {f"validation/{number:02d}.png" for number in SPLITS["val"]}
    assert data.notes == ("columns of metadata.jsonl not read (text): 2",)
    for index, name in enumerate(data.names):
        sample, expected = data.sample(index, SIZE), original.sample(int(Path(name).stem), SIZE)
        assert torch.equal(sample.image, expected.image)
        assert torch.equal(sample.targets["mask"], expected.targets["mask"])
        assert torch.equal(sample.targets["boxes"].xyxy, expected.targets["boxes"].xyxy)
        assert data.targets["label"].classes[sample.targets["label"]] == CLASSES["label"][expected.targets["label"]]
        names = [
            [images.targets["boxes"].classes[n] for n in boxes.labels]
            for images, boxes in ((data, sample.targets["boxes"]), (original, expected.targets["boxes"]))
        ]
        assert names[0] == names[1]


def test_datasets_reads_the_same_rows(image_folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    root = as_metadata_folder(image_folder, tmp_path / "hub")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    data, rows = open_folder(root), {}
    for split in loaded:
        for row in loaded[split]:
            rows[f"{split}/{row['text']}.png"] = row
    assert rows.keys() == set(data.names)
    for index, name in enumerate(data.names):
        labels, row = data.labels(index), rows[name]
        assert row["image"].size == data.record(index).size[::-1]
        assert row["label"] == data.targets["label"].classes[labels["label"]]
        assert np.array_equal(np.array(row["mask"]), labels["mask"].numpy())
        x0, y0, x1, y1 = labels["boxes"].xyxy.T
        assert np.allclose(row["objects"]["bbox"], torch.stack([x0, y0, x1 - x0, y1 - y0], 1).numpy())


def test_a_table_has_names_or_numbers_and_empty_cells(tmp_path: Path) -> None:
    draw(tmp_path, "train/0.png", "train/1.png", "train/2.png")
    rows = [["file_name", "label"], ["0.png", "cat, big"], ["1.png", "ünter"], ["2.png", ""]]
    with (tmp_path / "train/metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)
    data = open_folder(tmp_path)
    assert data.targets["label"].classes == ("cat, big", "ünter")
    assert (data.names, data.notes[0]) == (("train/0.png", "train/1.png"), "images without a label left out: 1")
    (tmp_path / "train/metadata.csv").write_text("file_name,label\n0.png,3\n1.png,0\n")
    data = open_folder(tmp_path)
    assert data.targets["label"].classes == tuple(f"class {number}" for number in range(4))
    assert [data.labels(index)["label"] for index in range(2)] == [3, 0]


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["10", "-1", " 2"], tuple(f"class {number}" for number in range(11)), [10, 2]),
        (["b", "-1", "a"], ("a", "b"), [1, 0]),
    ],
    ids=["numbers", "names"],
)
def test_minus_one_in_a_table_is_no_class(
    cells: list[str], classes: tuple[str, ...], labels: list[int], tmp_path: Path
) -> None:
    draw(tmp_path, *(f"{number}.png" for number in range(3)))
    rows = "".join(f"{number}.png,{cell}\n" for number, cell in enumerate(cells))
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{rows}")
    data = open_folder(tmp_path)
    assert (data.names, data.targets["label"].classes) == (("0.png", "2.png"), classes)
    assert [data.labels(index)["label"] for index in range(2)] == labels


def test_objects_may_be_a_list_and_images_without_objects_have_none(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4], "category": 1}
    data = open_folder(
        write_rows(
            tmp_path,
            {"file_name": "0.png", "objects": [box]},
            "",
            {"file_name": ".\\1.png", "objects": []},
        )
    )
    assert data.targets["boxes"].classes == ("class 0", "class 1")
    assert [data.labels(index)["boxes"].xyxy.tolist() for index in range(2)] == [[[1, 2, 4, 6]], []]


ROW = {"file_name": "0.png", "label": "a"}
WRONG: dict[str, tuple[list[Any], str]] = {
    "no JSON": ([ROW, "{"], r"metadata\.jsonl:2 is not valid JSON"),
    "no object": ([ROW, "[]"], r"jsonl:2 must be a JSON object"),
    "no file name": ([ROW, {"label": "a"}], r'jsonl:2 has no "file_name"'),
    "no file": ([ROW, {"file_name": "2.png"}], r"jsonl:2 lists '2\.png', which is not in"),
    "no mask": ([ROW | {"mask_file_name": "m.png"}], r"jsonl:1 lists 'm\.png', which is not in"),
    "twice": ([ROW, ROW], r"jsonl:2 lists '0\.png' again"),
    "mixed": ([ROW, {"file_name": "1.png", "label": 3}], r'jsonl:2: "label" is 3, and .*jsonl:1'),
    "no label": ([{"file_name": "0.png", "text": "a"}], r"has no label of any image: add a column label"),
    "lengths": ([ROW | {"objects": {"bbox": [], "categories": [1]}}], r'jsonl:1: "objects" must have .* of one length'),
    "a box": ([ROW | {"objects": {"bbox": [[0, 0, 10, 9]], "category": [1]}}], r"jsonl:1: box .* reaches outside"),
    "no list": ([ROW | {"objects": {"bbox": [5], "category": [1]}}], r'jsonl:1: "bbox" must be a list'),
}


@pytest.mark.parametrize(("rows", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_folder(write_rows(tmp_path, *rows))
    assert "\n" not in str(caught.value)


TABLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "negative": (lambda path: path.write_text("file_name,label\n0.png,-2\n"), r"csv:2: \"label\" must be .* got -2"),
    "columns": (lambda path: path.write_text("file_name,label\n0.png,a,b\n"), r"csv:2 has more columns"),
    "encoding": (lambda path: path.write_bytes(b"file_name,label\n0.png,\xff\n"), "Save it as text in UTF-8"),
    "quotes": (lambda path: path.write_text('file_name,label\n0.png,"a"b\n'), r"csv:2 is not valid CSV"),
}


@pytest.mark.parametrize(("write", "message"), TABLES.values(), ids=TABLES)
def test_what_is_wrong_in_a_table_is_named(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    write(draw(tmp_path, "0.png") / "metadata.csv")
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c"
    rows = [json.dumps({"file_name": f"{number}.png", "label": text}, ensure_ascii=False) for number in range(2)]
    assert open_folder(write_rows(tmp_path, *rows)).targets["label"].classes == (text,)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text(f"file_name,label\r\n0.png,{text}\r\n1.png,{text}\r\n", encoding="utf-8")
    assert open_folder(tmp_path).targets["label"].classes == (text,)
