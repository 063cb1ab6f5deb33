import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.scenes import CLASSES
from fbnetv5.data.yolo import label_path, read_names
from tests.fbnetv5.data.rearrange import SPLITS, as_yolo

NAMES = [f"val/{number:02d}.png" for number in SPLITS["val"]]


@pytest.fixture
def root(image_folder: Path, tmp_path: Path) -> Path:
    return as_yolo(image_folder, tmp_path / "yolo")


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "data.yaml").read_text(encoding="utf-8")
    assert old in text
    (root / "data.yaml").write_text(text.replace(old, new), encoding="utf-8")


def test_val_is_the_test_split_and_nothing_is_noted(root: Path) -> None:
    data = open_folder(root)
    assert data.test == {f"images/{name}" for name in NAMES}
    assert (data.targets["boxes"].classes, data.notes, set(data.targets)) == (CLASSES["boxes"], (), {"boxes"})


def test_polygons_give_the_boxes_and_a_class_map(image_folder: Path, tmp_path: Path) -> None:
    data, boxes = open_folder(as_yolo(image_folder, tmp_path / "p", polygons=True)), open_folder(image_folder)
    assert data.targets["mask"].classes == ("background", *CLASSES["boxes"])
    data = pickle.loads(pickle.dumps(data))
    for index in range(len(data)):
        labels = data.labels(index)
        torch.testing.assert_close(labels["boxes"].xyxy, boxes.labels(index)["boxes"].xyxy)
        for (x0, y0, x1, y1), label in zip(labels["boxes"].xyxy.int().tolist(), labels["boxes"].labels, strict=True):
            assert set(labels["mask"][y0:y1, x0:x1].unique().tolist()) <= {int(label) + 1, 255}


def test_a_class_called_background_is_that_of_the_class_map(image_folder: Path, tmp_path: Path) -> None:
    root = as_yolo(image_folder, tmp_path / "p", polygons=True)
    first, second, *others = CLASSES["boxes"]
    edit(root, f'  1: "{second}"', '  1: "background"')
    data = open_folder(root)
    assert data.targets["mask"].classes == ("background", first, *others)
    for index in range(len(data)):
        labels = data.labels(index)
        ids = {0 if label == 1 else label + (label < 1) for label in labels["boxes"].labels.tolist()}
        assert set(labels["mask"].unique().tolist()) <= {0, 255, *ids}


def test_an_image_with_a_box_among_its_polygons_has_no_class_map(image_folder: Path, tmp_path: Path) -> None:
    root = as_yolo(image_folder, tmp_path / "p", polygons=True)
    (root / "labels/train/03.txt").write_text("0 0.5 0.5 0.5 0.5\n", encoding="utf-8")
    (root / "labels/train/04.txt").unlink()
    data = open_folder(root)
    assert "mask" not in data.labels(3)
    assert data.labels(4)["mask"].max() == 0
    assert data.notes == ("images without a label file, taken as background: 1",)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_link_to_the_training_images_is_no_test_split(root: Path, split: str) -> None:
    edit(root, "val: images/val", f"{split}: images/linked")
    (root / "images/linked").symlink_to("train")
    (root / "labels/linked").symlink_to("train")
    data = open_folder(root)
    assert (len(data), data.test) == (18, frozenset())
    assert f"images of {split} that train has too, used for training only: 18" in data.notes


def test_a_link_within_a_split_is_an_image_of_its_own(root: Path) -> None:
    (root / "images/val/copy.jpg").symlink_to(next(iter(sorted((root / "images/val").iterdir()))).name)
    shutil.copy(next(iter(sorted((root / "labels/val").iterdir()))), root / "labels/val/copy.txt")
    data = open_folder(root)
    assert (len(data), len(data.test), data.notes) == (25, 7, ())


def as_roboflow(root: Path) -> None:
    for old, new in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (root / new).mkdir(exist_ok=True)
            (root / kind / old).rename(root / new / kind)
    (root / "images").rmdir()
    (root / "labels").rmdir()
    names = json.dumps(list(CLASSES["boxes"]))
    text = f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 10\nnames: {names}\n"
    (root / "data.yaml").write_text(text, encoding="utf-8-sig")
    (root / "test/images").mkdir(parents=True)


def as_lists(root: Path) -> None:
    for split in SPLITS:
        names = sorted(path.name for path in (root / "images" / split).iterdir())
        lines = [f"./images/{split}/{name}" if split == "train" else f"images\\{split}\\{name}" for name in names]
        (root / f"{split}.txt").write_text("\r\n".join(lines), encoding="utf-8-sig")
        edit(root, f"images/{split}", f"{split}.txt")


