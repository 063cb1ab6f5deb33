from pathlib import Path

import numpy as np
import pytest
import torch

from fbnetv5.data.layouts import layout_of, open_folder
from fbnetv5.data.nyud import CLASSES, read_depth, read_edges, read_normals
from fbnetv5.data.splits import open_splits
from fbnetv5.data.targets import IGNORE
from tests.fbnetv5.data.multi_task_folders import SIDE, TEST, make_nyud, scene


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nyud(tmp_path_factory.mktemp("nyud") / "NYUD_MT")


def test_the_layout_is_recognised_with_its_targets(root: Path) -> None:
    assert layout_of(root).name == "NYUD-v2"
    targets = open_folder(root).targets
    assert set(targets) == {"mask", "depth", "normals", "edges"}
    assert targets["mask"].classes == CLASSES
    assert len(set(CLASSES)) == 40


@pytest.mark.parametrize("number", [0, 7, 23])
def test_labels_are_those_of_the_files(root: Path, number: int) -> None:
    sample, expected = open_folder(root).sample(number, SIDE), scene(number)
    mask = expected.targets["mask"]
    assert torch.equal(sample.targets["mask"], torch.where(mask == 0, IGNORE, mask - 1))
    for name in ("depth", "normals", "edges"):
        torch.testing.assert_close(sample.targets[name], expected.targets[name], equal_nan=True)
    assert torch.equal(sample.image, expected.image) == (number == 23)


def test_images_of_val_are_the_test_split(root: Path) -> None:
    splits = open_splits(root, size=SIDE, targets=["depth"])
    assert len(splits.test) == len(TEST)
    assert torch.equal(splits.test[1].targets["depth"], scene(TEST[1]).targets["depth"])


def test_what_is_no_number_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0, -1, np.nan, np.inf, 2.5]]))
    np.testing.assert_array_equal(read_depth(tmp_path / "a.npy"), np.array([[np.nan] * 4 + [2.5]], dtype=np.float32))
    np.save(tmp_path / "b.npy", np.array([[[0, 0, 0], [0, 0, -2]]]))
    np.testing.assert_array_equal(read_normals(tmp_path / "b.npy")[:, 0].T, [[np.nan] * 3, [0, 0, -1]])
    np.save(tmp_path / "c.npy", np.array([[[0.0], [1.0], [255.0]]]))
    assert read_edges(tmp_path / "c.npy").tolist() == [[0, 1, 1]]
