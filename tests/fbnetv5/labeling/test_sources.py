"""Images of folders and of data sets, and their names in one folder."""

import json
import os
from pathlib import Path

import pytest
import torch

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.splits import split_folder
from fbnetv5.labeling.sources import flat_names, open_source, without_maps
from tests.fbnetv5.data.rearrange import as_coco, as_image_folder
from tests.fbnetv5.labeling.teachers.onnx_files import save_png

IMAGE = torch.zeros(3, 8, 8, dtype=torch.uint8)


def test_a_plain_folder_is_listed_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", "a/d/e.png"):
        save_png(tmp_path / name, IMAGE)
    source = open_source(tmp_path, ignore_labels=False)
    assert source.names == ("a/c.png", "a/d/e.png", "b.png")
    assert source.new_names == ("a__c.png", "a__d__e.png", "b.png")
    assert [Path(source.path(index)).exists() for index in range(3)] == [True] * 3
    assert source.labels(0) == {}


def test_a_data_set_keeps_its_labels_and_its_test_split_unless_they_are_ignored(
    image_folder: Path, tmp_path: Path
) -> None:
    root = as_image_folder(image_folder, tmp_path / "classes")
    source = open_source(root, ignore_labels=False)
    assert source.targets["label"].classes
    assert sum(map(source.is_test, range(len(source)))) == 6
    assert all("label" in source.labels(index) for index in range(len(source)))
    plain = open_source(root, ignore_labels=True)
    assert len(plain) == len(source)
    assert not plain.targets
    assert plain.digest != open_source(tmp_path / "images", ignore_labels=True).digest


def test_the_digest_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_png(tmp_path / name, IMAGE)
    (tmp_path / "c.png").symlink_to("nowhere.png")
    digest = open_source(tmp_path, ignore_labels=False).digest
    assert open_source(tmp_path, ignore_labels=False).digest == digest
    save_png(tmp_path / "a.png", IMAGE.new_zeros(3, 9, 8))
    assert open_source(tmp_path, ignore_labels=False).digest != digest


def test_the_digest_of_a_data_set_changes_with_its_labels_and_maps(image_folder: Path) -> None:
    digests = [open_source(image_folder, ignore_labels=False).digest]
    document = json.loads((image_folder / "instances.json").read_text(encoding="utf-8"))
    document["annotations"][0]["bbox"][2] -= 1
    (image_folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    digests.append(open_source(image_folder, ignore_labels=False).digest)
    os.utime(image_folder / "masks" / "00.png", ns=(0, 0))
    digests.append(open_source(image_folder, ignore_labels=False).digest)
    assert len(set(digests)) == 3


def test_the_test_split_of_a_data_set_without_one_of_its_own_stays(image_folder: Path, tmp_path: Path) -> None:
    coco = as_coco(image_folder, tmp_path / "coco")
    (coco / "annotations" / "instances_val.json").rename(coco / "annotations" / "instances_more.json")
    (coco / "val").rename(coco / "more")
    source = open_source(coco, ignore_labels=False)
    splits = split_folder(open_folder(coco), coco, (32, 32))
    assert sum(map(source.is_test, range(len(source)))) == len(splits.test) > 0


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image at any depth"):
        open_source(tmp_path, ignore_labels=False)
    with pytest.raises(UserError, match="does not exist"):
        open_source(tmp_path / "none", ignore_labels=False)


def test_flat_names_are_different_short_and_utf_8() -> None:
    names = ("a/b.png", "a__b.png", "a/b.jpg", os.fsdecode(b"caf\xe9.png"), f"{'x' * 150}/{'ü' * 150}.png", "a/..b.png")
    flat = flat_names(names)
    stems = [name.rpartition(".")[0] for name in flat]
    assert len(set(stems)) == len(names)
    assert flat[0] == "a__b.png"
    assert all(len(name.encode()) <= 200 and name[0] != "." for name in flat)
    assert flat_names(names) == flat


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "masks"),
        ("images", "depth"),
        ("data/images/training", "data/annotations/training"),
        ("JPEGImages", "SegmentationClass"),
        ("leftImg8bit/train/aachen", "gtFine/train/aachen"),
        ("train", "train_labels"),
        ("train", "trainannot"),
    ],
)
def test_maps_beside_images_are_no_images(tmp_path: Path, images: str, labels: str) -> None:
    for name in (f"{images}/a.png", f"{images}/b.png", f"{labels}/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_png(tmp_path / name, IMAGE)
    assert list(open_source(tmp_path, ignore_labels=True).names) == [f"{images}/a.png", f"{images}/b.png"]


def test_folders_that_lie_beside_no_images_have_no_maps() -> None:
    names = ["masks/a.png", "depth/b.png", "a.png", "annot/c.png", "x/train/d.png", "y/train_masks/e.png"]
    assert without_maps(names) == names


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    for name in ("photos/a.png", "archive/b.png", "archive/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_png(tmp_path / name, IMAGE)
    (tmp_path / "photos" / "old").symlink_to(tmp_path / "archive")
    (tmp_path / "photos" / "older").symlink_to(tmp_path / "archive")
    (tmp_path / "photos" / "up").symlink_to("..")
    (tmp_path / "photos" / "self").symlink_to("self")
    (tmp_path / "archive" / "back").symlink_to(tmp_path / "photos")
    source = open_source(tmp_path / "photos", ignore_labels=True)
    assert source.names == ("a.png", "old/b.png", "old/deep/c.png")


def test_images_of_a_data_set_are_taken_without_its_maps(image_folder: Path) -> None:
    labelled = open_source(image_folder, ignore_labels=False)
    assert len(open_source(image_folder, ignore_labels=True)) == len(labelled)
