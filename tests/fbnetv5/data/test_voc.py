import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.notes import Notes
from fbnetv5.data.pascal_context import CLASSES
from fbnetv5.data.voc import read_annotation
from tests.fbnetv5.data.rearrange import SPLITS, as_voc


@pytest.fixture
def root(image_folder: Path, tmp_path: Path) -> Path:
    return as_voc(image_folder, tmp_path / "voc")


def test_boxes_and_the_test_split_are_those_of_the_files(root: Path, image_folder: Path) -> None:
    data, original = open_folder(root), open_folder(image_folder)
    assert layout_of(root).name == "PASCAL VOC"
    assert data.test == {f"{number:02d}.png" for number in SPLITS["val"]}
    names, expected_names = data.targets["boxes"].classes, original.targets["boxes"].classes
    for index, name in enumerate(data.names):
        boxes, expected = data.labels(index)["boxes"], original.labels(int(Path(name).stem))["boxes"]
        assert torch.equal(boxes.xyxy, expected.xyxy)
        assert [names[label] for label in boxes.labels] == [expected_names[label] for label in expected.labels]


def without_lists(root: Path) -> None:
    shutil.rmtree(root / "ImageSets")


def as_roboflow(root: Path) -> None:
    for split, new in (("train", "train"), ("val", "valid")):
        (root / new).mkdir()
        for number in SPLITS[split]:
            (root / f"JPEGImages/{number:02d}.png").rename(root / new / f"{number:02d}.png")
            (root / f"Annotations/{number:02d}.xml").rename(root / new / f"{number:02d}.xml")
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        shutil.rmtree(root / folder)


def with_trainval(root: Path) -> None:
    lists = root / "ImageSets/Main"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").rename(lists / "test.txt")
    (lists / "cat_train.txt").write_text("nothing here", encoding="utf-8")


FORMS: dict[str, tuple[Callable[[Path], object], int]] = {
    "no lists": (without_lists, 0),
    "Roboflow": (as_roboflow, 6),
    "trainval": (with_trainval, 6),
}


@pytest.mark.parametrize(("change", "test"), FORMS.values(), ids=FORMS.keys())
def test_every_form_has_all_images(root: Path, change: Callable[[Path], object], test: int) -> None:
    expected = open_folder(root)
    change(root)
    data = open_folder(root)
    assert (layout_of(root).name, len(data), len(data.test)) == ("PASCAL VOC", 24, test)
    assert data.targets == expected.targets


def test_class_maps_are_read_with_the_names_of_voc(root: Path) -> None:
    for path in (root / "Annotations").iterdir():
        path.write_text("<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
                        "<ymax>9</ymax></bndbox></object></annotation>", encoding="utf-8")  # fmt: skip
    (root / "SegmentationClass").mkdir()
    Image.fromarray(np.full((64, 64), 12, np.uint8)).save(root / "SegmentationClass/03.png")
    data = open_folder(root)
    assert data.targets["mask"].classes == CLASSES
    assert int(data.labels(data.names.index("03.png"))["mask"].unique()) == CLASSES.index("dog")
    shutil.rmtree(root / "Annotations")
    data = open_folder(root)
    assert (len(data), list(data.targets)) == (1, ["mask"])
    assert data.notes == ("images without a label left out: 23", "image files not used: 23 JPEGImages/*.png")


BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>20</ymax></bndbox>"


def parse(folder: Path, text: str, encoding: str = "utf-8") -> tuple[list[tuple[str, tuple[float, ...], bool]], Notes]:
    (folder / "a.xml").write_text(text, encoding=encoding)
    notes = Notes()
    objects = read_annotation(folder / "a.xml", (40, 60), notes)
    return [(item.name, item.corners, item.is_difficult) for item in objects], notes


def test_corners_are_pixels_from_1_on_with_the_last_one(tmp_path: Path) -> None:
    part = f"<part><name>head</name>{BOX}</part>"
    text = f"<annotation><object><name> é </name>{part}{BOX}</object><object><name>b</name><difficult>1</difficult>"
    objects, notes = parse(tmp_path, f"{text}{BOX}</object></annotation>", "utf-8-sig")
    assert objects == [("é", (0, 1, 10, 20), False), ("b", (0, 1, 10, 20), True)]
    assert notes.lines() == ("objects marked difficult left out of training: 1",)
    assert parse(tmp_path, "<annotation/>")[0] == []


def test_difficult_objects_are_ignored_boxes(root: Path) -> None:
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>{BOX}</object>"
        for name, difficult in (("dog", 0), ("dog", 1), ("cat", 1))
    )
    for path in (root / "Annotations").iterdir():
        path.write_text(f"<annotation>{objects}</annotation>", encoding="utf-8")
    data = open_folder(root)
    assert data.targets["boxes"].classes == ("dog",)  # no cat can be learned
    targets = data.resized((64, 64))[0].targets
    for name in ("boxes", "ignored_boxes"):
        assert targets[name].xyxy.tolist() == [[0, 1, 10, 20]]
        assert targets[name].labels.tolist() == [0]


WRONG = {
    "<annotation>": "is not valid XML",
    "<a><object><name>b</name></object></a>": r"a\.xml, object 1 has no bndbox of four numbers",
    f"<a><object>{BOX}</object></a>": "object 1 has no name",
    f"<a><object><name>b</name>{BOX.replace('10', '99')}</object></a>": "object 1: box .* outside of its 60x40 image",
    f"<a><object><name>b</name>{BOX.replace('10', 'nan')}</object></a>": "must be finite",
    f"<a><object><name>b</name>{BOX.replace('10', 'x')}</object></a>": "four numbers xmin",
    "<a><size><width>40</width><height>60</height></size></a>": "says that its image is 40x60, and the file is 60x40",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_a_wrong_annotation_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_an_annotation_or_a_line_of_no_image_is_refused(root: Path) -> None:
    with (root / "ImageSets/Main/val.txt").open("a", encoding="utf-8") as file:
        file.write("99\n")
    with pytest.raises(UserError, match=r"val\.txt lists '99', and JPEGImages has no such image"):
        open_folder(root)
    ET.ElementTree(ET.Element("annotation")).write(root / "Annotations/98.xml")
    with pytest.raises(UserError, match=r"98\.xml is the annotation of no image"):
        open_folder(root)
