"""Stored scenes are the scenes that were composed."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from benchmarks.stored_scenes import StoredScenes, store_scenes
from export.errors import UserError
from fbnetv5.data.sample import collate
from fbnetv5.data.scenes import Scenes


def test_stored_scenes_equal_composed_scenes_and_are_composed_once(tmp_path: Path) -> None:
    stored = store_scenes(tmp_path / "x", "test", size=(32, 64), count=5, seed=3)
    scenes = Scenes("test", size=(32, 64), count=5, seed=3)
    batch, truth = stored.batch([4, 1]), collate([scenes[4], scenes[1]], stored.targets, [4, 1])
    torch.testing.assert_close(asdict(batch), asdict(truth), rtol=0, atol=0)
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "x").iterdir()}
    assert len(store_scenes(tmp_path / "x", "test", size=(32, 64), count=5, seed=3)) == 5
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "x").iterdir()}
    assert len(StoredScenes(tmp_path / "x")) == 5


def test_a_folder_of_other_scenes_is_refused(tmp_path: Path) -> None:
    store_scenes(tmp_path / "x", "test", size=(32, 32), count=2, seed=3)
    with pytest.raises(UserError, match="holds other scenes"):
        store_scenes(tmp_path / "x", "train", size=(32, 32), count=2, seed=3)
