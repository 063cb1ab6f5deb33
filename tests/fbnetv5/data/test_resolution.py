from typing import Any

import numpy as np
import pytest

from export.errors import UserError
from fbnetv5.data.resolution import Resolution, check_resolution, parse_resolution


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), (" 320x640 ", (320, 640))])
def test_resolutions_are_height_by_width(text: str, size: Resolution) -> None:
    assert parse_resolution(text) == size


@pytest.mark.parametrize("text", ["", "x", "224x", "224X224", "-32", "0", "224x100", "3.2", "99968"])
def test_other_resolutions_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="resolution"):
        parse_resolution(text)


def test_a_resolution_too_large_to_count_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 32 up to"):
        check_resolution((32 * 10**14, 32))


def test_numbers_of_numpy_are_sizes() -> None:
    size: Any = np.int64(224)
    assert parse_resolution(size) == (224, 224)
    sides = parse_resolution(np.array([320, 640]).tolist()), parse_resolution((size, size))
    assert sides == ((320, 640), (224, 224))
    assert all(type(side) is int for side in sides[1])


def test_fractions_of_a_pixel_are_refused() -> None:
    size: Any = (224.9, 224)
    with pytest.raises(UserError, match="height and width must be whole numbers"):
        parse_resolution(size)
