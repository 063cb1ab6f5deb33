import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from export.errors import UserError
from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.scenes import CLASSES
from fbnetv5.data.splits import open_splits
from fbnetv5.data.webdataset import tar_files
from fbnetv5.labeling.sources import open_source
from tests.fbnetv5.data.rearrange import SPLITS, add_member, as_webdataset, draw

SIZE = (64, 64)


def write(root: Path, **members: bytes | str) -> Path:
    """A folder with a tar file of these members, with "__" for a dot, and 0.png if its content is "image"."""
    image = (draw(root / "images", "0.png") / "0.png").read_bytes()
    (root / "data").mkdir()
    with tarfile.open(root / "data/0.tar", "w") as tar:
        for name, content in members.items():
            add_member(tar, name.replace("__", "."), image if content == "image" else content)
    return root / "data"


def test_files_are_listed_in_a_folder_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As "." and "/" are."""
    monkeypatch.chdir(write(tmp_path))
    assert tar_files(Path()) == [Path("0.tar")]


def test_samples_are_images_with_their_labels(image_folder: Path, tmp_path: Path) -> None:
    root = as_webdataset(image_folder, tmp_path / "tars")
    assert layout_of(root).name == "WebDataset tar files"
    data, original = open_folder(root), open_folder(image_folder)
    data = pickle.loads(pickle.dumps(data))
    assert data.test == {f"val-0.tar/a.b/{number:02d}.png" for number in SPLITS["val"]}
    for index, name in enumerate(data.names):
        sample, expected = data.sample(index, SIZE), original.sample(int(Path(name).stem), SIZE)
        assert torch.equal(sample.image, expected.image)
        assert torch.equal(sample.targets["mask"], expected.targets["mask"])
        assert torch.equal(sample.targets["boxes"].xyxy, expected.targets["boxes"].xyxy)
        assert data.targets["label"].classes[sample.targets["label"]] == CLASSES["label"][expected.targets["label"]]
    assert len(open_splits(root, size=SIZE, targets=["mask"]).test) == len(SPLITS["val"])


def test_numbers_are_classes_and_what_is_not_read_is_counted(tmp_path: Path) -> None:
    members: dict[str, Any] = {"0__png": "image", "0__cls": "2\n", "0__json": '{"text": "x"}', "0__txt": "x"}
    data = open_folder(write(tmp_path, **members, **{"1__png": "image", "2__cls": "0", "README": "x"}))
    assert (data.targets["label"].classes, data.labels(0)) == (("class 0", "class 1", "class 2"), {"label": 2})
    assert set(data.notes) == {
        "members of type txt left out: 1",
        "JSON members with keys that are not read, other than label and objects: 1",
        "samples without an image left out: 1",
        "images without a label left out: 1",
    }


@pytest.mark.parametrize(("text", "classes"), [("1", ("class 0", "class 1")), ("cat", ("cat",))])
def test_minus_one_is_no_class(text: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    members: dict[str, Any] = {"0__png": "image", "0__cls": text, "1__png": "image", "1__cls": "-1\n"}
    data = open_folder(write(tmp_path, **members))
    assert (data.names, data.targets["label"].classes) == (("0.tar/0.png",), classes)


WRONG: dict[str, tuple[dict[str, bytes | str], str]] = {
    "no image": ({"0__cls": "1"}, r"0\.tar has no image: a sample is KEY\.jpg"),
    "no label": ({"0__png": "image"}, r"0\.tar has no label of any image: add KEY\.cls"),
    "JSON": ({"0__png": "image", "0__json": "{"}, r"0\.tar, '0\.json' is not valid JSON"),
    "list": ({"0__png": "image", "0__json": "[]"}, r"0\.tar, '0\.json' must be a JSON object"),
    "twice": ({"0__png": "image", "0__PNG": "image"}, r"0\.tar has two members '0\.PNG'"),
    "class": ({"0__png": "image", "0__cls": ""}, r'0\.tar: 0: "label" must be the name of a class'),
    "damaged": ({"0__png": b"x", "0__cls": "1"}, r"cannot read .*0\.tar, '0\.png'"),
    "mask": ({"0__png": "image", "0__mask__png": "image"}, r"'0\.mask\.png' has mode RGB, which no mask file has"),
}


@pytest.mark.parametrize(("members", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, members: dict[str, bytes | str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_folder(write(tmp_path, **members))
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_is_named_before_and_after_opening(tmp_path: Path) -> None:
    root = write(tmp_path, **{"0__cls": "1", "0__png": "image"})
    data, path = open_folder(root), root / "0.tar"
    start = path.read_bytes().index(b"IDAT")
    path.write_bytes(path.read_bytes()[:start])
    with pytest.raises(UserError, match=r"cannot read .*0\.tar, '0\.png': .*0\.tar is cut off"):
        data.sample(0, SIZE)
    with pytest.raises(UserError, match=r"0\.tar is cut off within '0\.png'"):
        open_folder(root)
    path.write_bytes(b"no tar file" * 100)
    with pytest.raises(UserError, match=r"cannot read .*0\.tar: .* without compression"):
        open_folder(root)


def test_images_beside_an_archive_are_no_tar_data_set_and_tar_files_are_not_labelled(tmp_path: Path) -> None:
    root = write(tmp_path, **{"0__cls": "1", "0__png": "image"})
    with pytest.raises(UserError, match="are not labelled"):
        open_source(root, ignore_labels=False)
    draw(root, "a/0.png", "b/0.png")
    assert layout_of(root).name == "ImageFolder"
