from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from export.document import Document
from export.errors import UserError


class Example(Document):
    title: ClassVar[str] = "example"
    count: Annotated[int, Field(ge=2)] = 3
    """How many."""
    name: str = ""


WRONG = {
    "text": ({"count": "3"}, "example: count: must be a valid integer, not '3'"),
    "float": ({"count": 3.0}, "count: must be a valid integer, not 3.0"),
    "bool": ({"count": True}, "count: must be a valid integer, not True"),
    "limit": ({"count": 1}, "count: must be greater than or equal to 2, not 1"),
    "unknown": ({"counts": 3}, "there is no field 'counts'; there are: count, name"),
    "two": ({"count": "3", "name": 1}, "count: .*; name: must be a valid string, not 1"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_every_wrong_field_is_named_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Example(**fields)
    assert "\n" not in str(raised.value)


def test_a_changed_copy_is_checked_and_the_original_stays() -> None:
    example = Example(count=5)
    assert (example.changed(name="a"), example) == (Example(count=5, name="a"), Example(count=5))
    with pytest.raises(UserError, match="count: must be greater"):
        example.changed(count=0)
    assert example.changed(count=7).model_fields_set == {"count"}


def test_the_docstring_of_a_field_is_its_description() -> None:
    assert Example.model_json_schema()["properties"]["count"]["description"] == "How many."
