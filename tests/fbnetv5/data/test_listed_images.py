import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.listed_images import read_ids
from tests.fbnetv5.data.multi_task_folders import IDS, SIDE, make_nyud

FIRST = IDS[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_nyud(tmp_path / "NYUD_MT")


def append(path: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text((root / path).read_text() + text)


def remove_labels(root: Path) -> None:
    for folder in ("segmentation", "depth", "normals", "edge"):
        shutil.rmtree(root / folder)


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no list": (lambda root: (root / "gt_sets/val.txt").unlink(), r"cannot read .*gt_sets/val\.txt: No such file"),
    "empty list": (lambda root: (root / "gt_sets/val.txt").write_text("\n"), r"val\.txt lists no image"),
    "not text": (lambda root: (root / "gt_sets/val.txt").write_bytes(b"\xff"), r"val\.txt is not text in UTF-8"),
    "no such image": (append("gt_sets/train.txt", "none\n"), r"lists 'none', and .*images has no none\.jpg"),
    "in both lists": (append("gt_sets/val.txt", FIRST), rf"val\.txt lists '{FIRST}', which is listed already"),
    "no labels": (remove_labels, "no label of any listed image in segmentation/, depth/, normals/, edge/"),
    "damaged image": (lambda root: (root / f"images/{FIRST}.jpg").write_bytes(b"no"), rf"cannot read .*{FIRST}\.jpg"),
}


@pytest.mark.parametrize(("change", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(root: Path, change: Callable[[Path], object], message: str) -> None:
    change(root)
    with pytest.raises(UserError, match=message) as caught:
        open_folder(root)
    assert "\n" not in str(caught.value)


BAD_LABELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "damaged": (lambda root: (root / f"depth/{FIRST}.npy").write_bytes(b"no"), rf"cannot read .*depth/{FIRST}\.npy"),
    "other size": (
        lambda root: np.save(root / f"edge/{FIRST}.npy", np.zeros((3, 4))),
        rf"edge/{FIRST}\.npy is 4x3, its image is 64x64\. Replace the file or remove it",
    ),
    "two axes": (lambda root: np.save(root / f"normals/{FIRST}.npy", np.zeros(SIDE)), "not numbers in 3 axes"),
    "colours": (lambda root: Image.new("RGB", SIDE).save(root / f"segmentation/{FIRST}.png"), "is in colour"),
    "unknown class": (
        lambda root: Image.new("L", SIDE, 41).save(root / f"segmentation/{FIRST}.png"),
        "holds class id 41, 40 mask classes are named",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_a_bad_label_is_refused_when_its_image_is_read(
    root: Path, change: Callable[[Path], object], message: str
) -> None:
    change(root)
    folder = open_folder(root)
    folder.sample(1, SIDE)
    with pytest.raises(UserError, match=message) as caught:
        folder.sample(0, SIDE)
    assert "\n" not in str(caught.value)
    assert FIRST in str(caught.value)


def test_an_image_without_a_label_trains_the_other_targets(root: Path) -> None:
    (root / f"depth/{FIRST}.npy").unlink()
    shutil.rmtree(root / "edge")
    folder = open_folder(root)
    assert set(folder.targets) == {"mask", "depth", "normals"}
    assert set(folder.sample(0, SIDE).targets) == {"mask", "normals"}


def test_opening_reads_no_label_and_is_fast(tmp_path: Path) -> None:
    root = tmp_path / "NYUD_MT"
    for name in ("gt_sets", "images", "segmentation"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "images/0.jpg")
    for number in range(2000):
        if number:
            (root / f"images/{number}.jpg").hardlink_to(root / "images/0.jpg")
        (root / f"segmentation/{number}.png").write_bytes(b"no image")
    for name, numbers in {"train": range(1500), "val": range(1500, 2000)}.items():
        (root / f"gt_sets/{name}.txt").write_text("\n".join(map(str, numbers)))
    start = time.process_time()
    assert len(open_folder(root)) == 2000
    assert time.process_time() - start < 2


def test_blank_lines_and_spaces_are_no_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"2008_01 \r\n\r\n a b\n")
    assert read_ids(tmp_path / "a.txt") == ["2008_01", "a b"]