FORMS: dict[str, Callable[[Path], object]] = {
    "Roboflow": as_roboflow,
    "lists of images": as_lists,
    "lists of folders": lambda root: edit(root, "train: images/train", "train: [images/train]"),
    "a path of another machine": lambda root: edit(root, "path: yolo", "path: /content/data"),
    "another name": lambda root: (root / "data.yaml").rename(root / "coco8.yaml"),
    "its own folder": lambda root: edit(root, "path: yolo", "path: ."),
    "no path": lambda root: edit(root, "path: yolo\n", ""),
    "absolute": lambda root: edit(root, "path: yolo", f"path: {root}"),
}


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_the_description_gives_the_same_images(root: Path, change: Callable[[Path], object]) -> None:
    expected = open_folder(root)
    change(root)
    data = open_folder(root)
    assert layout_of(root).name == "YOLO"
    assert (len(data), len(data.test), data.targets) == (24, 6, expected.targets)
    for index in range(24):
        assert torch.equal(data.labels(index)["boxes"].xyxy, expected.labels(index)["boxes"].xyxy)


def test_images_of_both_splits_are_used_for_training_only(root: Path) -> None:
    edit(root, "val: images/val", "val: [images/val, images/train]")
    data = open_folder(root)
    assert (len(data), len(data.test)) == (24, 6)
    assert data.notes == ("images of val that train has too, used for training only: 18",)


def test_a_test_split_without_label_files_is_left_out(root: Path) -> None:
    shutil.rmtree(root / "labels/val")
    data = open_folder(root)
    assert (len(data), data.test) == (18, frozenset())
    assert data.notes == (
        "images of val without any label file left out: 6",
        "image files not used: 6 images/val/*.png",
    )


def test_the_label_file_is_beside_the_image_or_in_labels() -> None:
    assert label_path("/a/images/b/images/c/d.x.jpg") == "/a/images/b/labels/c/d.x.txt"
    assert label_path("/a/images/d.JPG") == "/a/labels/d.txt"
    assert label_path("/a/my.images/d.jpg") == "/a/my.images/d.txt"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"names": ["a", 1, "c"]}, ("a", "1", "c")),
        ({"names": {1: "b", 0: "a"}, "nc": 2}, ("a", "b")),
        ({"names": {"0": "ö"}}, ("ö",)),
        ({"nc": 2}, ("class 0", "class 1")),
        ({"names": []}, 'has no "names"'),
        ({"names": {1: "a", 2: "b"}}, 'keys of "names" must be 0 to 1'),
        ({"names": ["a", False]}, "contains False, which is no text. Write names such as no in quotes"),
        ({"names": ["a", "b", "a"]}, "names 'a' twice"),
        ({"names": ["a"], "nc": 2}, '"nc" is 2 and there are 1 "names"'),
    ],
)
def test_names_are_a_list_or_a_map(document: dict[str, object], expected: tuple[str, ...] | str) -> None:
    if isinstance(expected, tuple):
        assert read_names(document, "here") == expected
    else:
        with pytest.raises(UserError, match=expected):
            read_names(document, "here")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such split": (lambda root: edit(root, "val: images/val", "val: images/v"), "\"val\" is 'images/v', which is"),
    "each folder searched once": (
        lambda root: edit(
            root, "path: yolo\ntrain: images/train\nval: images/val", "path: .\ntrain: images/t\nval: images/v"
        ),
        r"which is in none of (?P<root>\S+yolo), (?!(?P=root)\b)\S+\. Correct",
    ),
    "no training": (lambda root: edit(root, "train: images/train\n", ""), '"train" names no image'),
    "no labels": (lambda root: shutil.rmtree(root / "labels"), r"has a label file, such as \S+labels/train/00\.txt"),
    "one label of two": (
        lambda root: Image.new("RGB", (9, 9)).save(root / "images/val/18.jpg"),
        r"18\.jpg and \S+18\.png share the label file",
    ),
    "a wrong line": (lambda root: (root / "labels/val/18.txt").write_text("10 1 1 1 1"), r"18\.txt, line 1: class 10"),
    "not YAML": (lambda root: edit(root, "names:", "names: [\n"), "is not valid YAML"),
    "key points": (lambda root: edit(root, "path:", "kpt_shape: 3\npath:"), '"kpt_shape" must be two numbers'),
    "a number": (lambda root: edit(root, "images/val", "3"), '"val" must be a folder or a list'),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(root: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(root)
    with pytest.raises(UserError, match=message):
        open_folder(root)
