from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.header_index import HeaderIndex, header_index
from fbnetv5.data.maps import (
    FORMATS,
    borders,
    depth_pixels,
    find_maps,
    read_binary,
    read_class_ids,
    read_depth,
    read_normals,
    unit_vectors,
    write_map,
)
from fbnetv5.data.scenes import Scenes

STORED = {
    "black and white": (np.array([[False, True]]), [[0, 1]]),
    "0 and 255": (np.array([[0, 255]], dtype=np.uint8), [[0, 1]]),
    "0 and 1": (np.array([[0, 1]], dtype=np.uint8), [[0, 1]]),
    "shades": (np.array([[0, 90, 100, 200]], dtype=np.uint8), [[0, 0, 1, 1]]),
    "nothing": (np.zeros((1, 3), dtype=np.uint8), [[0, 0, 0]]),
}


@pytest.mark.parametrize(("stored", "expected"), STORED.values(), ids=STORED)
def test_a_pixel_is_white_from_half_of_the_largest_value_on(
    tmp_path: Path, stored: np.ndarray[tuple[int, int], np.dtype[np.uint8]], expected: list[list[int]]
) -> None:
    Image.fromarray(stored).save(tmp_path / "a.png")
    assert read_binary(tmp_path / "a.png").tolist() == expected


def test_depth_is_millimetres_and_zero_is_unknown(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    found = read_depth(tmp_path / "a.png")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[np.nan, 0.001, 65.535]])


def test_normals_are_unit_vectors_and_black_is_unknown(tmp_path: Path) -> None:
    colours = np.array([[[0, 0, 0], [255, 128, 128], [128, 0, 128], [199, 128, 235]]], dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    normals = read_normals(tmp_path / "a.png")
    assert normals.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), [[np.nan, 1, 1, 1]], rtol=1e-6)
    expected = np.array([[np.nan] * 3, [1, 0, 0], [0, -1, 0], [0.556, 0, 0.831]])
    np.testing.assert_allclose(normals[:, 0].T, expected, atol=0.006)


def test_vectors_without_a_direction_are_unknown() -> None:
    vectors = np.array([[[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0], [0, -3, 4]]])
    expected = np.array([[np.nan] * 3, [np.nan] * 3, [np.nan] * 3, [0, -0.6, 0.8]])
    np.testing.assert_allclose(unit_vectors(vectors)[:, 0].T, expected, rtol=1e-6)


def test_borders_are_one_pixel_wide_on_the_side_of_the_larger_id() -> None:
    ids = np.array([[3, 3, 7, 7, 7], [3, 3, 3, 7, 7], [3, 3, 3, 3, 7]])
    assert borders(ids).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert borders(ids.T).tolist() == borders(ids).T.tolist()


@pytest.mark.parametrize("target", FORMATS)
def test_every_format_is_found_and_read_upright(tmp_path: Path, target: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(8, dtype=np.uint16 if target == "depth" else np.uint8).reshape(2, 4)
    if target == "normals":
        values = np.stack([values] * 3, axis=-1)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    found = find_maps(tmp_path, target, {"a": (4, 2)}, HeaderIndex(tmp_path, None))
    assert found == {"a": str(tmp_path / "a.png")}
    assert FORMATS[target].read(found["a"]).shape[-2:] == (4, 2)
    assert find_maps(tmp_path / "nowhere", target, {}, HeaderIndex(tmp_path, None)) == {}


def test_a_file_of_no_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match="is the edges of no image"):
        find_maps(tmp_path, "edges", {"a": (2, 2)}, HeaderIndex(tmp_path, None))


@pytest.mark.parametrize(("name", "message"), [("a.jpg", "is no .png"), ("a.png", "is JPEG under another name")])
def test_a_file_of_another_format_is_refused(tmp_path: Path, name: str, message: str) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / name, format="JPEG")
    with pytest.raises(UserError, match=message):
        find_maps(tmp_path, "saliency", {"a": (2, 2)}, HeaderIndex(tmp_path, None))


def test_class_ids_are_those_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 4, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_class_ids(tmp_path / "a.png").tolist() == [[0, 4, 255]]


@pytest.mark.parametrize("target", FORMATS)
def test_a_written_label_is_read_back(tmp_path: Path, target: str) -> None:
    value = Scenes("train", size=(64, 64), count=1)[0].targets[target].numpy()
    write_map(tmp_path / "a.png", target, value)
    rounding = 0.006 if target == "normals" else 0  # of components to 8 bits
    np.testing.assert_allclose(FORMATS[target].read(tmp_path / "a.png"), value, atol=rounding)


def test_depth_that_no_file_can_hold_is_unknown() -> None:
    metres = np.array([[0.0, 1.5, -2.0, 65.535, 65.6, np.nan, np.inf]], np.float32)
    assert depth_pixels(metres).tolist() == [[0, 1500, 0, 65535, 0, 0, 0]]


def test_a_tiff_is_read_as_a_png_is_unless_values_are_lost(tmp_path: Path) -> None:
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for suffix, options in (("TIFF", {"compression": "tiff_lzw"}), ("tif", {}), ("PNG", {})):
        folder = tmp_path / suffix
        folder.mkdir()
        Image.fromarray(ids).save(folder / f"a.{suffix}", **options)
        with header_index(tmp_path) as headers:
            paths = find_maps(folder, "mask", {"a": (8, 8)}, headers)
        assert np.array_equal(read_class_ids(paths["a"]), ids)
    Image.fromarray(ids).save(tmp_path / "tif/a.tif", compression="jpeg")
    with header_index(tmp_path) as headers, pytest.raises(UserError, match=r"a\.tif is lossy TIFF"):
        find_maps(tmp_path / "tif", "mask", {"a": (8, 8)}, headers)
    Image.fromarray(ids).save(tmp_path / "PNG/a.tif")
    with header_index(tmp_path) as headers, pytest.raises(UserError, match="are both the mask of one image"):
        find_maps(tmp_path / "PNG", "mask", {"a": (8, 8)}, headers)
