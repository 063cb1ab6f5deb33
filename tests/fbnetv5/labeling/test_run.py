"""Whole labellings: killed, resumed, refused, and a full disk."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.image_files import EXIF_ORIENTATION
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.predictions import ClassScores
from fbnetv5.labeling.assemble import read_labels
from fbnetv5.labeling.chunks import WORK
from fbnetv5.labeling.config import LabelConfig, TeacherConfig
from fbnetv5.labeling.labeller import read_image
from fbnetv5.labeling.run import open_labelling, run_labelling
from tests.fbnetv5.data.test_instance_masks import write_coco
from tests.fbnetv5.labeling.labelled_scenes import make_config, number_of, rectangle, true_mask
from tests.fbnetv5.labeling.teachers.onnx_files import constant, save_png


def label(config: LabelConfig, folder: Path) -> list[int]:
    """Label into a folder; returns the numbers of finished chunks that were reported."""
    reports: list[int] = []
    run_labelling(open_labelling(config), folder, lambda _stage, done, _total: reports.append(done))
    return reports


def contents(folder: Path) -> dict[str, str]:
    """The checksum of every file by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_unlabelled_folder_becomes_a_data_set_with_the_true_labels(tmp_path: Path) -> None:
    label(make_config(tmp_path, derive={"saliency": "seg"}), tmp_path / "out")
    assert layout_of(tmp_path / "out").name == "several tasks"
    data = open_folder(tmp_path / "out")
    assert {name: target.classes for name, target in data.targets.items()} == {
        "label": ("red", "green"),
        "mask": ("background", "red", "green"),
        "saliency": (),
    }
    for index, name in enumerate(data.names):
        labels, number = data.labels(index), number_of(name)
        assert labels["label"] == rectangle(number)[4]
        assert (labels["mask"] == true_mask(number)).float().mean() > 0.97
    assert not (tmp_path / "out" / WORK).exists()


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_several_times_gives_the_same_bytes(kills: int, tmp_path: Path) -> None:
    images = 24 * kills
    config = make_config(tmp_path, count=images, chunk=2)
    label(config, tmp_path / "whole")
    arguments = [sys.executable, "-m", "fbnetv5", "label", config.images, "--ignore-labels", "-o", "killed"]
    arguments += ["--teacher", f"cls={tmp_path}/cls.onnx", "--teacher", f"seg={tmp_path}/seg.onnx"]
    settings = tmp_path / "config.json"
    settings.write_text('{"chunk": 2, "batch": 3, "teachers": {"cls": {"threshold": 0.6}}}', encoding="utf-8")
    chunks = tmp_path / "killed" / WORK / "chunks"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - the tests run in the repository
    for number in range(1, kills + 1):
        process = subprocess.Popen([*arguments, "--config", str(settings)], cwd=tmp_path, env=environment)
        while process.poll() is None and len(list(chunks.glob("*.jsonl"))) < 4 * number:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finished = len(list(chunks.glob("*.jsonl")))
    assert 4 * kills <= finished < images // 2
    kept = {path: path.stat().st_mtime_ns for path in chunks.glob("*.jsonl")}
    _finish_and_check(config, tmp_path, kept)


def _finish_and_check(config: LabelConfig, root: Path, kept: dict[Path, int]) -> None:
    """Finish the labelling in ``root/killed``: no finished chunk is repeated, and the bytes are those of the whole."""
    times: dict[Path, int] = {}

    def report(_stage: str, done: int, total: int) -> None:
        if done == total:
            times.update({path: path.stat().st_mtime_ns for path in kept})

    run_labelling(open_labelling(config), root / "killed", report)
    assert times == kept
    assert contents(root / "killed") == contents(root / "whole")


def test_a_finished_labelling_is_not_repeated_and_other_settings_are_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert label(config, tmp_path / "out")[-1] == 3
    assert label(config, tmp_path / "out") == []
    with pytest.raises(UserError, match=r"was labelled with other settings \(teachers, threshold, chunk\)"):
        label(config.changed(threshold=0.7, chunk=5), tmp_path / "out")
    (tmp_path / "images" / "0" / "0000.png").unlink()
    with pytest.raises(UserError, match="has labels of other images, or they have changed since: remove"):
        label(config, tmp_path / "out")


def rename_a_class(root: Path) -> None:
    (root / "green").rename(root / "ant")


def replace_an_image(root: Path) -> None:
    shutil.copy(root / "red" / "0000.png", root / "red" / "0010.png")


@pytest.mark.parametrize("change", [rename_a_class, replace_an_image])
@pytest.mark.parametrize("finished", [True, False])
def test_images_and_labels_that_have_changed_since_are_refused(
    change: Callable[[Path], None], finished: bool, tmp_path: Path
) -> None:
    config = make_config(tmp_path, ignore_labels=False)
    config = config.changed(teachers={"seg": config.teachers["seg"]})
    for number, name in enumerate(("red", "green")):
        (tmp_path / "images" / str(number)).rename(tmp_path / "images" / name)

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 2 and not finished:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_labelling(open_labelling(config), tmp_path / "out", stop)
    assert (tmp_path / "out" / "labels.json").exists() == finished
    change(tmp_path / "images")
    with pytest.raises(UserError, match=r"they have changed since: remove .*out, or name another folder with -o"):
        label(config, tmp_path / "out")


