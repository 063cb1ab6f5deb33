"""Search spaces, discovered in this folder: a module that defines a concrete subclass of ``Space`` adds one."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from export.discovery import concrete_subclasses
from export.errors import UserError
from fbnetv5.spaces.space import Space

OLD_KIND = "four_path"
"""Kind of a space in older files, which name no kind."""


def space_types() -> dict[str, type[Space]]:
    """Kind -> class of spaces."""
    return {space.model_fields["kind"].default: space for space in concrete_subclasses(__name__, Space)}  # type: ignore[type-abstract]


def read_space(document: Any) -> Space:
    """The space that a JSON object describes.

    Raises:
        UserError: the document is not an object, its kind does not exist, or a field is missing, unknown or out of
        range.
    """
    if not isinstance(document, Mapping):
        raise UserError(f"a space is an object of fields, not {document!r}")
    kind, types = document.get("kind", OLD_KIND), space_types()
    if not isinstance(kind, str) or kind not in types:
        raise UserError(f"unknown kind of space {kind!r}; there are: {', '.join(types)}")
    missing = types[kind].model_fields.keys() - {"kind"} - document.keys()
    if missing:
        raise UserError(f"space: {', '.join(sorted(missing))} missing")
    return types[kind](**document)


def _space(value: Any) -> Any:
    return value if isinstance(value, Space) else read_space(value)


SpaceField = Annotated[InstanceOf[Space], BeforeValidator(_space), PlainSerializer(lambda space: space.to_json())]
"""A space of any kind as a field of a document."""
