from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.image_files import image_names_within, is_image, opened, upright, upright_size


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.JPEG", True),
        ("a.webp", True),
        ("._a.png", False),
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


def test_images_at_any_depth_are_listed_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", ".f/g.png", "b/.h.png", "i.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(image_names_within(tmp_path)) == ["a.png", "b/c.JPG", "b/d/e.webp"]
