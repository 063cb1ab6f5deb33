"""Two processes are tested by ``test_processes.py``."""

from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.data.config import DataConfig
from fbnetv5.runs.start import check_processes, describe_images, once_per_machine, open_images, wait_for_file


def test_a_single_process_opens_images_itself(image_folder: Path) -> None:
    data = DataConfig.of(image_folder, size=(64, 64))
    assert len(open_images(data, ["label"]).test) == len(data.open(["label"]).test)
    assert len(open_images(DataConfig(scenes=(3, 2, 1)), ["label"]).weights) == 3


def test_a_single_process_describes_images_itself(image_folder: Path) -> None:
    lines: list[str] = []
    describe_images(None, lines.append)
    describe_images(image_folder, lines.append)
    (line,) = lines
    assert line.startswith(f"{image_folder}: read as several tasks")


def refuse() -> int:
    raise UserError("it is damaged")


def test_the_error_of_the_work_is_raised() -> None:
    with pytest.raises(UserError, match="it is damaged"):
        once_per_machine(refuse)


def test_a_single_process_agrees_with_itself(tmp_path: Path) -> None:
    check_processes(tmp_path, DataConfig(scenes=(3, 2, 1)).open(["label"]).test)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_appear_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seen").touch()
    wait_for_file(tmp_path / "seen")
    monkeypatch.setattr("fbnetv5.runs.start.TOKEN_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"unseen, which the first process wrote, does not appear on"):
        wait_for_file(tmp_path / "unseen")
