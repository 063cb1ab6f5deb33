"""Soft labels in a folder for several tasks, and through shards."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.data.targets import SOFT_LABEL

WRONG: dict[str, tuple[Any, str]] = {
    "a number": (0.7, "is no object of classes and probabilities"),
    "nothing": ({}, "is no object of classes and probabilities"),
    "an unknown class": ({"ship": 0.7}, "has class 'ship', which is none of"),
    "zero": ({"bag": 0}, "must have probabilities above 0"),
    "true": ({"bag": True}, "must have probabilities above 0"),
    "too much": ({"bag": 0.7, "coat": 0.4}, "has probabilities with a sum above 1"),
}


def add(folder: Path, labels: dict[str, Any]) -> None:
    """Add soft labels by file name to ``instances.json``."""
    file = folder / "instances.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    for record in document["images"]:
        if record["file_name"] in labels:
            record["soft_label"] = labels[record["file_name"]]
    file.write_text(json.dumps(document), encoding="utf-8")


def test_classes_are_sorted_by_their_probability_and_others_are_absent(image_folder: Path) -> None:
    add(image_folder, {"03.png": {"coat": 0.25, "bag": 0.5}})
    data = open_folder(image_folder).only(["label", "soft_label"])
    classes = data.targets["label"].classes
    assert data.targets["soft_label"].classes == classes
    assert data.targets["soft_label"].kind is SOFT_LABEL
    label = data.sample(data.names.index("03.png"), (32, 32)).targets["soft_label"]
    assert [classes[class_id] for class_id in label.class_ids] == ["bag", "coat"]
    assert label.probabilities.tolist() == [0.5, 0.25]
    assert "soft_label" not in data.sample(0, (32, 32)).targets


def test_a_folder_without_soft_labels_has_no_such_target(image_folder: Path) -> None:
    assert "soft_label" not in open_folder(image_folder).targets


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_soft_label_is_named(image_folder: Path, name: str) -> None:
    label, message = WRONG[name]
    add(image_folder, {"03.png": label})
    with pytest.raises(UserError, match=rf"soft_label .* of '03\.png' {message}"):
        open_folder(image_folder)


def test_shards_and_datasets_have_equal_soft_labels(image_folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    values = torch.rand(24, 3, generator=torch.Generator().manual_seed(0)).softmax(1).double()
    soft = {f"{n:02d}.png": {"bag": float(a), "coat": float(b)} for n, (a, b, _) in enumerate(values.tolist()) if n}
    add(image_folder, soft)
    source = open_folder(image_folder)
    write_shards(source, tmp_path / "shards", lambda *_: None, shard_rows=5)
    shards = open_folder(tmp_path / "shards")
    stored: dict[str, dict[str, Any]] = {}
    for index in range(len(shards)):
        stored[shards.path(index).rpartition(", ")[2]] = shards.labels(index)
    loaded = datasets.load_dataset(str(tmp_path / "shards"), cache_dir=str(tmp_path / "cache"))
    rows = {
        row["image"]["path"]: row["soft_label"]
        for split in loaded.values()
        for row in split.cast_column("image", datasets.Image(decode=False))
    }
    assert len(stored) == len(rows) == 24
    for index, name in enumerate(source.names):
        labels, theirs = source.labels(index), rows[name]
        assert ("soft_label" in labels) == ("soft_label" in stored[repr(name)]) == (name != "00.png")
        if name == "00.png":
            assert theirs is None or theirs["category"] is None
            continue
        expected, ours = labels["soft_label"], stored[repr(name)]["soft_label"]
        assert torch.equal(ours.probabilities, expected.probabilities)
        assert ours.class_ids.tolist() == expected.class_ids.tolist() == theirs["category"]
        assert theirs["probability"] == expected.probabilities.tolist()
