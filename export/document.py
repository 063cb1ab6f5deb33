"""Configurations as pydantic models: a field's type, default, limits and description stand in one declaration.

Values are never converted: "3" is no number and 3.0 no whole one, so a typing error in a user's file is an error and
not another search. Whatever is wrong becomes one line of a ``UserError``.
"""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from export.errors import UserError


class Document(BaseModel):
    """A frozen record of checked fields. The docstring below a field is its description in the JSON Schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    title: ClassVar[str]
    """The name of such a record in messages, e.g. "search"."""

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems = "; ".join(_problem(details, type(self)) for details in error.errors())
            raise UserError(f"{self.title}: {problems}") from None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return self.model_dump(mode="json")

    def changed(self, **fields: Any) -> Self:
        """A copy with other values of some fields.

        Raises:
            UserError: a value is refused.
        """
        return type(self)(**({name: getattr(self, name) for name in type(self).model_fields} | fields))


def _problem(details: ErrorDetails, model: type[Document]) -> str:
    """What is wrong with one field, in one phrase."""
    name = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"there is no field {name!r}; there are: {', '.join(model.model_fields)}"
    if details["type"] == "missing":
        return f"{name} is missing"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{name}: {message}, not {details['input']!r}" if name else message
