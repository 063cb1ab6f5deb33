"""JSON files with a schema number and a checksum over all their content.

A table that was cut short or edited by hand must be refused, never read as something smaller. Standard library only:
this file is part of the script that measures a bundle.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import check_schema, read_json_object, write_json


def write_checksummed(path: Path, content: Mapping[str, Any], *, schema: int) -> None:
    """Write ``content`` with its schema number and checksum, atomically."""
    write_json(path, {"schema": schema, **content, "sha256": _checksum(content)})


def read_checksummed(path: Path, *, what: str, schema: int | tuple[int, ...]) -> tuple[int, dict[str, Any]]:
    """Read a file of ``write_checksummed``; returns its schema number and its content.

    Args:
        path: the file.
        what: its name in messages, e.g. "latency table".
        schema: the schema number, or numbers, accepted.

    Raises:
        UserError: the file is missing, unreadable, of another schema, or edited.
    """
    return checked(read_json_object(path, what=what), path, what=what, schema=schema)


def checked(
    document: Mapping[str, Any], path: Path, *, what: str, schema: int | tuple[int, ...]
) -> tuple[int, dict[str, Any]]:
    """The schema number and the content of a document that was read from ``path``; as ``read_checksummed``."""
    check_schema(document, path, what=what, schema=schema)
    content = dict(document)
    version, sha256 = content.pop("schema"), content.pop("sha256", None)
    if sha256 is None:
        raise UserError(f"{path} is not a {what}, or it is damaged: it has no checksum")
    if sha256 != _checksum(content):
        raise UserError(f"{what} {path} was edited or damaged: checksums differ. Delete it and make it again")
    return version, content


def check_fields(content: Mapping[str, Any], record: type[Any], what: str) -> None:
    """Raise UserError if ``content`` has other fields than the dataclass ``record``."""
    if wrong := sorted({field.name for field in fields(record)} ^ content.keys()):
        raise UserError(f"{what} has a missing or unknown field {wrong[0]!r}: it is damaged. Make it again")


def _checksum(content: Mapping[str, Any]) -> str:
    """sha256 of ``content``, independent of order and spacing."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
