"""Strict reading of what a JSON document of this package holds: each value is what it must be, or an error names it.

A table that was cut short or edited by hand must be refused, never read as something smaller.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json, write_json

_ENVELOPE = ("schema", "sha256")


def write_sealed(path: Path, content: Mapping[str, Any], *, schema: int) -> None:
    """Write ``content`` with its schema number and checksum, whole or not at all."""
    write_json(path, {"schema": schema, **content, "sha256": _checksum(content)})


def read_sealed(path: Path, kind: type[Any], *, what: str, schema: int) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote: the fields of the dataclass ``kind``, as yet unchecked in themselves.

    Raises:
        UserError: missing, of another schema, with other fields than ``kind``, or edited.
    """
    document = read_json(path, what=what, schema=schema)
    known = {one.name for one in fields(kind)}
    if wrong := sorted(known - document.keys()) or sorted(document.keys() - known - set(_ENVELOPE)):
        raise UserError(
            f"{what} {path} lacks or does not know {wrong[0]!r}: it is damaged. Delete it and make it again"
        )
    content = {name: document[name] for name in known}
    if document.get("sha256") != _checksum(content):
        raise UserError(f"{what} {path} was edited or damaged: checksums differ. Delete it and make it again")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    """sha256 of ``content``, whatever its order and spacing."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def record(value: Any, what: str, kind: type[Any]) -> dict[str, Any]:
    """``value`` if it is an object with the fields of the dataclass ``kind``."""
    names = sorted(one.name for one in fields(kind))
    if not isinstance(value, dict) or sorted(value) != names:
        raise UserError(f"{what} is not an object of {names}: {value!r}")
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    """``value`` if it is an object."""
    if not isinstance(value, dict):
        raise UserError(f"{what} is not an object: {value!r}")
    return value


def text(value: Any, what: str) -> str:
    """``value`` if it is text that is not empty."""
    if not isinstance(value, str) or not value:
        raise UserError(f"{what} is {value!r}, not a name")
    return value


def count(value: Any, what: str, *, least: int = 1) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if type(value) is not int or value < least:
        raise UserError(f"{what} is {value!r}, where a whole number of at least {least} is needed")
    return value


def number(value: Any, what: str, *, positive: bool = False, signed: bool = False) -> float:
    """``value`` if it is a finite number of the sign allowed."""
    sign = "positive " if positive else "" if signed else "non-negative "
    finite = type(value) in (int, float) and math.isfinite(value)
    if not finite or (value < 0 and not signed) or (value == 0 and positive):
        raise UserError(f"{what} is {value!r}, where a {sign}finite number is needed")
    return float(value)
