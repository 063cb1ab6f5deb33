import json
import multiprocessing
import os
import resource
import shutil
import signal
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from export.errors import UserError
from fbnetv5.data import shard_writer
from fbnetv5.data.labelled_images import ImageRecord, LabelledImages
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.sample import Sample
from fbnetv5.data.shape_maps import Shape, ShapeMaps
from fbnetv5.data.shard_format import INDEX
from fbnetv5.data.shard_writer import plan, source_digest, write_shards
from fbnetv5.data.shards import ShardedImages
from fbnetv5.data.splits import split_of
from fbnetv5.data.targets import CLASS_MAP, Target, class_names
from tests.fbnetv5.data.rearrange import ARRANGED, as_yolo

pytest.importorskip("pyarrow")

SIZE = (64, 64)


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def converted(source: Path, folder: Path, shard_rows: int | None = 5) -> ShardedImages:
    """The shards of a data set, opened."""
    write_shards(open_folder(source), folder, quiet, shard_rows=shard_rows)
    shards = open_folder(folder)
    assert isinstance(shards, ShardedImages)
    return shards


def name_of(shards: ShardedImages, index: int) -> str:
    """The name of an image in shards."""
    place, _, name = shards.path(index).partition(", ")
    assert "/data/" in place
    return str(literal_eval(name))


def assert_equal(sample: Sample, expected: Sample) -> None:
    assert torch.equal(sample.image, expected.image)
    assert sample.targets.keys() == expected.targets.keys()
    for name, value in sample.targets.items():
        torch.testing.assert_close(value, expected.targets[name], rtol=0, atol=0, equal_nan=True)


def assert_same_data(shards: ShardedImages, source: Path) -> None:
    """Every image and label of the source, and its split, is in the shards."""
    original = open_folder(source)
    assert class_names(shards.targets) == class_names(original.targets)
    places = {name: index for index, name in enumerate(original.names)}
    names = [name_of(shards, index) for index in range(len(shards))]
    assert sorted(names) == sorted(places)
    for index, name in enumerate(names):
        assert_equal(shards.sample(index, SIZE), original.sample(places[name], SIZE))
        assert shards.record(index).size == original.record(places[name]).size
        if not original.test:
            assert index in shards.splits[split_of(name)]


def test_shards_contain_the_images_and_all_labels_of_a_folder(image_folder: Path, tmp_path: Path) -> None:
    shards = converted(image_folder, tmp_path / "shards")
    assert layout_of(tmp_path / "shards").name == "Parquet shards"
    assert len(shards.targets) == 8
    assert_same_data(shards, image_folder)


@pytest.mark.parametrize("layout", ARRANGED)
def test_other_layouts_keep_their_labels_and_their_own_test_split(
    image_folder: Path, tmp_path: Path, layout: str
) -> None:
    source = ARRANGED[layout](image_folder, tmp_path / "source")
    assert layout_of(source).name == layout
    shards = converted(source, tmp_path / "shards")
    assert_same_data(shards, source)
    test = {name_of(shards, index) for index in shards.splits[2]}
    assert test == open_folder(source).test or layout == "Label Studio"  # its file has no splits


