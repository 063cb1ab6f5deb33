import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.scenes import CLASSES
from fbnetv5.data.targets import IGNORE
from tests.fbnetv5.data.rearrange import COLOURS, SPLITS, as_camvid, draw

SIZE = (64, 64)


@pytest.fixture
def camvid(image_folder: Path, tmp_path: Path) -> Path:
    return as_camvid(image_folder, tmp_path / "camvid")


def assert_same_masks(root: Path, source: Path) -> None:
    """The masks are those of the scenes, whose background is ignored."""
    assert layout_of(root).name == "CamVid"
    data, original = open_folder(root), open_folder(source)
    assert (len(data), data.targets["mask"].classes) == (24, CLASSES["mask"][1:])
    assert {Path(name).stem for name in data.test} == {f"{number:02d}" for number in SPLITS["val"]}
    for index, name in enumerate(data.names):
        sample, expected = data.sample(index, SIZE), original.sample(int(Path(name).stem), SIZE)
        assert torch.equal(sample.image, expected.image)
        mask = expected.targets["mask"]
        assert torch.equal(sample.targets["mask"], torch.where(mask == 0, IGNORE, mask - 1))


def test_colours_are_classes(camvid: Path, image_folder: Path) -> None:
    assert_same_masks(camvid, image_folder)


def test_the_published_list_of_colours_is_read(camvid: Path, image_folder: Path) -> None:
    (camvid / "class_dict.csv").unlink()
    names = ("Void", *CLASSES["mask"][1:])
    lines = [f"{r} {g} {b}\t\t{name}\n" for (r, g, b), name in zip(COLOURS.tolist(), names, strict=True)]
    (camvid / "label_colors.txt").write_text("".join(lines))
    assert_same_masks(camvid, image_folder)


def test_labels_of_the_images_names_and_folders_without_splits(camvid: Path) -> None:
    images, labels = camvid / "701_StillsRaw_full", camvid / "LabeledApproved_full"
    (camvid / "train").rename(images)
    (camvid / "train_labels").rename(labels)
    shutil.copy(images / "00.png", images / "00_a.png")
    (labels / "01_L.png").rename(labels / "00_a.png")
    with pytest.raises(UserError, match="are both the label of one image"):
        open_folder(camvid)
    (labels / "00_L.png").rename(labels / "00.png")
    data = open_folder(camvid)
    assert len(data) == 24
    assert "images without a label file left out: 1" in data.notes


@pytest.mark.parametrize("suffix", [".png", ""], ids=["names", "stems"])
def test_ids_with_a_list_of_names(image_folder: Path, tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "fastai"
    shutil.copytree(image_folder / "images", root / "images")
    shutil.copytree(image_folder / "masks", root / "labels")
    for path in list((root / "labels").iterdir()):
        path.rename(path.with_name(f"{path.stem}_P.png"))
    (root / "codes.txt").write_text("\n".join(("Void", *CLASSES["mask"][1:])))
    (root / "valid.txt").write_text("".join(f"{number:02d}{suffix}\n" for number in SPLITS["val"]))
    assert_same_masks(root, image_folder)
    with (root / "valid.txt").open("a") as file:
        file.write("none\n")
    assert "lines of valid.txt that name no image with a label: 1" in open_folder(root).notes


WRONG = {
    "form": ("name,r,g,b\na,1,2\n", r"class_dict\.csv:2 must be NAME,R,G,B with colours from 0 to 255, got 'a,1,2'"),
    "range": ("a,1,2,256", r"csv:1 must be NAME,R,G,B"),
    "name": ("name,r,g,b\na,1,2,3\na,1,2,4", r"csv:3 repeats the name or colour of line 2"),
    "colour": ("name,r,g,b\na,1,2,3\nb,1,2,3", r"csv:3 repeats the name or colour of line 2"),
    "none": ("name,r,g,b\nvoid,1,2,3", r"csv names 0 classes"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_the_list_is_named_with_its_line(camvid: Path, text: str, message: str) -> None:
    (camvid / "class_dict.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_folder(camvid)


def test_a_colour_of_no_class_is_named_with_its_place(camvid: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[5, 7] = 1, 2, 3
    Image.fromarray(pixels).save(camvid / "train_labels/03_L.png")
    with pytest.raises(UserError, match=r"03_L\.png has \[1, 2, 3\] at x 7, y 5, which is no class"):
        open_folder(camvid).labels(3)


def test_without_any_label_the_names_of_files_are_explained(tmp_path: Path) -> None:
    draw(tmp_path, "images/0.png", "labels/other.png")
    (tmp_path / "codes.txt").write_text("a\nb")
    with pytest.raises(UserError, match=r"labels has no label of any image: a label is NAME\.png"):
        open_folder(tmp_path)