def test_masks_of_instances_that_have_changed_since_are_refused(tmp_path: Path) -> None:
    annotations = write_coco(tmp_path / "coco", ("triangle", "two polygons"))
    for number in (5, 6):
        save_png(tmp_path / "coco" / "train" / f"{number}.png", torch.zeros(3, 40, 60, dtype=torch.uint8))
    config = LabelConfig(images=str(tmp_path / "coco"), derive={"saliency": "instances"})
    label(config, tmp_path / "out")
    assert label(config, tmp_path / "out") == []
    annotations.write_text(annotations.read_text(encoding="utf-8").replace("30.2", "31.2"), encoding="utf-8")
    with pytest.raises(UserError, match="has labels of other images, or they have changed since"):
        label(config, tmp_path / "out")


def test_names_that_are_not_utf_8_are_labelled(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    config = make_config(root)
    (root / "images" / "0" / "0000.png").rename(root / "images" / os.fsdecode(b"\xe9-0000.png"))
    for _ in range(2):
        label(config, tmp_path / "out")
    data = open_folder(tmp_path / "out")
    assert len(data) == 12


def test_a_folder_inside_of_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a folder outside of the images"):
        label(make_config(tmp_path), tmp_path / "images" / "out")


def test_a_folder_with_something_else_and_one_in_use_are_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(UserError, match="exists already and is no unfinished labelling"):
        label(config, tmp_path)
    labelling = open_labelling(config)

    def start_another(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            with pytest.raises(UserError, match="another fbnetv5 label is writing"):
                label(config, tmp_path / "out")

    run_labelling(labelling, tmp_path / "out", start_another)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """A context in which no file can grow beyond a number of bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [100, 1000])
def test_a_full_disk_is_one_line_and_loses_nothing(limit: int, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    label(config, tmp_path / "whole")
    labelling = open_labelling(config)
    run = {"folder": tmp_path / "killed", "report": lambda _stage, _done, _total: None}
    with small_files(limit), pytest.raises(UserError, match=r"cannot write .*: File too large. Free space"):
        run_labelling(labelling, **run)  # type: ignore[arg-type]
    _finish_and_check(config, tmp_path, {})


DETECTOR: dict[str, Any] = {"task": "det", "size": [64, 64], "decoder": "ssd", "classes": ["a"]}
OUTPUTS = {"boxes": np.array([[4, 4, 9, 9]], np.float32), "scores": np.ones(1, np.float32), "labels": np.zeros(1, int)}


def test_an_unfit_teacher_fails_before_anything_is_written(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    wrong = {"boxes": np.full((1, 4), np.nan, np.float32)}
    file = constant(tmp_path / "det.onnx", OUTPUTS | wrong, **DETECTOR)
    with pytest.raises(UserError, match=r"det\.onnx returns NaN or infinity for .*0000\.png"):
        open_labelling(config.changed(teachers={"det": TeacherConfig(teacher=str(file))}))
    file = constant(tmp_path / "det.onnx", OUTPUTS, **DETECTOR | {"classes": ["a", ""], "first_label": 1})
    with pytest.raises(UserError, match="labels from -1 to -1"):
        open_labelling(config.changed(teachers={"det": TeacherConfig(teacher=str(file))}))


def test_a_folder_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path, count=3)
    for path in (tmp_path / "images").rglob("*.png"):
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"none of the 3 images of .* is readable: cannot read"):
        open_labelling(config)


def test_an_image_that_lies_on_its_side_is_labelled_upright(tmp_path: Path) -> None:
    config = make_config(tmp_path, count=3)
    file = tmp_path / "images" / "1" / "0001.png"
    with Image.open(file) as image:
        exif = image.getexif()
        exif[EXIF_ORIENTATION] = 6  # shown after a turn by 90 degrees to the right
        image.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    label(config, tmp_path / "out")
    data = open_folder(tmp_path / "out")
    mask = data.labels(data.names.index("1__0001.png"))["mask"]
    assert (mask == true_mask(1)).float().mean() > 0.97


def test_soft_labels_are_those_of_the_teacher(tmp_path: Path) -> None:
    config = make_config(tmp_path, soft_labels=2)
    label(config, tmp_path / "out")
    data, teacher = open_folder(tmp_path / "out"), open_labelling(config).labeller.teachers["cls"][0]
    assert data.targets["soft_label"].classes == ("red", "green")
    for index, name in enumerate(data.names):
        (prediction,) = teacher.predict([read_image(data.path(index))], [name])
        assert isinstance(prediction, ClassScores)
        soft = data.labels(index)["soft_label"]
        assert torch.equal(soft.probabilities, prediction.probabilities.sort(descending=True).values)
        assert soft.class_ids[0] == rectangle(number_of(name))[4]
    summary, settings = read_labels(tmp_path / "out")
    assert (summary.soft_labels, settings["soft_labels"]) == (12, 2)


def test_images_that_have_a_class_get_a_soft_label_as_well(tmp_path: Path) -> None:
    config = make_config(tmp_path).changed(ignore_labels=False, soft_labels=1)
    (tmp_path / "images" / "0").rename(tmp_path / "images" / "red")
    (tmp_path / "images" / "1").rename(tmp_path / "images" / "green")
    label(config, tmp_path / "out")
    summary, _ = read_labels(tmp_path / "out")
    assert summary.labelled["cls"] == {"kept": 12, "teacher": 0, "derived": 0}
    assert summary.soft_labels == 12
