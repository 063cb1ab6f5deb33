import os
import tarfile
from pathlib import Path
from unittest import mock

import pytest
import torch

from export.errors import UserError
from fbnetv5.data import image_files
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.tar_index import Member, tar_index
from tests.fbnetv5.data.rearrange import add_member, as_webdataset
from tests.fbnetv5.data.test_webdataset import write


def bytes_read(root: Path) -> int:
    """Bytes that opening a data set reads of all files but the indices, by any call."""
    before = _read_so_far()
    open_folder(root)
    return _read_so_far() - before


def _read_so_far() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="utf-8").splitlines())
    return int(fields["rchar"])


def test_members_are_those_of_the_library(image_folder: Path, tmp_path: Path) -> None:
    root = as_webdataset(image_folder, tmp_path / "tars")
    for path in root.glob("*.tar"):
        with tarfile.open(path) as tar, tar_index(root) as index:
            members = index.members(path, [".cls"])
            for member, info in zip(members, [info for info in tar if info.isfile()], strict=True):
                content = tar.extractfile(info)
                assert content is not None
                text = content.read().decode() if info.name.endswith(".cls") else None
                assert member == Member(info.name, info.offset_data, info.size, text)


def test_tar_files_and_folders_may_be_links(image_folder: Path, tmp_path: Path) -> None:
    stored = as_webdataset(image_folder, tmp_path / "stored")
    (tmp_path / "files").mkdir()
    for path in stored.glob("*.tar"):
        (tmp_path / "files" / path.name).symlink_to(path)
    (tmp_path / "folders").mkdir()
    (tmp_path / "folders" / "train").symlink_to(stored, target_is_directory=True)
    for folder in ("files", "folders"):
        assert len(open_folder(tmp_path / folder)) == len(open_folder(stored))


def test_the_second_opening_reads_no_tar_file_and_finds_the_same(image_folder: Path, tmp_path: Path) -> None:
    root = as_webdataset(image_folder, tmp_path / "tars")
    first = open_folder(root)
    with mock.patch.object(image_files, "PartReader", side_effect=AssertionError("a part was opened")):
        second = open_folder(root)
    assert second.names == first.names
    for index in range(len(first)):
        assert first.record(index) == second.record(index)
        assert torch.equal(first.sample(index, (32, 32)).image, second.sample(index, (32, 32)).image)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts by Linux")
def test_the_bodies_of_large_images_are_skipped(tmp_path: Path) -> None:
    root = write(tmp_path, **{"0__png": "image", "0__cls": "1"})
    image = (tmp_path / "images" / "0.png").read_bytes()
    with tarfile.open(root / "0.tar", "w") as tar:
        for number in range(20):
            add_member(tar, f"{number}.png", image + bytes(1 << 18))
            add_member(tar, f"{number}.cls", str(number % 2))
    open_folder(write(tmp_path / "other", **{"0__png": "image", "0__cls": "1"}))  # imports what opening needs
    first, second = bytes_read(root), bytes_read(root)
    assert first < 20 * 3 * 4096 + (1 << 16)
    assert second < 1 << 15


def test_a_changed_tar_file_is_read_again(tmp_path: Path) -> None:
    root = write(tmp_path, **{"0__png": "image", "0__cls": "cat"})
    assert open_folder(root).targets["label"].classes == ("cat",)
    image = (tmp_path / "images" / "0.png").read_bytes()
    with tarfile.open(root / "0.tar", "w") as tar:
        add_member(tar, "0.png", image)
        add_member(tar, "0.cls", "dog")
    os.utime(root / "0.tar", ns=(1, 1))
    assert open_folder(root).targets["label"].classes == ("dog",)


def test_a_damaged_index_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write(tmp_path, **{"0__png": "image", "0__cls": "cat"})
    open_folder(root)
    for file in (tmp_path / "cache" / "fbnetv5").iterdir():
        file.write_text('{"kind": "tar index"}', encoding="utf-8")
    assert open_folder(root).targets["label"].classes == ("cat",)


@pytest.mark.parametrize("damage", ["cut before a header", "cut within a header", "another byte", "no end"])
def test_a_tar_file_that_ends_early_is_refused(tmp_path: Path, damage: str) -> None:
    root = write(tmp_path, **{"0__png": "image", "0__cls": "cat"})
    image = (tmp_path / "images" / "0.png").read_bytes()
    with tarfile.open(root / "0.tar", "w") as tar:
        for number in range(3):
            add_member(tar, f"{number}.png", image)
            add_member(tar, f"{number}.cls", "cat")
    with tarfile.open(root / "0.tar") as tar:
        member, *_, last = tar.getmembers()[2:]
        end = last.offset_data + tarfile.BLOCKSIZE
    content = bytearray((root / "0.tar").read_bytes())
    places = {"cut before a header": member.offset, "cut within a header": member.offset + 100, "no end": end}
    if damage == "another byte":
        content[member.offset + 3] ^= 1
    (root / "0.tar").write_bytes(content[: places.get(damage)])
    with pytest.raises(UserError, match=r"0\.tar is cut off or damaged at byte \d+"):
        open_folder(root)