def test_ignored_boxes_are_kept(image_folder: Path, tmp_path: Path) -> None:
    document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
    for row in document["annotations"][::3]:
        row["iscrowd"] = 1
    (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    shards, original = converted(image_folder, tmp_path / "shards"), open_folder(image_folder)
    assert_same_data(shards, image_folder)
    ours, expected = (data.only(["boxes"]).resized(SIZE) for data in (shards, original))
    assert class_names(ours.targets) == class_names(expected.targets)
    assert len(ours.targets) == 2
    for index in range(len(shards)):
        assert_equal(ours[index], expected[original.names.index(name_of(shards, index))])


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0.", exclude_categories=["C"]), min_size=1)
BOXES = st.lists(st.tuples(*[st.floats(0, 0.5, width=32)] * 2, *[st.floats(0.125, 0.5, width=32)] * 2), max_size=3)


def draw_folder(root: Path, images: dict[str, tuple[tuple[int, int], list[Any] | None]]) -> None:
    """A folder for several tasks with images of these names, sizes (H, W) and boxes in units of the image."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, ((height, width), boxes)) in enumerate(images.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        if number % 2 == 0:
            Image.fromarray(pixels[..., 0] % 3).save(root / "masks" / f"{name}.png")
        record = {"id": number, "file_name": f"{name}.png", "height": height, "width": width}
        records.append(record | ({"boxes": False} if boxes is None else {}) | {"label": "a"})
        for x, y, w, h in boxes or ():
            bbox = [x * width, y * height, w * width, h * height]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, "bbox": bbox})
    document: dict[str, Any] = {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "ä"}]}
    document |= {"mask_classes": ["x", "y", "z"]}
    (root / "instances.json").write_text(json.dumps(document), encoding="utf-8")


@given(
    st.dictionaries(
        NAMES.map(lambda name: name[:20]),
        st.tuples(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.none() | BOXES),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_size_name_and_number_of_boxes_round_trips(tmp_path: Path, images: dict[str, Any]) -> None:
    for folder in ("source", "shards"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    draw_folder(tmp_path / "source", images)
    assert_same_data(converted(tmp_path / "source", tmp_path / "shards"), tmp_path / "source")


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    draw_folder(tmp_path / "source", {"a": ((8, 8), [])})
    Image.new("RGB", (8, 8)).save(tmp_path / "source/images" / os.fsdecode(b"\xff.png"))
    shards = converted(tmp_path / "source", tmp_path / "shards")
    assert {name_of(shards, index) for index in range(2)} == {"a.png", "\\udcff.png"}


def test_a_plan_has_every_image_once_and_shards_of_one_length() -> None:
    shards = plan([range(7), range(7, 12)], "train", 5)
    assert [shard.file for shard in shards] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert [[list(part) for part in shard.parts] for shard in shards] == [
        [[0, 1, 2, 3, 4], []],
        [[5, 6], [7, 8, 9]],
        [[], [10, 11]],
    ]


def test_row_groups_end_at_their_limits_and_at_the_end_of_a_split(image_folder: Path) -> None:
    data = open_folder(image_folder)
    (shard,) = plan([range(8), range(8, 13)], "train", 100)
    with mock.patch.object(shard_writer, "MAX_GROUP_ROWS", 3):
        assert [len(rows) for rows in shard_writer.row_groups(data, shard.parts)] == [3, 3, 2, 3, 2]
    with mock.patch.object(shard_writer, "GROUP_BYTES", 1):
        assert [len(rows) for rows in shard_writer.row_groups(data, shard.parts)] == [1] * 13


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class StopError(Exception):
    """Stands for a killed process."""


def test_an_interrupted_conversion_continues_to_the_same_bytes(image_folder: Path, tmp_path: Path) -> None:
    converted(image_folder, tmp_path / "whole")

    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        write_shards(open_folder(image_folder), tmp_path / "shards", stop, shard_rows=5)
    first, second = sorted((tmp_path / "shards/data").iterdir())
    kept = first.stat().st_mtime_ns
    second.write_bytes(b"half")
    converted(image_folder, tmp_path / "shards")
    assert first.stat().st_mtime_ns == kept
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "whole")
    index = converted(image_folder, tmp_path / "shards")
    assert len(index) == 24
    assert first.stat().st_mtime_ns == kept


def test_two_conversions_into_one_folder_are_refused(image_folder: Path, tmp_path: Path) -> None:
    def convert_too(stage: str, done: int, total: int) -> None:
        temporary.parent.mkdir(exist_ok=True)
        temporary.touch()  # as this conversion would be writing it
        with pytest.raises(UserError, match=r"another fbnetv5 convert is writing .*shards: wait for it"):
            write_shards(open_folder(image_folder), tmp_path / "shards", quiet, shard_rows=5)
        assert temporary.exists()

    temporary = tmp_path / "shards" / "data" / ".one.parquet.1.tmp"
    write_shards(open_folder(image_folder), tmp_path / "shards", convert_too, shard_rows=5)
    assert len(open_folder(tmp_path / "shards")) == 24
    assert not (tmp_path / "shards" / shard_writer.WORK).exists()


def convert_until_killed(source: Path, folder: Path, rows: int) -> None:
    """Convert in this process, which is killed while it makes a row of the shard."""
    row_of, made = shard_writer.row_of, count()

    def row_or_end(data: LabelledImages, index: int) -> dict[str, Any]:
        if next(made) == rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return row_of(data, index)

    with mock.patch.object(shard_writer, "row_of", row_or_end), mock.patch.object(shard_writer, "MAX_GROUP_ROWS", 1):
        write_shards(open_folder(source), folder, quiet, shard_rows=5)


def test_a_killed_conversion_leaves_whole_shards_and_continues_to_the_same_bytes(
    image_folder: Path, tmp_path: Path
) -> None:
    arguments = (image_folder, tmp_path / "shards", 8)
    process = multiprocessing.get_context("fork").Process(target=convert_until_killed, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    complete, part = sorted((tmp_path / "shards/data").iterdir(), key=lambda path: path.name[0] == ".")
    assert (complete.name, part.suffix) == ("train-00000-of-00005.parquet", ".tmp")
    with pytest.raises(UserError, match=r"without its index\.json, .* Repeat fbnetv5 convert"):
        open_folder(tmp_path / "shards")
    with mock.patch.object(shard_writer, "MAX_GROUP_ROWS", 1):
        converted(image_folder, tmp_path / "whole")
        converted(image_folder, tmp_path / "shards")
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_folder_of_something_else_is_refused(image_folder: Path, tmp_path: Path, unfinished: bool) -> None:
    other = tmp_path / "other"
    draw_folder(other, {"a": ((8, 8), [])})
    converted(image_folder, tmp_path / "shards")
    if unfinished:
        (tmp_path / "shards" / INDEX).unlink()
    with pytest.raises(UserError, match="name another folder with -o"):
        converted(other, tmp_path / "shards")


def relabel(folder: Path) -> None:
    document = json.loads((folder / "instances.json").read_text())
    document["annotations"][0]["bbox"][0] += 1
    (folder / "instances.json").write_text(json.dumps(document))


def repaint(folder: Path) -> None:
    path = folder / "masks/03.png"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [relabel, repaint])
@pytest.mark.parametrize("unfinished", [True, False])
def test_a_source_that_has_changed_is_refused(
    image_folder: Path, tmp_path: Path, change: Callable[[Path], None], unfinished: bool
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if unfinished and done == 2:
            raise StopError

    with suppress(StopError):
        write_shards(open_folder(image_folder), tmp_path / "shards", stop, shard_rows=5)
    change(image_folder)
    with pytest.raises(UserError, match=r"the source has changed since: remove .*shards, or name another folder"):
        converted(image_folder, tmp_path / "shards")


def test_tar_files_that_have_changed_are_refused(image_folder: Path, tmp_path: Path) -> None:
    source = ARRANGED["WebDataset tar files"](image_folder, tmp_path / "source")
    converted(source, tmp_path / "shards")
    assert len(converted(source, tmp_path / "shards")) == 24
    os.utime(next(source.rglob("*.tar")), ns=(0, 0))
    with pytest.raises(UserError, match=r"the source has changed since"):
        converted(source, tmp_path / "shards")


def test_images_without_a_label_file_are_background_and_noticed_if_they_get_one(
    image_folder: Path, tmp_path: Path
) -> None:
    source = as_yolo(image_folder, tmp_path / "source", polygons=True)
    label = source / "labels/train/04.txt"
    label.unlink()
    shards = converted(source, tmp_path / "shards", None)
    names = [name_of(shards, index) for index in range(len(shards))]
    assert shards.labels(names.index("images/train/04.png"))["mask"].max() == 0
    assert_same_data(shards, source)
    label.write_text("0 0.1 0.1 0.9 0.1 0.5 0.9\n", encoding="utf-8")
    with pytest.raises(UserError, match="the source has changed since"):
        converted(source, tmp_path / "shards")


def test_drawn_shapes_that_have_changed_are_noticed(tmp_path: Path) -> None:
    path = str(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(path)
    record, target = (
        ImageRecord(path=path, size=(8, 8), maps={"mask": path}),
        Target(kind=CLASS_MAP, classes=("a", "b")),
    )
    digests = []
    for y in (0.0, 4.0, 4.0):
        shapes = ShapeMaps({path: [Shape(class_id=1, polygons=((0.0, 0.0, 6.0, y, 6.0, 6.0),))]}, {path: (8, 8)})
        digests.append(source_digest(LabelledImages({"a": record}, {"mask": target}, readers={"mask": shapes})))
    assert digests[0] != digests[1] == digests[2]


def test_a_lost_shard_of_a_finished_conversion_is_written_again(image_folder: Path, tmp_path: Path) -> None:
    converted(image_folder, tmp_path / "shards")
    before = files_of(tmp_path / "shards")
    kept, short, lost, *_ = sorted((tmp_path / "shards/data").iterdir())
    lost.unlink()
    short.write_bytes(b"short")
    time = kept.stat().st_mtime_ns
    converted(image_folder, tmp_path / "shards", None)
    assert files_of(tmp_path / "shards") == before
    assert kept.stat().st_mtime_ns == time


def test_shards_are_not_converted_again(image_folder: Path, tmp_path: Path) -> None:
    shards = converted(image_folder, tmp_path / "shards")
    with pytest.raises(UserError, match="in Parquet shards already"):
        write_shards(shards, tmp_path / "again", quiet)


@contextmanager
def max_file_size(size: int) -> Iterator[None]:
    """A context in which no file of this process can grow beyond a size, like on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_shard(image_folder: Path, tmp_path: Path) -> None:
    data = open_folder(image_folder)
    with max_file_size(20_000), pytest.raises(UserError, match=r"cannot write .*train-00000.*Free space") as caught:
        write_shards(data, tmp_path / "shards", quiet)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "shards/data").iterdir())
    assert_same_data(converted(image_folder, tmp_path / "shards", None), image_folder)


def test_a_missing_image_is_named(image_folder: Path, tmp_path: Path) -> None:
    data = open_folder(image_folder)
    (image_folder / "images/07.png").unlink()
    with pytest.raises(UserError, match=r"cannot read .*07\.png"):
        write_shards(data, tmp_path / "shards", quiet, shard_rows=5)
