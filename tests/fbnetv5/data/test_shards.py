import json
import pickle
import shutil
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UnavailableError, UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.loading import Order, Reading, batches, in_order
from fbnetv5.data.shard_format import INDEX
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.data.shards import MAX_GROUPS, Recent, ShardedImages
from fbnetv5.data.splits import open_splits, without_policies
from fbnetv5.labeling.sources import open_source

pq = pytest.importorskip("pyarrow.parquet")

SIZE = (32, 32)


@pytest.fixture(scope="module")
def converted_scenes(labelled_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo scenes of ``labelled_scenes`` in shards of five images; no test may change them."""
    folder = tmp_path_factory.mktemp("converted") / "shards"
    write_shards(open_folder(labelled_scenes), folder, lambda *_: None, shard_rows=5)
    return folder


@pytest.fixture
def shards(converted_scenes: Path, tmp_path: Path) -> Path:
    """A copy of ``converted_scenes``."""
    return Path(shutil.copytree(converted_scenes, tmp_path / "shards"))


def opened(folder: Path) -> ShardedImages:
    data = open_folder(folder)
    assert isinstance(data, ShardedImages)
    return data


def test_splits_have_the_images_that_the_folder_gives_them(converted_scenes: Path, labelled_scenes: Path) -> None:
    shards, folder = (open_splits(root, size=SIZE, targets=["label"]) for root in (converted_scenes, labelled_scenes))
    for ours, expected in zip(
        (shards.weights, shards.policies, shards.test), (folder.weights, folder.policies, folder.test), strict=True
    ):
        images = [{part[index].image.numpy().tobytes() for index in range(len(part))} for part in (ours, expected)]
        assert images[0] == images[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_and_evaluation_see_every_image_of_the_split(converted_scenes: Path, workers: int) -> None:
    images = open_splits(converted_scenes, size=SIZE, targets=["label", "mask"]).weights
    (expected,) = in_order(images, batch=len(images), reading=Reading(num_workers=workers))
    stream = batches(images, Order(batch=1, seed=2), reading=Reading(num_workers=workers))
    epoch = list(islice(stream, len(images)))
    assert sorted(int(batch.indices) for batch in epoch) == list(range(len(images)))
    for batch in epoch:
        assert torch.equal(batch.images[0], expected.images[batch.indices[0]])
        assert torch.equal(batch.targets["mask"][0], expected.targets["mask"][batch.indices[0]])
    assert [int(batch.indices) for batch in epoch] != list(range(len(images)))


def test_the_set_of_a_training_is_read_in_blocks(converted_scenes: Path) -> None:
    training, held_out = without_policies(open_splits(converted_scenes, size=SIZE, targets=["label"]), 2)
    for images in (training, held_out):
        assert images.block_sizes.sum() == len(images)  # type: ignore[attr-defined]
    content = [images[index].image.numpy().tobytes() for images in (training, held_out) for index in range(len(images))]
    assert (len(held_out), len(set(content))) == (2, len(content))


def test_only_reads_the_columns_of_its_targets(converted_scenes: Path) -> None:
    data = opened(converted_scenes).only(["boxes"])
    assert data.sample(3, SIZE).targets.keys() == {"boxes"}
    assert data.record(3).maps == {}
    assert data.record(3).label is None


def test_a_copy_for_another_process_reads_for_itself(converted_scenes: Path) -> None:
    data = opened(converted_scenes)
    first = data.sample(0, SIZE).image
    data.sample(20, SIZE)
    assert len(pickle.dumps(data)) < 20_000
    assert torch.equal(pickle.loads(pickle.dumps(data)).sample(0, SIZE).image, first)


def test_the_values_used_last_are_kept() -> None:
    reads: list[int] = []

    def read(key: int) -> int:
        reads.append(key)
        return -key

    recent: Recent[int, int] = Recent(2)
    assert [recent.get(key, read) for key in (1, 2, 1, 3, 1, 2)] == [-1, -2, -1, -3, -1, -2]
    assert reads == [1, 2, 3, 2]
    assert MAX_GROUPS > 1


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-300:] = bytes(300)
    path.write_bytes(content)


def overwrite_pixels(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"IDAT")
    path.write_bytes(content[: start + 4] + bytes(100) + content[start + 104 :])


def other_schema(path: Path) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"schema": 2}))


def other_count(path: Path) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"splits": [1, 2, 3]}))


def without_field(path: Path) -> None:
    document = json.loads(path.read_text())
    del document["shards"][0]["groups"]
    path.write_text(json.dumps(document))


SHARD = "data/train-00000-of-00005.parquet"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "truncated": (cut_off, SHARD, r"00000-of-00005\.parquet has \d+ bytes, index\.json says \d+: it is cut off"),
    "missing": (Path.unlink, SHARD, r"cannot read .*00000-of-00005\.parquet, which index\.json lists"),
    "damaged": (overwrite_middle, SHARD, r"cannot read .*00000-of-00005\.parquet: .*Copy the shard again"),
    "flipped bytes": (overwrite_pixels, SHARD, r"cannot read .*00000-of-00005\.parquet: .*CRC.*Copy the shard again"),
    "another schema": (other_schema, INDEX, "has schema 2; this version reads schema 1"),
    "contradiction": (other_count, INDEX, "contradict each other"),
    "without a field": (without_field, INDEX, "is damaged .*groups is missing"),
}


@pytest.mark.parametrize(("damage", "file", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_one_line(shards: Path, damage: Callable[[Path], Any], file: str, message: str) -> None:
    damage(shards / file)
    with pytest.raises(UserError, match=message) as caught:
        opened(shards).sample(0, SIZE)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_another_parquet_file_of_the_same_length_is_no_shard(shards: Path) -> None:
    import pyarrow as pa

    path, index = shards / SHARD, shards / INDEX
    pq.write_table(pa.table({"x": [1]}), path)
    document = json.loads(index.read_text())
    document["shards"][0]["size"] = path.stat().st_size
    index.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is no shard of this data set"):
        opened(shards).sample(0, SIZE)


def test_an_image_that_was_damaged_before_is_named_with_the_shard(image_folder: Path, tmp_path: Path) -> None:
    overwrite_pixels(image_folder / "images/07.png")
    folder = tmp_path / "shards"
    write_shards(open_folder(image_folder), folder, lambda *_: None)
    message = rf"cannot read {folder}/data/train-00000-of-00001\.parquet, '07\.png': .*\. Copy the shard again, or conv"
    with pytest.raises(UserError, match=message):
        list(in_order(opened(folder).resized(SIZE), batch=4))


def test_the_check_of_class_maps_reads_no_other_map(converted_scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, columns = pq.ParquetFile.read_row_group, set[str]()

    def record(file: Any, group: int, **options: Any) -> Any:
        columns.update(options["columns"])
        return read(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", record)
    opened(converted_scenes).only(["mask"])
    assert columns == {"image", "width", "height", "mask"}


def test_without_pyarrow_the_message_has_the_command(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UnavailableError, match=r"pip install 'fbnetv5\[data\]'"):
        open_folder(shards)


def test_shards_are_not_labelled(shards: Path) -> None:
    with pytest.raises(UserError, match="are not labelled: label image files"):
        open_source(shards, ignore_labels=False)
