import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.class_ids import degenerate_reason
from fbnetv5.data.layouts import open_folder
from tests.fbnetv5.data.rearrange import as_ade20k


@pytest.mark.parametrize(
    ("ids", "zero_is_ignored", "expected"),
    [
        ([{0, 255}, {0}], False, "looks like a binary mask"),
        ([{255}, {0}], True, "looks like a binary mask"),
        ([{0}, {0}], False, "hold class 0 only"),
        ([{3, 255}], False, "hold class 3 only"),
        ([{0, 1}], True, "hold class 1 only.* If it is a class, put the files into"),
        ([{0, 1}], False, None),
        ([{0}, {255}, {7}], False, None),
        ([{0}], True, None),
        ([{255}], False, None),
        ([], False, None),
    ],
)
def test_one_class_teaches_nothing(ids: list[set[int]], zero_is_ignored: bool, expected: str | None) -> None:
    reason = degenerate_reason("mask", iter(ids), zero_is_ignored=zero_is_ignored)
    assert (reason is None) == (expected is None)
    assert re.search(expected or "", reason or "")


def test_files_are_read_up_to_the_second_class() -> None:
    def ids() -> Iterator[set[int]]:
        yield {0, 255}
        yield {1}
        raise AssertionError("one file too many")

    assert degenerate_reason("parts", ids(), zero_is_ignored=False) is None


def test_only_a_data_set_whose_masks_are_used_is_refused(image_folder: Path, tmp_path: Path) -> None:
    root = as_ade20k(image_folder, tmp_path / "ade")
    for path in [*(image_folder / "masks").iterdir(), *root.glob("annotations/*/*.png")]:
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids, 255, 0).astype(np.uint8)).save(path)
    for folder in (root, image_folder):
        data = open_folder(folder)
        data.only(["boxes", "label", "saliency"])
        with pytest.raises(UserError, match="all mask files hold 0 and 255 only, which looks like a binary mask"):
            data.only(["mask"])
