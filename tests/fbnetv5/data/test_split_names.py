import json
from pathlib import Path

import pytest

from fbnetv5.data.layouts import open_folder
from fbnetv5.data.split_names import as_test_split, has_split_word, is_validation
from tests.fbnetv5.data.rearrange import draw


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val", True),
        ("val2017", True),
        ("my_Test", True),
        ("valid/", True),
        ("train", False),
        ("train_val", False),
        ("trainval", False),
        ("minival2014", False),
        ("testdev2017", True),
        ("ValSet_1", True),
        ("trainset", False),
        ("default", False),
        ("valve", False),
        ("testudo", False),
        ("trainers", False),
        ("trainers_val", True),
    ],
)
def test_a_validation_split_has_a_word_for_it_and_none_for_training(name: str, expected: bool) -> None:
    assert is_validation(name) == expected
    assert has_split_word(name) == (name not in ("minival2014", "default", "valve", "testudo", "trainers"))


def test_a_folder_whose_name_only_starts_like_a_split_is_none(tmp_path: Path) -> None:
    rows = [{"file_name": f"{name}/0.png", "label": name} for name in ("gear", "test", "valve")]
    draw(tmp_path, *(row["file_name"] for row in rows))
    (tmp_path / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert open_folder(tmp_path).test == {"test/0.png"}


def test_a_test_split_of_all_images_is_none() -> None:
    assert as_test_split({"a"}, ["a", "b"]) == {"a"}
    assert as_test_split({"a", "b"}, ["a", "b"]) == frozenset()
