"""The base class of configurations and JSON files: a pydantic model whose errors are one line.

A field's type, default, constraint and description are one declaration. Values are not converted: "3" is not a number
and 3.0 is not an integer, so a typing error in a user's file is an error and does not start another search.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict, ValidationError
from pydantic_core import ErrorDetails

from export.errors import UserError

_Item = TypeVar("_Item")
JsonTuple: TypeAlias = Annotated[tuple[_Item, ...], Strict(False)]
"""A tuple that may be given as a list, because JSON has lists only; its items are not converted."""


def _check_plain_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


PlainName = Annotated[str, AfterValidator(_check_plain_name)]
"""A file of the document's own folder: a document from elsewhere must not name files outside it."""


class Document(BaseModel):
    """A frozen record of validated fields. The docstring below a field is its description in the JSON Schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    title: ClassVar[str]
    """The name of the record in messages, e.g. "search"."""

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems = "; ".join(_describe(details, type(self)) for details in error.errors())
            raise UserError(f"{self.title}: {problems}") from None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return self.model_dump(mode="json")

    def changed(self, **fields: Any) -> Self:
        """A copy with other values of some fields; fields that were not set keep their defaults and stay unset.

        Raises:
            UserError: a value is not valid.
        """
        return type(self)(**({name: getattr(self, name) for name in self.model_fields_set} | fields))


def _describe(details: ErrorDetails, model: type[Document]) -> str:
    """The error of one field, in one phrase."""
    name = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"there is no field {name!r}; there are: {', '.join(model.model_fields)}"
    if details["type"] == "missing":
        return f"{name} is missing"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{name}: {message}, not {details['input']!r}" if name else message
