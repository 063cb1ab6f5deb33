"""The peer library reads what is written; the shards' own reader is tested in ``test_shards``."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv5.data.image_files import StoredFile, read_pixels
from fbnetv5.data.labelled_images import LabelledImages
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.maps import FORMATS
from fbnetv5.data.shard_format import arrow_schema, columns_of, read_index
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.data.targets import class_names
from tests.fbnetv5.data.rearrange import ARRANGED

pytest.importorskip("pyarrow")

CLASSES = {"label": ("a", "b"), "boxes": ("ä",), "depth": ()}


def test_the_schema_names_columns_and_classes_for_both_readers() -> None:
    schema = arrow_schema(CLASSES)
    assert schema.names == columns_of(CLASSES) == ["image", "width", "height", "label", "objects", "depth"]
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features.keys() == set(schema.names)
    assert features["label"] == {"names": ["a", "b"], "_type": "ClassLabel"}
    assert json.loads(schema.metadata[b"fbnetv5"])["classes"] == {"label": ["a", "b"], "boxes": ["ä"], "depth": []}


def test_ignored_boxes_have_a_column_with_the_classes_of_boxes() -> None:
    schema = arrow_schema({"boxes": ("a", "b"), "ignored_boxes": ()})
    assert schema.field("ignored_objects").type == schema.field("objects").type
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["ignored_objects"] == features["objects"]


def test_the_index_lists_the_shards_with_rows_and_checksums(image_folder: Path, tmp_path: Path) -> None:
    written = write_shards(open_folder(image_folder), tmp_path / "shards", lambda *_: None, shard_rows=5)
    assert read_index(tmp_path / "shards") == written
    assert {shard.file for shard in written.shards} == {path.name for path in (tmp_path / "shards/data").iterdir()}
    for shard in written.shards:
        content = (tmp_path / "shards/data" / shard.file).read_bytes()
        assert (shard.size, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sum(shard.rows for shard in written.shards) == sum(written.splits) == 24


def assert_datasets_reads(folder: Path, source: LabelledImages, cache: Path, *, by_folder: bool = True) -> None:
    """``datasets`` reads the images and labels of the data set that was converted, and knows its classes."""
    datasets = pytest.importorskip("datasets")
    place: dict[str, Any] = {"path": str(folder)}
    if not by_folder:
        files = {split: str(folder / f"data/{split}-*.parquet") for split in ("train", "test")}
        place = {"path": "parquet", "data_files": files}
    loaded = datasets.load_dataset(**place, cache_dir=str(cache))
    assert sorted(loaded) == ["test", "train"]
    features, classes = loaded["train"].features, class_names(source.targets)
    if "label" in classes:
        assert tuple(features["label"].names) == classes["label"]
    if "boxes" in classes:
        assert tuple(features["objects"]["category"].feature.names) == classes["boxes"]
    maps = [name for name in classes if name in FORMATS]
    assert all(isinstance(features[name], datasets.Image) for name in ["image", *maps])
    places = {name: index for index, name in enumerate(source.names)}
    for split in loaded.values():
        stored = split
        for name in ["image", *maps]:
            stored = stored.cast_column(name, datasets.Image(decode=False))
        for row, files in zip(split, stored, strict=True):
            index = places.pop(files["image"]["path"])
            assert np.array_equal(np.array(row["image"]), read_pixels(source.path(index)))
            assert_same_labels(files, source.labels(index), maps)
    assert not places


def assert_same_labels(row: dict[str, Any], labels: dict[str, Any], maps: list[str]) -> None:
    """The labels of a row are those of the image."""
    assert row.get("label") == labels.get("label")
    for name in maps:
        assert (row[name] is None) == (name not in labels)
        if name in labels:
            values = FORMATS[name].read(StoredFile(name, row[name]["bytes"]))
            assert np.array_equal(values, labels[name].numpy(), equal_nan=values.dtype.kind == "f")
    if "boxes" not in labels:
        assert not row.get("objects") or row["objects"]["bbox"] is None
    else:
        x0, y0, x1, y1 = labels["boxes"].xyxy.double().T.tolist() or ([], [], [], [])
        xywh = [[x, y, right - x, bottom - y] for x, y, right, bottom in zip(x0, y0, x1, y1, strict=True)]
        assert [list(box) for box in row["objects"]["bbox"]] == xywh
        assert row["objects"]["category"] == labels["boxes"].labels.tolist()


@pytest.mark.parametrize("by_folder", [True, False])
def test_datasets_reads_equal_images_and_labels(image_folder: Path, tmp_path: Path, by_folder: bool) -> None:
    (image_folder / "masks/03.png").unlink()
    document = json.loads((image_folder / "instances.json").read_text())
    document["images"][5]["boxes"] = False
    document["annotations"] = [item for item in document["annotations"] if item["image_id"] not in (6, 7)]
    del document["images"][4]["label"]
    (image_folder / "instances.json").write_text(json.dumps(document))
    source, folder = open_folder(image_folder), tmp_path / "shards"
    write_shards(source, folder, lambda *_: None, shard_rows=5)
    assert_datasets_reads(folder, source, tmp_path / "cache", by_folder=by_folder)


@pytest.mark.parametrize("layout", ARRANGED)
def test_datasets_reads_every_layout(image_folder: Path, tmp_path: Path, layout: str) -> None:
    source, folder = open_folder(ARRANGED[layout](image_folder, tmp_path / "source")), tmp_path / "shards"
    write_shards(source, folder, lambda *_: None, shard_rows=9)
    assert_datasets_reads(folder, source, tmp_path / "cache")
