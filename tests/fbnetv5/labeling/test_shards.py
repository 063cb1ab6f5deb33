"""Labelling directly into Parquet shards: the result is that of labelling into a folder and converting it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.shard_format import read_index
from fbnetv5.data.shard_writer import write_shards
from fbnetv5.labeling.assemble import read_labels
from fbnetv5.labeling.chunks import WORK
from fbnetv5.labeling.config import LabelConfig, TeacherConfig
from fbnetv5.labeling.run import open_labelling, run_labelling
from tests.fbnetv5.labeling.labelled_scenes import make_config
from tests.fbnetv5.labeling.teachers.onnx_files import constant, save_png
from tests.fbnetv5.labeling.test_run import DETECTOR, OUTPUTS, contents

pytest.importorskip("pyarrow")

ROWS = 5


def quiet(*_: Any) -> None:
    """Report no progress."""


def label(config: LabelConfig, folder: Path, *, shards: bool = True, report: Any = quiet) -> None:
    run_labelling(open_labelling(config), folder, report, shards=shards, shard_rows=ROWS if shards else None)


def config_of_four_tasks(root: Path, **fields: Any) -> LabelConfig:
    """As ``make_config``, with a detector of odd boxes, soft labels and salient pixels as well."""
    boxes = torch.tensor([[4.123, 4.456, 9.789, 63.5], [0.0, 0.004, 12.339, 9.99]]).numpy()
    outputs = {"boxes": boxes, "scores": OUTPUTS["scores"].repeat(2), "labels": OUTPUTS["labels"].repeat(2)}
    config = make_config(root, soft_labels=1, derive={"saliency": "seg"}, **fields)
    detector = constant(root / "det.onnx", outputs, **DETECTOR)
    return config.changed(teachers={**config.teachers, "det": TeacherConfig(teacher=str(detector))})


def labels_by_name(folder: Path) -> dict[str, Any]:
    """All labels and the split of each image of a data set in shards."""
    data = open_folder(folder)
    return {
        data.path(index).rpartition(", ")[2]: (data.record(index).size, data.labels(index))
        for index in range(len(data))
    }


@pytest.mark.parametrize("keep", [False, True], ids=["images", "data set"])
def test_shards_have_the_bytes_of_those_of_the_labelled_folder(keep: bool, tmp_path: Path) -> None:
    config = config_of_four_tasks(tmp_path, count=24)
    if keep:  # an ImageFolder with a test split of its own
        for split, number in (("train", 0), ("val", 1)):
            for colour in ("red", "green"):
                (tmp_path / "images" / split / colour).mkdir(parents=True)
            for place, path in enumerate(sorted((tmp_path / "images" / str(number)).iterdir())):
                path.rename(tmp_path / "images" / split / ("red", "green")[place % 2] / path.name)
            (tmp_path / "images" / str(number)).rmdir()
        config = config.changed(ignore_labels=False)
    label(config, tmp_path / "shards")
    label(config, tmp_path / "folder", shards=False)
    write_shards(open_folder(tmp_path / "folder"), tmp_path / "converted", quiet, shard_rows=ROWS)
    assert contents(tmp_path / "shards" / "data") == contents(tmp_path / "converted" / "data")
    ours, theirs = read_index(tmp_path / "shards"), read_index(tmp_path / "converted")
    assert ours.model_copy(update={"source_sha256": theirs.source_sha256}) == theirs
    assert len(ours.shards) >= 5
    assert set(ours.classes) == {"label", "boxes", "soft_label", "mask", "saliency"}
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["data", "index.json", "labels.json"]
    summary, _ = read_labels(tmp_path / "shards")
    assert summary.to_json()["tasks"] == read_labels(tmp_path / "folder")[0].to_json()["tasks"]


@pytest.mark.parametrize("shards", [False, True])
def test_a_box_narrower_than_a_hundredth_of_a_pixel_is_kept(shards: bool, tmp_path: Path) -> None:
    for number in range(6):
        save_png(tmp_path / f"yolo/images/train/{number}.png", torch.zeros(3, 48, 64, dtype=torch.uint8))
        label_file = tmp_path / f"yolo/labels/train/{number}.txt"
        label_file.parent.mkdir(parents=True, exist_ok=True)
        label_file.write_text("0 0.3 0.3 0.00002 0.2\n1 0.99999 0.5 0.00002 0.2\n", encoding="utf-8")
    (tmp_path / "yolo/data.yaml").write_text("train: images/train\nnames: [a, b]\n", encoding="utf-8")
    label(LabelConfig(images=str(tmp_path / "yolo"), derive={"cls": "largest-box"}), tmp_path / "out", shards=shards)
    boxes = open_folder(tmp_path / "out").labels(0)["boxes"].xyxy
    assert (boxes[:, 2] > boxes[:, 0]).all()
    assert torch.allclose(boxes, torch.tensor([[19.2, 9.6, 19.2, 19.2], [64, 19.2, 64, 28.8]]), atol=0.011)


@pytest.mark.parametrize("shards", [False, True])
def test_crowds_of_the_source_are_kept(shards: bool, image_folder: Path, tmp_path: Path) -> None:
    path = image_folder / "instances.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    first = document["annotations"][0]
    crowd = {**first, "id": 10**6, "bbox": [1.0, 2.0, 30.0, 20.0], "area": 600.0, "iscrowd": 1}
    document["annotations"].append(crowd)
    path.write_text(json.dumps(document), encoding="utf-8")
    label(LabelConfig(images=str(image_folder), derive={"edges": "seg"}), tmp_path / "new", shards=shards)
    new = open_folder(tmp_path / "new")
    records = [new.record(index) for index in range(len(new))]
    assert new.has_ignored_boxes
    assert [record.ignored_boxes for record in records if record.ignored_boxes] == [[(1.0, 2.0, 31.0, 22.0)]]
    old = open_folder(image_folder)
    assert sum(len(record.boxes or ()) for record in records) == sum(
        len(old.record(index).boxes or ()) for index in range(len(old))
    )


def test_unreadable_images_are_left_out_even_if_they_are_a_whole_shard(tmp_path: Path) -> None:
    config = make_config(tmp_path, count=24)
    label(config, tmp_path / "whole")
    first = [name.strip("'") for name in labels_by_name(tmp_path / "whole")][:ROWS]
    for name in [*first, "1__0001.png"]:
        (tmp_path / "images" / name.replace("__", "/")).write_bytes(b"damaged")
    label(config, tmp_path / "shards")
    label(config, tmp_path / "folder", shards=False)
    index = read_index(tmp_path / "shards")
    assert index.shards[0].rows == 0
    write_shards(open_folder(tmp_path / "folder"), tmp_path / "converted", quiet, shard_rows=ROWS)
    ours, theirs = labels_by_name(tmp_path / "shards"), labels_by_name(tmp_path / "converted")
    assert list(ours) == list(theirs)
    for (size, labels), (other_size, others) in zip(ours.values(), theirs.values(), strict=True):
        assert size == other_size
        assert labels["label"] == others["label"]
        assert torch.equal(labels["mask"], others["mask"])
    left_out = (tmp_path / "folder" / "left-out.jsonl").read_text().splitlines()
    assert sorted((tmp_path / "shards" / "left-out.jsonl").read_text().splitlines()) == sorted(left_out)
    assert len(left_out) == len({*first, "1__0001.png"})


KILLS = (("chunks", 5), ("shards", 3), ("chunks", 18))
"""What the labelling has written when it is killed."""


@pytest.mark.parametrize("kills", [KILLS[1:2], pytest.param(KILLS, marks=pytest.mark.slow)], ids=len)
def test_a_labelling_that_is_killed_gives_the_same_bytes(kills: tuple[tuple[str, int], ...], tmp_path: Path) -> None:
    config = make_config(tmp_path, count=48, chunk=2)
    label(config, tmp_path / "whole")
    program = (
        "import sys; from pathlib import Path; from tests.fbnetv5.labeling.test_shards import label; "
        "from fbnetv5.labeling.config import LabelConfig; "
        "label(LabelConfig.model_validate_json(Path(sys.argv[1]).read_text()), Path('killed'))"
    )
    (tmp_path / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - the tests run in the repository
    work = tmp_path / "killed" / WORK
    for place, count in kills:
        arguments = [sys.executable, "-c", program, "config.json"]
        process = subprocess.Popen(arguments, cwd=tmp_path, env=environment)
        while process.poll() is None and len(list((work / place).glob("*.json*"))) < count:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "data").glob("*.parquet")}
    assert len(kept) >= 3
    label(config, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    entries = sum(path.stat().st_mtime_ns == kept[path] for path in kept)
    assert entries >= len(kept) - 1  # one may have been written and not entered


def test_a_finished_labelling_is_kept_and_the_other_form_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    label(config, tmp_path / "shards")
    before = contents(tmp_path / "shards")
    run_labelling(open_labelling(config), tmp_path / "shards", quiet, shards=True)
    assert contents(tmp_path / "shards") == before
    with pytest.raises(UserError, match=r"was labelled with other settings \(shard_rows\)"):
        label(config, tmp_path / "shards", shards=False)


def test_a_shard_that_is_lost_before_the_end_is_named(tmp_path: Path) -> None:
    config = make_config(tmp_path, count=24, chunk=2)

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(config, tmp_path / "shards", report=stop)
    lost, *_ = (tmp_path / "shards" / "data").glob("*.parquet")
    lost.unlink()
    with pytest.raises(UserError, match=r"train-00000.*was removed or changed since it was written: remove"):
        label(config, tmp_path / "shards")


def test_maps_wait_only_for_their_shard(tmp_path: Path) -> None:
    most = 0

    def count(*_: Any) -> None:
        nonlocal most
        most = max(most, len(list((tmp_path / "shards" / WORK).rglob("*.png"))))

    label(make_config(tmp_path, count=24, chunk=2), tmp_path / "shards", report=count)
    assert 0 < most <= ROWS + 1
