"""Settings come from flags and a file, and mistakes are one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.labeling.config import LabelConfig

FLAGS: dict[str, Any] = {"images": "/images", "derive": {}, "threshold": 0.5, "ignore_labels": False}


def test_flags_and_file_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "label.yaml"
    file.write_text("chunk: 7\nteachers:\n  det:\n    threshold: 0.3\n    classes: {dog: animal}\n", encoding="utf-8")
    config = LabelConfig.make(file, teachers={"det": "d.onnx", "cls": "c.onnx"}, **FLAGS)
    assert config.chunk == 7
    assert (config.teachers["det"].teacher, config.teachers["det"].threshold) == ("d.onnx", 0.3)
    assert config.teachers["cls"].teacher == "c.onnx"


WRONG: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any], str]] = {
    "field": ({"chunks": 3}, {"det": "d"}, {}, "there is no field 'chunks' to set"),
    "flag": ({"images": "x"}, {"det": "d"}, {}, "there is no field 'images' to set"),
    "value": ({"chunk": 0}, {"det": "d"}, {}, "chunk: must be greater than or equal to 1"),
    "threshold": ({"teachers": {"det": {"threshold": 2}}}, {"det": "d"}, {}, "threshold"),
    "task": ({}, {"dets": "d"}, {}, "unknown task 'dets'"),
    "no teacher": ({"teachers": {"det": {}}}, {}, {}, "task det has settings and no teacher"),
    "two teachers": ({"teachers": {"det": {"teacher": "a"}}}, {"det": "b"}, {}, "task det has two teachers"),
    "both": ({}, {"cls": "a"}, {"derive": {"cls": "largest-box"}}, "has a teacher and --derive"),
    "nothing": ({}, {}, {}, "there is nothing to label with"),
}


@pytest.mark.parametrize(("fields", "teachers", "flags", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_refused(
    fields: dict[str, Any], teachers: dict[str, str], flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "label.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(UserError) as error:
        LabelConfig.make(tmp_path / "label.json", teachers=teachers, **{**FLAGS, **flags})
    assert message in str(error.value)
