"""A teacher's name decides which family opens it."""

from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.labeling.teachers.families import open_teacher
from tests.fbnetv5.labeling.teachers.onnx_files import classifier
from tests.fbnetv5.labeling.teachers.test_exported import BOXES, LABELS, SCORES, write_export


def test_files_and_folders_are_opened(tmp_path: Path) -> None:
    file = classifier(tmp_path / "model.onnx")
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    assert open_teacher("cls", str(file)).provenance["family"] == "onnx"
    for name in (folder, folder / "model.onnx"):
        assert open_teacher("det", str(name)).provenance["family"] == "exported"


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("cls", "nothing", "there is no teacher 'nothing': name an ONNX file"),
        ("cls", "keras:vgg", "there is no teacher 'keras:vgg'"),
        ("det", "timm:resnet18", "is a classifier, and no teacher of det"),
        ("depth", "torchvision:resnet18", "torchvision has no teachers of depth"),
    ],
)
def test_a_name_of_nothing_is_refused(task: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_teacher(task, name)


def test_class_names_are_for_networks_of_libraries(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class_names are for networks of timm, torchvision, transformers"):
        open_teacher("cls", str(classifier(tmp_path / "model.onnx")), class_names=("a", "b"))


def test_the_present_folder_may_be_an_exported_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS}))
    assert open_teacher("det", ".").provenance["family"] == "exported"
