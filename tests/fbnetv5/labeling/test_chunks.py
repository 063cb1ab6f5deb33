"""The file of a chunk, and the files beside it."""

import os
from pathlib import Path
from unittest import mock

import pytest

from export.errors import UserError
from fbnetv5.data.maps import read_class_ids
from fbnetv5.labeling.chunks import (
    ImageRow,
    Job,
    check_chunks,
    chunk_file,
    label_chunk,
    place_image,
    read_chunk,
    remove_temporaries,
    rounded_box,
)
from tests.fbnetv5.labeling.labelled_scenes import make_labeller, number_of, true_mask


def test_a_chunk_has_a_row_maps_and_a_link_for_each_image(tmp_path: Path) -> None:
    labeller, folder = make_labeller(tmp_path), tmp_path / "out"
    Path(labeller.source.path(1)).write_bytes(b"damaged")
    file = chunk_file(folder, 0)
    label_chunk(Job(folder=folder, chunks={file: range(4)}), labeller, file)
    rows = {row.source: row for row in read_chunk(file)}
    assert list(rows) == ["0/0002.png", "0/0000.png", "0/0004.png", "0/0006.png"]
    assert rows["0/0002.png"].name is None
    assert "cannot read" in str(rows["0/0002.png"].reason)
    row = rows["0/0004.png"]
    assert row.name == "0__0004.png"
    assert row.origins == {"label": "teacher", "mask": "teacher"}
    mask = read_class_ids(folder / "masks" / row.name)
    assert row.size == mask.shape
    assert (mask == true_mask(number_of(row.name)).numpy()).mean() > 0.97
    assert (folder / "images" / row.name).samefile(tmp_path / "images" / row.source)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([1.234, 2.0, 3.456, 4.0], [1.23, 2.0, 3.46, 4.0]),
        ([1.999, 2.0, 2.001, 4.0], [2.0, 2.0, 2.01, 4.0]),
        ([59.998, 39.999, 60.0, 40.0], [59.99, 39.99, 60.0, 40.0]),
        ([1.0, 0.001, 2.0, 0.002], [1.0, 0.0, 2.0, 0.01]),
    ],
)
def test_no_box_loses_its_area_when_it_is_rounded(box: list[float], expected: list[float]) -> None:
    assert rounded_box(box, (40, 60)) == expected


def test_where_links_are_impossible_images_are_copied(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    with mock.patch.object(Path, "hardlink_to", side_effect=OSError("cross-device")):
        place_image(tmp_path / "a.png", tmp_path / "new" / "b.png")
    assert (tmp_path / "new" / "b.png").read_bytes() == b"pixels"
    assert not (tmp_path / "new" / "b.png").samefile(tmp_path / "a.png")


def test_another_image_is_replaced_and_an_equal_one_kept(tmp_path: Path) -> None:
    for name, content in (("old.png", b"old"), ("equal.png", b"new"), ("new.png", b"new")):
        (tmp_path / name).write_bytes(content)
    place_image(tmp_path / "old.png", tmp_path / "placed.png")
    place_image(tmp_path / "new.png", tmp_path / "placed.png")
    assert (tmp_path / "placed.png").samefile(tmp_path / "new.png")
    place_image(tmp_path / "equal.png", tmp_path / "placed.png")
    assert (tmp_path / "placed.png").samefile(tmp_path / "new.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_made_to_the_file_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    place_image(tmp_path / "link.png", tmp_path / "new" / "b.png")
    assert not (tmp_path / "new" / "b.png").is_symlink()
    assert (tmp_path / "new" / "b.png").samefile(tmp_path / "a.png")


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    leftovers = [
        tmp_path / name for name in ("masks/.a.png.12.tmp", "images/.b.png.12.tmp", ".labeling/chunks/.c.1.tmp")
    ]
    for path in [*leftovers, tmp_path / "masks" / "a.png"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_temporaries(tmp_path)
    assert not any(path.exists() for path in leftovers)
    assert (tmp_path / "masks" / "a.png").exists()


@pytest.mark.parametrize("sources", [["a"], ["a", "a"], ["a", "c"], ["a", "b", "b"]], ids=str)
def test_gaps_and_duplicates_are_found(sources: list[str], tmp_path: Path) -> None:
    file = tmp_path / "chunk"
    rows = [ImageRow(source=source, name=source) for source in ["b", "a"]]
    file.write_text("".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8")
    check_chunks({file: range(1, 3)}, ["x", "a", "b"])
    file.write_text("".join(f'{{"source": "{source}"}}\n' for source in sources), encoding="utf-8")
    with pytest.raises(UserError, match="has other images than its chunk: remove it"):
        check_chunks({file: range(1, 3)}, ["x", "a", "b"])
