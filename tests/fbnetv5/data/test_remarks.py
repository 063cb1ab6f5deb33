import json
from pathlib import Path

from PIL import Image

from fbnetv5.data.layouts import open_folder


def save(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)


def test_image_files_that_are_not_read_are_counted_by_folder(tmp_path: Path) -> None:
    save(tmp_path, "cat/0.png", "dog/0.TIF", "cat/1.gif", "cat/2.gif", "rose/0.gif", ".hidden/0.png", "cat/._0.png")
    (tmp_path / "cat/notes.txt").touch()
    data = open_folder(tmp_path)
    assert data.targets["label"].classes == ("cat", "dog")
    assert data.notes == ("image files not used: 2 cat/*.gif, 1 rose/*.gif",)


def test_more_than_three_groups_are_counted(tmp_path: Path) -> None:
    save(tmp_path, "a/0.png", "b/0.png", *(f"{name}/0.gif" for name in "cdefg"))
    assert open_folder(tmp_path).notes == ("image files not used: 1 c/*.gif, 1 d/*.gif, 1 e/*.gif and 2 more",)


def test_classes_without_a_label_are_named(image_folder: Path) -> None:
    path = image_folder / "instances.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["categories"].append({"id": 0, "name": "root", "supercategory": "none"})
    document["labels"] = sorted({image["label"] for image in document["images"]})
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    assert open_folder(image_folder).notes == ("classes of boxes that nothing is labelled with: 'root'",)


def test_a_path_may_lead_up_and_down_again(tmp_path: Path) -> None:
    save(tmp_path, "cat/0.png", "dog/0.png", "cat/1.gif")
    assert open_folder(tmp_path / "cat" / "..").notes == ("image files not used: 1 cat/*.gif",)


def test_augmented_copies_in_training_and_test_split_are_counted(tmp_path: Path) -> None:
    names = [f"{place}.rf.{number:032x}.png" for number, place in enumerate(("a/0", "b/1", "b/1", "b/1"))]
    save(tmp_path, *(f"train/{name}" for name in names[:3]), f"test/{names[3]}", f"test/a/2.rf.{9:032x}.png")
    (note,) = open_folder(tmp_path).notes
    assert note == "images of the test split of which Roboflow has an augmented copy in the training split: 1"


def test_images_of_different_classes_are_no_copies_of_each_other(tmp_path: Path) -> None:
    """Roboflow numbers the images of each class."""
    save(tmp_path, f"train/cat/0.rf.{0:032x}.png", f"valid/dog/0.rf.{1:032x}.png", f"train/dog/1.rf.{2:032x}.png")
    save(tmp_path, f"valid/cat/1.rf.{3:032x}.png")
    assert open_folder(tmp_path).notes == ()


def test_classes_may_have_the_names_of_splits(tmp_path: Path) -> None:
    save(tmp_path, f"train/train car/0.rf.{0:032x}.png", f"valid/test tube/0.rf.{1:032x}.png")
    save(tmp_path, f"train/test tube/1.rf.{2:032x}.png", f"valid/train car/2.rf.{3:032x}.png")
    assert open_folder(tmp_path).notes == ()


def test_copies_are_seen_where_the_split_is_within_another_folder(tmp_path: Path) -> None:
    names = [f"images/{split}/0.rf.{number:032x}.png" for number, split in enumerate(("train", "val"))]
    save(tmp_path, *names)
    for name in names:
        label = (tmp_path / name.replace("images/", "labels/")).with_suffix(".txt")
        label.parent.mkdir(parents=True)
        label.write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    (note,) = open_folder(tmp_path).notes
    assert note == "images of the test split of which Roboflow has an augmented copy in the training split: 1"
