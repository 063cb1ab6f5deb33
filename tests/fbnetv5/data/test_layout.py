from pathlib import Path

from fbnetv5.data.layout import split_folders


def test_the_folders_of_splits_are_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name in ("Val", "train", "TRAINING", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "test").touch()
    names = ("train", "training", "val", "test")
    assert [folder.name for folder in split_folders(tmp_path, names)] == ["train", "TRAINING", "Val"]
    assert split_folders(tmp_path / "nowhere", names) == []
