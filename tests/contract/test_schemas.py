"""Documents that differ from their schema are refused, and every command has a schema."""

import json

import pytest
from jsonschema import Draft202012Validator

from fbnetv5.cli import app
from tests.contract.schemas import DOCUMENTS, PROFILE_FORMS, check_document, registry

BUNDLE = {"bundle": "b", "device": "cpu", "precision": "fp32", "blocks": 3, "networks": 0}
WRONG = {
    "missing": ({key: value for key, value in BUNDLE.items() if key != "device"}, "'device' is a required property"),
    "additional": (BUNDLE | {"size": 3}, "'size' was unexpected"),
    "type": (BUNDLE | {"blocks": "3"}, r"\$.blocks: '3' is not of type 'integer'"),
}


@pytest.mark.parametrize(("document", "message"), WRONG.values(), ids=WRONG)
def test_a_document_that_differs_is_refused(document: dict[str, object], message: str) -> None:
    check_document(["profile", "bundle", "b"], BUNDLE)
    with pytest.raises(AssertionError, match=message):
        check_document(["profile", "bundle", "b"], document)


def test_every_command_has_a_valid_schema() -> None:
    names = {path.stem for path in DOCUMENTS.glob("*.json")}
    commands = {str(command.name) for command in app.registered_commands}
    commands |= {str(group.name) for group in app.registered_groups}
    assert commands <= names
    assert {f"profile-{form}" for form in PROFILE_FORMS} <= names
    for name in names:
        Draft202012Validator.check_schema(registry().contents(f"{name}.json"))


def test_the_document_of_an_exported_run_contains_the_documents_of_its_tasks() -> None:
    with pytest.raises(AssertionError, match="is a required property"):
        check_document(["export"], {"exported": [json.loads("{}")]})
