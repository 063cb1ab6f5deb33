from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.presets import four_path_space
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.wide import WideSpace

FIELDS: dict[str, Any] = {"variant": "c", "stages": 2, "blocks_per_path": 1}


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("default", FourPathSpace(**FIELDS)),
        ("strict", FourPathSpace(**FIELDS, strict=True)),
        ("wide", WideSpace(**FIELDS)),
    ],
)
def test_a_name_stands_for_a_space(name: str, space: Space) -> None:
    assert four_path_space(name, **FIELDS) == space


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="unknown space 'wider'; there are: default, strict, wide"):
        four_path_space("wider", **FIELDS)
