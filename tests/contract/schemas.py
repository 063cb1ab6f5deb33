"""The contract of the command line's JSON documents: a JSON Schema in ``documents/`` for each form of a command."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from fbnetv5.cli.profile import profile as profile_app

DOCUMENTS = Path(__file__).parent / "documents"
PROFILE_FORMS = tuple(
    str(command.name) for command in profile_app.registered_commands if command.name not in (None, "import")
)
"""Sub-commands of ``profile`` with their own document; ``profile import`` prints the document of ``profile``."""


def schema_name(arguments: Sequence[str]) -> str:
    """Name of the schema for the document that a command line prints, such as "profile-verify"."""
    command, *others = arguments
    if command == "profile" and others and others[0] in PROFILE_FORMS:
        return f"profile-{others[0]}"
    if command == "profile" and "--dry-run" in others:
        return "profile-dry-run"
    if command == "label" and "--preview" in others:
        return "label-preview"
    if command == "export" and "--task" not in others:
        return "export-run"
    return command


@cache
def registry() -> Registry[Any]:
    """All schemas by file name."""
    schemas = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DOCUMENTS.glob("*.json")}
    return Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in schemas.items())


def check_document(arguments: Sequence[str], document: Any) -> None:
    """Raise AssertionError with every difference between the document of a command and its schema."""
    name = schema_name(arguments)
    validator = Draft202012Validator(registry().contents(f"{name}.json"), registry=registry())
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not errors, f"{name}: {'; '.join(errors)}"
