"""The JSON documents of the command line as a contract: one JSON Schema in ``documents/`` per form of a command."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

DOCUMENTS = Path(__file__).parent / "documents"
PROFILE_FORMS = ("dry-run", "verify", "bundle", "estimate")
"""Flags of ``profile`` whose document differs from a profile's; that of ``--import`` does not."""


def schema_name(arguments: Sequence[str]) -> str:
    """The schema of the document that a command line prints, such as "profile-verify"."""
    command = arguments[0]
    forms = [f"profile-{form}" for form in PROFILE_FORMS if command == "profile" and f"--{form}" in arguments]
    if command == "export" and "--task" not in arguments:
        forms.append("export-run")
    return forms[0] if forms else command


@cache
def registry() -> Registry[Any]:
    """All schemas by file name."""
    schemas = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DOCUMENTS.glob("*.json")}
    return Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in schemas.items())


def check_document(arguments: Sequence[str], document: Any) -> None:
    """Raise AssertionError with every difference between a command's document and its schema."""
    name = schema_name(arguments)
    validator = Draft202012Validator(registry().contents(f"{name}.json"), registry=registry())
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not errors, f"{name}: {'; '.join(errors)}"
