import json
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.data.describe import describe_data


def test_the_layout_of_a_folder_is_logged(image_folder: Path) -> None:
    lines: list[str] = []
    describe_data(None, lines.append)
    describe_data(image_folder, lines.append)
    (line,) = lines
    assert line.endswith("images: read as several tasks; classes of label that nothing is labelled with: 'shirt'")


def test_only_the_first_process_opens_the_folder(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    lines: list[str] = []
    describe_data(image_folder, lines.append, strict=True)
    assert lines == []


def test_a_strict_data_set_has_nothing_to_note(image_folder: Path) -> None:
    lines: list[str] = []
    with pytest.raises(UserError, match=r"read as several tasks; .*'shirt'\. Correct .* --strict-data"):
        describe_data(image_folder, lines.append, strict=True)
    path = image_folder / "instances.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["labels"] = sorted({image["label"] for image in document["images"]})
    path.write_text(json.dumps(document), encoding="utf-8")
    describe_data(image_folder, lines.append, strict=True)
    assert [line.endswith("images: read as several tasks") for line in lines] == [True]
