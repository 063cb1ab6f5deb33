from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from export.placement import FITS, place
from fbnetv5.data.config import DataConfig
from fbnetv5.data.splits import open_splits


def test_it_opens_the_splits_of_a_folder_and_of_the_scenes(image_folder: Path) -> None:
    for config, folder in ((DataConfig.of(image_folder, size=(64, 64)), image_folder), (DataConfig(), None)):
        splits, expected = config.open(["label"]), open_splits(folder, size=(64, 64), targets=["label"])
        assert [len(split) for split in (splits.weights, splits.policies, splits.test)] == [
            len(split) for split in (expected.weights, expected.policies, expected.test)
        ]


def test_a_folder_is_kept_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataConfig.of(Path("images"), size=(64, 64)).folder == str(tmp_path / "images")
    assert DataConfig.of(None, size=(64, 64)).folder is None


def test_the_fit_reaches_the_images_and_is_stretch_in_older_files(uneven_folder: Path) -> None:
    assert DataConfig(folder="/images", size=(64, 64)).fit == "stretch"
    for fit in FITS:
        config = DataConfig.of(uneven_folder, size=(64, 64), fit=fit)
        placement = config.open(["boxes"]).resized((32, 64)).test[0].placement
        assert placement is not None
        assert placement == place(placement.image, (32, 64), fit)
    with pytest.raises(UserError, match="data: fit: must be 'stretch' or 'letterbox', not 'crop'"):
        DataConfig(fit="crop")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 65), (0, 64), (64,)])
def test_a_size_that_paths_do_not_divide_is_refused(size: Any) -> None:
    with pytest.raises(UserError):
        DataConfig(size=size)


def test_a_path_that_is_not_utf_8_is_refused_before_a_run_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"udcff', is not UTF-8\. Rename the folder"):
        DataConfig.of(tmp_path / "\udcff", size=(64, 64))
