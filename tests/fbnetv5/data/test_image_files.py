import io
import pickle
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from export.errors import UnavailableError, UserError
from fbnetv5.data.image_files import (
    INTEGER_TYPES,
    SIDEWAYS,
    StoredFile,
    StoredPart,
    file_size,
    image_names_within,
    is_image,
    opened,
    read_bytes,
    read_header,
    read_pixels,
    rgb,
    upright,
    upright_size,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.JPEG", True),
        ("a.webp", True),
        ("._a.png", False),
        ("a.TIF", True),
        ("a.tiff", True),
        ("a.gif", False),
        (".jpg", False),
    ],
)
def test_images_are_recognised_by_their_names(name: str, expected: bool) -> None:
    assert is_image(name) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_gives_the_size_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((20, 40), dtype=np.uint8)).save(tmp_path / "a.png", exif=exif)
    with opened(tmp_path / "a.png") as image:
        assert upright_size(image) == np.asarray(upright(image)).shape


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    expected = r"cannot read .*a\.png: .*\. Replace the file or remove it"
    with pytest.raises(UserError, match=expected) as caught, opened(tmp_path / "a.png"):
        pass
    assert "\n" not in str(caught.value)


FAILING = Path("/proc/self/mem")
"""A file of Linux that opens, and whose first byte fails to be read with EIO, as on a broken disk."""


@pytest.mark.skipif(not FAILING.exists(), reason="needs the proc file system of Linux")
def test_a_failure_of_the_storage_is_none_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(FAILING)
    expected = r"cannot read .*a\.png: Input/output error\. .* repeat the command when the storage works"
    with pytest.raises(UnavailableError, match=expected):
        read_pixels(tmp_path / "a.png")
    with pytest.raises(UnavailableError, match=expected):
        read_bytes(str(tmp_path / "a.png"))


def damaged(name: str, place: int) -> bytes:
    """The file of an image in one of Pillow's formats, with another value of the byte at a place."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(file, name)
    content = bytearray(file.getvalue())
    content[place] = 0x8A
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (damaged("DDS", 80), "Unknown pixel format flags"),
        pytest.param(
            damaged("AVIF", 83) if features.check("avif") else b"",
            "Failed to decode",
            marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF"),
        ),
    ],
    ids=["NotImplementedError", "RuntimeError"],
)
def test_any_error_of_pillow_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"cannot read .*a\.jpg: {reason}.*\. Replace the file or remove it"):
        read_pixels(tmp_path / "a.jpg")


def test_errors_of_other_code_are_no_errors_of_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(RuntimeError, match="a bug"), opened(tmp_path / "a.png"):
        raise RuntimeError("a bug")


def test_images_at_any_depth_are_listed_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", ".f/g.png", "b/.h.png", "i.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(image_names_within(tmp_path)) == ["a.png", "b/c.JPG", "b/d/e.webp"]


def exif_with(orientation: int, *, order: str, kind: int, entries: bytes = b"", count: int = 0) -> bytes:
    """An EXIF block with other entries before its orientation."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(f"{order}{INTEGER_TYPES[kind]}", orientation).ljust(4, b"\0")
    directory = struct.pack(f"{order}H", count + 1) + entries + struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return b"Exif\0\0" + head + struct.pack(f"{order}I", 8) + directory + struct.pack(f"{order}I", 0)


def save_with_exif(path: Path, exif: bytes) -> None:
    Image.fromarray(np.arange(800, dtype=np.uint8).reshape(20, 40)).save(path, exif=exif)


