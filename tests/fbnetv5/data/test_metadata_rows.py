from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.data.labelled_images import ImageRecord
from fbnetv5.data.metadata_rows import Row, add_boxes, add_labels, class_number, objects_of

FORMS: dict[str, Any] = {
    "lists": {"bbox": [[1, 2, 3, 4]], "categories": ["a"]},
    "list of objects": [{"bbox": [1, 2, 3, 4], "category": "a"}],
    "text": '{"bbox": [[1, 2, 3, 4]], "label": ["a"]}',
}


def row(**values: Any) -> Row:
    return Row(values=values, folder=Path(), where="f:1", objects=objects_of(values.get("objects"), "f:1"))


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test_objects_have_several_forms(value: Any) -> None:
    assert objects_of(value, "f:1") == [([1, 2, 3, 4], "a")]
    assert objects_of(None, "f:1") is None


@pytest.mark.parametrize("value", ["{", 5, {"bbox": 1}, [1], {"bbox": [], "categories": [1]}])
def test_other_forms_are_named_with_their_place(value: Any) -> None:
    with pytest.raises(UserError, match='f:1: "objects"'):
        objects_of(value, "f:1")


@pytest.mark.parametrize(
    ("text", "expected"), [("12", 12), (" 3 ", 3), ("-1", -1), ("- 1", None), ("1.0", None), ("a1", None), ("", None)]
)
def test_a_text_of_digits_is_the_number_of_a_class(text: str, expected: int | None) -> None:
    assert class_number(text) == expected


def test_rows_label_their_images() -> None:
    rows = [row(label=2, objects=FORMS["lists"]), row(label=-1, objects={"bbox": [], "categories": []}), row()]
    images = [ImageRecord(path=f"{number}.png", size=(8, 8)) for number in range(3)]
    for image, item in zip(images, rows, strict=True):
        add_boxes(image, item)
    targets = add_labels(rows, images)
    assert {name: target.classes for name, target in targets.items()} == {
        "label": ("class 0", "class 1", "class 2"),
        "boxes": ("a",),
    }
    assert [image.label for image in images] == [2, None, None]
    assert [image.boxes for image in images] == [[(1, 2, 4, 6)], [], None]
    assert [image.box_labels for image in images] == [[0], [], None]
