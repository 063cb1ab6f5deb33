from pathlib import Path

import pytest

from fbnetv5.architecture import load_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.training.notes import describe_soft_labels, describe_teacher_fit
from tests.fbnetv5.data.test_soft_labels import add


def lines_of_fit(teacher: Path, images: DataConfig) -> list[str]:
    lines: list[str] = []
    describe_teacher_fit(str(teacher), images, lines.append)
    return lines


def test_a_teacher_of_another_fit_is_named(networks: Path, tmp_path: Path) -> None:
    architecture = load_architecture(networks / "cls.json")
    file = tmp_path / "teacher.json"
    architecture.changed(provenance={**architecture.provenance, "fit": "letterbox"}).save(file)
    (line,) = lines_of_fit(file, DataConfig.of(tmp_path, fit="stretch"))
    assert line.startswith(f"teacher {file} was trained with --fit letterbox, and sees images with --fit stretch here")
    assert lines_of_fit(file, DataConfig.of(tmp_path, fit="letterbox")) == []
    assert lines_of_fit(file, DataConfig.of(None, fit="stretch")) == []  # demo scenes have the size of the input


def test_soft_labels_that_are_not_used_are_named(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    folder = image_folder
    describe_soft_labels(folder, ("cls",), lines.append)
    add(folder, {"03.png": {"coat": 0.25, "bag": 0.5}})
    describe_soft_labels(folder, ("seg",), lines.append)
    assert lines == []
    describe_soft_labels(folder, ("cls",), lines.append)
    assert lines == [f"{folder} has soft labels, which are not used; --teacher soft-labels learns from them"]
    monkeypatch.setenv("RANK", "1")
    describe_soft_labels(folder, ("cls",), lines.append)
    assert len(lines) == 1
