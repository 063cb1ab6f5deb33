import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.layouts import open_folder
from fbnetv5.data.splits import targets_of
from fbnetv5.data.targets import class_names
from fbnetv5.tasks import make_tasks
from tests.fbnetv5.data.rearrange import SPLITS, as_ade20k, draw

SIZE = (64, 64)


@pytest.mark.parametrize(("training", "test"), [("training", "validation"), ("Train", "Val")])
def test_splits_of_ade20k_have_several_spellings(image_folder: Path, tmp_path: Path, training: str, test: str) -> None:
    root = as_ade20k(image_folder, tmp_path / "a")
    for kind in ("images", "annotations"):
        (root / kind / "training").rename(root / kind / training)
        (root / kind / "validation").rename(root / kind / test)
    folder_images = open_folder(root)
    assert folder_images.test == {f"{test}/{number:02d}.png" for number in SPLITS["val"]}


def test_a_split_of_ade20k_without_masks_is_left_out(image_folder: Path, tmp_path: Path) -> None:
    root = draw(as_ade20k(image_folder, tmp_path / "a"), "images/test/0.png")
    folder_images = open_folder(root)
    assert folder_images.test == {f"validation/{number:02d}.png" for number in SPLITS["val"]}
    assert len(folder_images) == 24
    shutil.rmtree(root / "annotations/validation")
    folder_images = open_folder(root)
    assert (len(folder_images), folder_images.test) == (len(SPLITS["train"]), frozenset())


def test_masks_without_any_class_are_no_labels(image_folder: Path, tmp_path: Path) -> None:
    root = as_ade20k(image_folder, tmp_path / "a")
    (root / "objectInfo150.txt").unlink()
    for path in root.glob("annotations/*/*.png"):
        Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(path)
    with pytest.raises(UserError, match="the data set has no labels for task 'seg'"):
        make_tasks(("seg",), class_names(targets_of(root)))


def test_an_undeclared_class_id_is_reported_as_in_the_file(image_folder: Path, tmp_path: Path) -> None:
    root = as_ade20k(image_folder, tmp_path / "a")
    Image.fromarray(np.full((64, 64), 77, dtype=np.uint8)).save(root / "annotations/training/00.png")
    with pytest.raises(UserError, match=r"00\.png holds class id 77, 10 mask classes"):
        open_folder(root).sample(0, SIZE)
