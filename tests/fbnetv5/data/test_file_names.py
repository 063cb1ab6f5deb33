import time
import unicodedata
from pathlib import Path

import pytest

from fbnetv5.data.file_names import repair_file_names
from fbnetv5.data.notes import Notes

STORED = ("0.jpg", "sub/1.jpg", unicodedata.normalize("NFD", "é.jpg"), "b\\c.jpg", "Two.png", "TWO.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in STORED:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("0.jpg", "0.jpg"),
        ("images\\0.jpg", "0.jpg"),
        ("./images/0.jpg", "0.jpg"),
        ("sub\\1.jpg", "sub/1.jpg"),
        ("images/sub/1.jpg", "sub/1.jpg"),
        (unicodedata.normalize("NFC", "é.jpg"), STORED[2]),
        ("IMAGES\\0.JPG", None),
        ("images\\SUB\\1.jpg", None),
        ("sub\\1.JPG", "sub/1.jpg"),
        ("two.png", None),
        ("b\\c.jpg", "b\\c.jpg"),
    ],
)
def test_another_spelling_becomes_the_name_of_the_file(folder: Path, name: str, stored: str | None) -> None:
    records, notes = [{"file_name": name}], Notes()
    assert repair_file_names(records, folder, notes) == (stored is not None)
    assert records == [{"file_name": stored or name}]
    assert len(notes.lines()) == (stored not in (None, name))


def test_a_name_of_no_file_is_kept(folder: Path) -> None:
    for name in ("2.jpg", "", "a\0b", "\udc80", "\ud83d", "none/0.jpg", "../x/0.jpg"):
        records = [{"file_name": name}, {"file_name": "images/0.jpg"}]
        assert not repair_file_names(records, folder, Notes())
        assert records == [{"file_name": name}, {"file_name": "images/0.jpg"}]
    assert not repair_file_names([], folder, Notes())


def test_the_time_for_many_names_in_another_case_grows_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.listdir", lambda folder: [f"{number}.JPG" for number in range(20_000)])
    records, start = [{"file_name": f"{number}.jpg"} for number in range(20_000)], time.process_time()
    assert repair_file_names(records, tmp_path, Notes())
    assert records[-1] == {"file_name": "19999.JPG"}
    assert time.process_time() - start < 5  # comparing each name with each file took a minute
