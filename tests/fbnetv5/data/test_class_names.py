from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.data.class_names import class_ids, classes_of


def classes(*values: Any) -> tuple[str, ...]:
    return classes_of(((value, f"f:{line}") for line, value in enumerate(values, 1)), "label")


def test_names_are_sorted_and_numbers_are_filled_up() -> None:
    assert classes("b", "a", "b") == ("a", "b")
    assert classes(2, 0) == ("class 0", "class 1", "class 2")
    assert classes() == ()
    assert class_ids(("a", "b")) == {"a": 0, "b": 1, 0: 0, 1: 1}


@pytest.mark.parametrize("value", ["", -1, True, 1.5, None, ["a"]])
def test_another_value_is_named_with_its_place(value: Any) -> None:
    with pytest.raises(UserError, match="f:2: label must be the name of a class, or its number"):
        classes("a", value)


def test_names_and_numbers_together_are_refused() -> None:
    with pytest.raises(UserError, match="f:2: label is 'a', and f:1 names or numbers it in the other way"):
        classes(3, "a")


def test_a_number_that_is_not_that_of_a_class_is_refused() -> None:
    rows = [(3, "line 1"), (9_783_161_484_100, "line 2"), (5, "line 3")]
    with pytest.raises(UserError, match=r"^line 2: label 9783161484100 would make 9783161484101 classes: write names"):
        classes_of(rows, "label")
