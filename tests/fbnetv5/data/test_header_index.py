import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data import image_files
from fbnetv5.data.config import DataConfig
from fbnetv5.data.header_index import HeaderIndex, header_index, index_file
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.maps import FORMATS
from tests.fbnetv5.data.rearrange import as_ade20k, as_coco, as_image_folder, as_voc, as_yolo

LAYOUTS = {"COCO": as_coco, "ADE20K": as_ade20k, "ImageFolder": as_image_folder, "VOC": as_voc, "YOLO": as_yolo}
MAPS = tuple(form.folder for form in FORMATS.values())


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image file was opened on opening a data set, by path."""
    counts: Counter[str] = Counter()
    original = image_files.opened

    @contextmanager
    def counted(path: str | Path) -> Iterator[Image.Image]:
        counts[str(path)] += 1
        with original(path) as image:
            yield image

    monkeypatch.setattr(image_files, "opened", counted)
    return counts


def index_of(root: Path) -> Path:
    file = index_file(root)
    assert file is not None
    return file


def number_classes(root: Path) -> None:
    """Remove the names of the masks' classes, so that masks are decoded to find the ids."""
    path = root / "instances.json"
    path.write_text(path.read_text().replace('"mask_classes"', '"comment"'))


def test_opening_twice_and_at_two_sizes_opens_each_file_once(image_folder: Path, opens: Counter[str]) -> None:
    """But for the first class map, in which two classes are looked for."""
    config = DataConfig.of(image_folder, size=(64, 64))
    splits = config.open(["label"])
    assert opens == dict.fromkeys(map(str, image_folder.glob("*/*.png")), 1)
    splits.resized((32, 32))
    config.changed(size=(96, 96)).open(["mask"])
    assert {path for path, count in opens.items() if count > 1} == {str(image_folder / "masks/00.png")}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_indexed(image_folder: Path, tmp_path: Path, opens: Counter[str], name: str) -> None:
    root = LAYOUTS[name](image_folder, tmp_path / name)
    first = open_folder(root)
    assert len(opens) >= len(first) == 24
    opens.clear()
    assert open_folder(root).names == first.names
    assert not opens


def test_a_changed_file_is_read_again(image_folder: Path, opens: Counter[str]) -> None:
    open_folder(image_folder)
    opens.clear()
    path = image_folder / "masks/05.png"
    Image.new("L", (32, 64)).save(path)
    with pytest.raises(UserError, match=r"05\.png is 32x64, its image is 64x64"):
        open_folder(image_folder)
    assert opens == {str(path): 1}


def test_a_file_of_the_same_length_with_another_time_is_read_again(image_folder: Path, opens: Counter[str]) -> None:
    open_folder(image_folder)
    opens.clear()
    path = image_folder / "images/05.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    open_folder(image_folder)
    assert opens == {str(path): 1}


def test_masks_are_decoded_once_for_their_class_ids(image_folder: Path, opens: Counter[str]) -> None:
    number_classes(image_folder)
    Image.new("L", (64, 64), 12).save(image_folder / "masks/05.png")
    assert len(open_folder(image_folder).targets["mask"].classes) == 13
    masks = [str(path) for path in (image_folder / "masks").iterdir()]
    assert {opens[path] for path in masks} == {2}  # the header, then the pixels
    opens.clear()
    assert len(open_folder(image_folder).targets["mask"].classes) == 13
    assert not opens
    Image.new("L", (64, 64), 200).save(image_folder / "masks/05.png")
    assert len(open_folder(image_folder).targets["mask"].classes) == 201
    assert opens == {str(image_folder / "masks/05.png"): 2}


DAMAGE = {
    "empty": b"",
    "cut": b'{"kind":"header index","schema":1,"root":',
    "not JSON": b"\xff\x00",
    "other schema": b'{"kind":"header index","schema":2,"root":"ROOT","headers":[],"files":{},"class_ids":{}}',
    "no such header": b'{"kind":"header index","schema":1,"root":"ROOT","headers":[],"files":{"a":[1,2,3]},'
    b'"class_ids":{}}',
    "negative position": b'{"kind":"header index","schema":1,"root":"ROOT","headers":[[[1,1],"L","PNG",false]],'
    b'"files":{"a":[1,2,-1]},"class_ids":{}}',
    "text for a number": b'{"kind":"header index","schema":1,"root":"ROOT","headers":[[[1,1],"L","PNG",false]],'
    b'"files":{"a":["1",2,0]},'
    b'"class_ids":{}}',
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_index_is_rebuilt(image_folder: Path, opens: Counter[str], content: bytes) -> None:
    open_folder(image_folder)
    whole = index_of(image_folder).read_bytes()
    index_of(image_folder).write_bytes(content.replace(b"ROOT", bytes(image_folder)))
    opens.clear()
    open_folder(image_folder)
    assert len(opens) == 24 * (1 + len(MAPS))
    assert index_of(image_folder).read_bytes() == whole


def test_an_index_that_cannot_be_written_is_no_error(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(open_folder(image_folder)) == 24
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_name_that_is_not_utf_8_is_read_every_time(image_folder: Path, opens: Counter[str]) -> None:
    path = image_folder / os.fsdecode(b"images/\xff.png")
    Image.new("RGB", (64, 64)).save(path)
    for _ in range(2):
        opens.clear()
        assert len(open_folder(image_folder)) == 25
    assert opens == {str(path): 1}


def test_a_folder_whose_name_is_not_utf_8_is_read_every_time(image_folder: Path, opens: Counter[str]) -> None:
    root = image_folder.rename(image_folder.with_name("\udcff"))
    for times in (1, 2):
        assert len(open_folder(root)) == 24
        assert opens[str(root / "images/00.png")] == times


def test_without_a_home_folder_nothing_is_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(index_file(tmp_path)).startswith(str(tmp_path / "home/.cache/fbnetv5/headers-"))
    monkeypatch.setattr(Path, "home", no_home)
    assert index_file(tmp_path) is None


def test_what_was_read_before_an_error_is_kept(image_folder: Path, opens: Counter[str]) -> None:
    (image_folder / "images/23.png").write_text("no image")
    with pytest.raises(UserError):
        open_folder(image_folder)
    Image.new("RGB", (64, 64)).save(image_folder / "images/23.png")
    opens.clear()
    open_folder(image_folder)
    assert [path for path in opens if "/images/" in path.removeprefix(str(image_folder))] == [
        str(image_folder / "images/23.png")
    ]


def test_a_removed_file_leaves_the_index(image_folder: Path) -> None:
    open_folder(image_folder)
    assert b"depth/05.png" in index_of(image_folder).read_bytes()
    (image_folder / "depth/05.png").unlink()
    open_folder(image_folder)
    assert b"depth/05.png" not in index_of(image_folder).read_bytes()


@pytest.mark.slow
def test_several_processes_may_open_a_data_set_at_once(image_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fbnetv5.data.layouts import open_folder; "
        "open_folder(Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(image_folder)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    index = HeaderIndex(image_folder, index_file(image_folder))
    assert index.header(str(image_folder / "images/00.png")).size == (64, 64)


def test_ids_of_every_kind_of_mask(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 1, 255]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "a.png")
    Image.fromarray(ids.astype(bool)).save(tmp_path / "b.png")
    with header_index(tmp_path) as index:
        assert index.class_ids(str(tmp_path / "a.png")) == (0, 1, 255)
        assert index.class_ids(str(tmp_path / "b.png")) == (0, 1)
    assert HeaderIndex(tmp_path, index_file(tmp_path)).class_ids(str(tmp_path / "b.png")) == (0, 1)
