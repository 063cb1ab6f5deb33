"""Descriptions of ONNX files: what they set, and one line for each mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from export.errors import UserError
from fbnetv5.labeling.teachers.description import TeacherDescription, read_description
from fbnetv5.labeling.teachers.preparation import Preparation

DETECTOR: dict[str, Any] = {
    "schema": 1,
    "task": "det",
    "size": [320, 640],
    "fit": "letterbox",
    "decoder": "yolo",
    "order": "bgr",
    "layout": "nhwc",
    "scale": 1.0,
    "classes": ["cat", "dog"],
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "schema": ({"schema": 2}, "has schema 2"),
    "field": ({"sise": 3}, "there is no field 'sise'"),
    "decoder": ({"decoder": "logits"}, "decoder 'logits' is for cls, not for det"),
    "no classes": ({"classes": []}, "task det needs classes"),
    "repeated class": ({"classes": ["cat", "cat"]}, "name 'cat' twice"),
    "crop": ({"fit": "crop"}, "leaves parts of an image unlabelled"),
    "size": ({"size": [0, 640]}, "size.0"),
}


def written(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_the_fields_become_preparation_and_decoding(tmp_path: Path) -> None:
    description = read_description(written(tmp_path / "model.json", DETECTOR))
    expected = Preparation(size=(320, 640), scale=1.0, fit="letterbox", bgr=True, channels_last=True)
    assert description.preparation == expected
    assert (description.decoding.name, description.decoding.classes) == ("yolo", 2)


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_that_names_the_file(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.json", DETECTOR | fields)
    with pytest.raises(UserError) as error:
        read_description(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_with_what_belongs_in_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.json does not exist: it describes the ONNX file"):
        read_description(tmp_path / "model.json")


def test_the_schema_in_the_docs_is_that_of_the_code() -> None:
    path = Path(__file__).parents[4] / "docs" / "schemas" / "teacher.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert schema == TeacherDescription.schema_of_files(), "run: python tools/write_schemas.py"
    validator = Draft202012Validator(schema)
    assert validator.is_valid(DETECTOR)
    assert not validator.is_valid(DETECTOR | {"sise": 3})