@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [0, *range(1, 9), 9])
def test_the_orientation_is_that_of_pillow(tmp_path: Path, orientation: int, order: str, kind: int) -> None:
    save_with_exif(tmp_path / "a.png", exif_with(orientation, order=order, kind=kind))
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_pixels(tmp_path / "a.png"), expected)
    assert read_header(tmp_path / "a.png").size == expected.shape


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_exif_is_ignored_and_its_orientation_used(tmp_path: Path, suffix: str) -> None:
    bad_resolution = struct.pack("<HHI4s", 0x011A, 2, 3, b"abc\0")
    save_with_exif(tmp_path / f"a.{suffix}", exif_with(6, order="<", kind=3, entries=bad_resolution, count=1))
    assert read_header(tmp_path / f"a.{suffix}").size == (40, 20)
    assert read_pixels(tmp_path / f"a.{suffix}").shape[:2] == (40, 20)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_no_exif_block_is_an_error(tmp_path: Path, suffix: str) -> None:
    generator = random.Random(0)
    path = tmp_path / f"a.{suffix}"
    for number in range(1000):
        entries = b"".join(
            struct.pack("<HHI4s", generator.choice([0x0112, 0x011A, 0x8769, generator.randrange(1 << 16)]),
                        generator.randrange(14), generator.choice([0, 1, 2, 1 << 31]), generator.randbytes(4))
            for _ in range(3)
        )  # fmt: skip
        blocks = [
            generator.randbytes(generator.randrange(1, 60)),
            b"Exif\0\0" + generator.randbytes(40),
            exif_with(1, order="<", kind=3, entries=entries, count=3),
            exif_with(1, order="<", kind=3, entries=entries, count=60000),
        ]
        save_with_exif(path, blocks[number % 4])
        assert read_header(path).size == read_pixels(path).shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_read_upright_or_refused(tmp_path: Path, orientation: int) -> None:
    pixels = np.arange(800, dtype=np.uint8).reshape(20, 40)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    if orientation in SIDEWAYS:
        with pytest.raises(UserError, match=r"a\.tif is a TIFF whose orientation tag turns it sideways"):
            read_header(tmp_path / "a.tif")
        return
    expected = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}[orientation]
    assert read_header(tmp_path / "a.tif").size == (20, 40)
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), expected)


def test_lossy_tiff_has_a_format_of_its_own(tmp_path: Path) -> None:
    for compression, expected in (("raw", "TIFF"), ("tiff_lzw", "TIFF"), ("jpeg", "lossy TIFF")):
        Image.new("L", (16, 16)).save(tmp_path / "a.tif", compression=compression)
        assert read_header(tmp_path / "a.tif").format == expected


@pytest.mark.filterwarnings("error")
def test_transparent_pixels_keep_their_colour_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=b"\x80\x00")
    with opened(tmp_path / "a.png") as file:
        assert rgb(file).getpixel((0, 0)) == (10, 20, 30)
    Image.new("L", (4, 4), 7).save(tmp_path / "b.png", transparency=7)
    with opened(tmp_path / "b.png") as file:
        assert rgb(file).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("side", "is_read"), [(9_500, True), (13_400, False)])
def test_the_largest_image_is_named_in_our_words(tmp_path: Path, side: int, is_read: bool) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")
    if is_read:
        assert read_header(tmp_path / "a.png").size == (side, side)
        return
    with pytest.raises(UserError, match=r"a\.png has more than 178 megapixels, the limit for an image"):
        read_header(tmp_path / "a.png")


def test_a_stored_file_and_a_part_of_a_file_are_images(tmp_path: Path) -> None:
    Image.new("RGB", (5, 3), (1, 2, 3)).save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "all").write_bytes(b"before" + content + b"after")
    part = StoredPart.of("place", str(tmp_path / "all"), 6, len(content))
    for file in (StoredFile("place", content), part, *pickle.loads(pickle.dumps([part, StoredFile("place", content)]))):
        assert (file, file.content, read_bytes(file), file_size(file)) == ("place", content, content, len(content))
        assert read_pixels(file).tolist() == [[[1, 2, 3]] * 5] * 3
    (tmp_path / "all").write_bytes(b"before")
    with pytest.raises(UserError, match=r"cannot read place: .*all is cut off"):
        read_bytes(part)
