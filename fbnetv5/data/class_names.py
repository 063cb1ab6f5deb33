"""The classes of annotations that state a name or a number for each image or object, and list the classes nowhere."""

from collections.abc import Iterable
from reprlib import repr as short
from typing import Any

from export.errors import UserError

MAX_NUMBERED = 100_000
"""Numbers from here on are taken for those of something else, such as products."""


def classes_of(values: Iterable[tuple[Any, str]], what: str) -> tuple[str, ...]:
    """The names of the classes that are used: names sorted, or "class 0" and so on up to the largest number.

    Args:
        values: each a name or a number, with its place for messages.
        what: the values are, such as "label".

    Raises:
        UserError: a value is neither, some are names and others numbers, or a number is no number of a class.
    """
    names, largest, first = set[str](), -1, ""
    place = ""
    for value, where in values:
        if isinstance(value, str) and value:
            names.add(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            largest, place = (value, where) if value > largest else (largest, place)
        else:
            raise UserError(f"{where}: {what} must be the name of a class, or its number from 0 on, got {short(value)}")
        if names and largest >= 0:
            raise UserError(f"{where}: {what} is {short(value)}, and {first} names or numbers it in the other way")
        first = first or where
    if largest >= MAX_NUMBERED:
        raise UserError(
            f"{place}: {what} {largest} would make {largest + 1} classes: write names, or number the classes from 0 on"
        )
    return tuple(sorted(names)) or tuple(f"class {number}" for number in range(largest + 1))


def class_ids(classes: tuple[str, ...]) -> dict[str | int, int]:
    """The id of each class by its name, and by its number."""
    numbers = range(len(classes))
    return {**dict(zip(classes, numbers, strict=True)), **dict(zip(numbers, numbers, strict=True))}
