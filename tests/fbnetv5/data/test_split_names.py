import pytest

from fbnetv5.data.split_names import as_test_split, has_split_word, is_validation


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
        ("default", False),
    ],
)
def test_a_validation_split_has_a_word_for_it_and_none_for_training(name: str, expected: bool) -> None:
    assert is_validation(name) == expected
    assert has_split_word(name) == (name not in ("minival2014", "default"))


def test_a_test_split_of_all_images_is_none() -> None:
    assert as_test_split({"a"}, ["a", "b"]) == {"a"}
    assert as_test_split({"a", "b"}, ["a", "b"]) == frozenset()
