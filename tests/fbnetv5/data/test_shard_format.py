"""The peer library reads what is written; the shards' own reader is tested in ``test_shards``."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fbnetv5.data.layouts import open_folder
from fbnetv5.data.shard_format import arrow_schema, columns_of, read_index
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.data.targets import class_names

pytest.importorskip("pyarrow")

CLASSES = {"label": ("a", "b"), "boxes": ("ä",), "depth": ()}


def test_the_schema_names_columns_and_classes_for_both_readers() -> None:
    schema = arrow_schema(CLASSES)
    assert schema.names == columns_of(CLASSES) == ["image", "width", "height", "label", "objects", "depth"]
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features.keys() == set(schema.names)
    assert features["label"] == {"names": ["a", "b"], "_type": "ClassLabel"}
    assert json.loads(schema.metadata[b"fbnetv5"])["classes"] == {"label": ["a", "b"], "boxes": ["ä"], "depth": []}


def test_the_index_lists_the_shards_with_rows_and_checksums(image_folder: Path, tmp_path: Path) -> None:
    written = write_shards(open_folder(image_folder), tmp_path / "shards", lambda *_: None, shard_rows=5)
    assert read_index(tmp_path / "shards") == written
    assert {shard.file for shard in written.shards} == {path.name for path in (tmp_path / "shards/data").iterdir()}
    for shard in written.shards:
        content = (tmp_path / "shards/data" / shard.file).read_bytes()
        assert (shard.size, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sum(shard.rows for shard in written.shards) == sum(written.splits) == 24


@pytest.mark.parametrize("by_folder", [True, False])
def test_datasets_reads_equal_images_and_labels(image_folder: Path, tmp_path: Path, by_folder: bool) -> None:
    datasets = pytest.importorskip("datasets")
    (image_folder / "masks/03.png").unlink()
    document = json.loads((image_folder / "instances.json").read_text())
    document["images"][5]["boxes"] = False
    document["annotations"] = [item for item in document["annotations"] if item["image_id"] not in (6, 7)]
    del document["images"][4]["label"]
    (image_folder / "instances.json").write_text(json.dumps(document))
    source, folder = open_folder(image_folder), tmp_path / "shards"
    write_shards(source, folder, lambda *_: None, shard_rows=5)
    place: dict[str, Any] = {"path": str(folder)}
    if not by_folder:
        files = {split: str(folder / f"data/{split}-*.parquet") for split in ("train", "test")}
        place = {"path": "parquet", "data_files": files}
    loaded = datasets.load_dataset(**place, cache_dir=str(tmp_path / "cache"))
    rows = [row for split in ("train", "test") for row in loaded[split]]
    raw = loaded["train"].cast_column("image", datasets.Image(decode=False))
    assert sorted(loaded) == ["test", "train"]
    assert loaded["train"].features["label"].names == list(class_names(source.targets)["label"])
    assert len(rows) == 24
    places = {name: index for index, name in enumerate(source.names)}
    names = [row["image"]["path"] for row in raw]
    for row, name in zip(rows, names, strict=False):
        labels = source.labels(places[name])
        assert np.array_equal(np.array(row["image"]), np.array(Image.open(image_folder / "images" / name)))
        assert row["label"] == labels.get("label")
        assert (row["mask"] is None) == ("mask" not in labels)
        if "mask" in labels:
            assert np.array_equal(np.array(row["mask"]), labels["mask"].numpy())
        assert np.array_equal(np.array(row["depth"]), np.array(Image.open(image_folder / "depth" / name)))
        if "boxes" not in labels:
            assert row["objects"] is None or row["objects"]["bbox"] is None
        else:
            xywh = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in labels["boxes"].xyxy.tolist()]
            assert [tuple(box) for box in row["objects"]["bbox"]] == xywh
            assert row["objects"]["category"] == labels["boxes"].labels.tolist()
