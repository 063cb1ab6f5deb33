from pathlib import Path

import pytest

from fbnetv5.data.layouts import open_folder
from tests.fbnetv5.data.rearrange import draw


@pytest.mark.parametrize(
    ("training", "test"), [("train", "val"), ("Train", "Test"), ("Training", "Testing"), ("TRAIN", "Validation")]
)
def test_splits_of_an_image_folder_have_several_spellings(tmp_path: Path, training: str, test: str) -> None:
    root = draw(tmp_path, f"{training}/a/0.png", f"{training}/b/1.png", f"{test}/a/2.png")
    folder_images = open_folder(root)
    assert folder_images.targets["label"].classes == ("a", "b")
    assert folder_images.test == {f"{test}/a/2.png"}
    assert len(folder_images) == 3


@pytest.mark.parametrize(
    "labels", [("gloves", "masks"), ("bus", "car", "train"), ("bus", "test", "train")], ids=" ".join
)
def test_a_class_may_have_the_name_of_something_else(tmp_path: Path, labels: tuple[str, ...]) -> None:
    folder_images = open_folder(draw(tmp_path, *(f"{label}/0.png" for label in labels)))
    assert folder_images.targets["label"].classes == labels
    assert (len(folder_images), folder_images.test) == (len(labels), frozenset())


def test_what_is_hidden_or_holds_no_image_is_no_class(tmp_path: Path) -> None:
    root = draw(tmp_path / ".hidden", "a/deep/0.png", "b/1.png", "b/.ipynb_checkpoints/1-checkpoint.png")
    draw(root, ".c/2.png", ".trash/train/a/3.png")
    (root / "labels").mkdir()
    (root / "labels/0.txt").touch()
    folder_images = open_folder(root)
    assert folder_images.targets["label"].classes == ("a", "b")
    assert folder_images.names == ("a/deep/0.png", "b/1.png")


def test_links_add_no_image_to_a_second_split(tmp_path: Path) -> None:
    root = draw(tmp_path, "train/a/0.png", "train/b/1.png", "val/a/2.png")
    (root / "train/a/again.png").symlink_to("0.png")
    (root / "val/a/3.png").symlink_to("../../train/a/0.png")
    (root / "test").symlink_to("val")
    data = open_folder(root)
    assert data.names == ("train/a/0.png", "train/a/again.png", "train/b/1.png", "val/a/2.png")
    assert data.test == {"val/a/2.png"}
    assert data.notes[:2] == (
        "images of val that another split has too, left out of it: 1",
        "images of test that another split has too, left out of it: 2",
    )
    (root / "val/a/2.png").unlink()
    assert open_folder(root).test == frozenset()
