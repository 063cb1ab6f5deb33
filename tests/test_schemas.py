"""The JSON Schemas in docs/schemas/ are those of the code, and accept what the commands accept."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tools.write_schemas import CONFIGS, FOLDER


@pytest.mark.parametrize("command", CONFIGS)
def test_the_schema_in_the_docs_is_that_of_the_code(command: str) -> None:
    written = json.loads((FOLDER / f"{command}.json").read_text(encoding="utf-8"))
    assert written == CONFIGS[command].schema_of_files(), "run: python tools/write_schemas.py"
    Draft202012Validator.check_schema(written)
    header = {name for name, field in written["properties"].items() if "const" in field}
    assert set(written["properties"]) - header == set(CONFIGS[command].settable())
    assert header == ({"schema", "kind"} if command == "train" else set())
    assert all(field.get("description") or field.get("$ref") for field in written["properties"].values())


def test_a_config_file_is_checked_as_the_search_checks_it() -> None:
    schema = Draft202012Validator(CONFIGS["search"].schema_of_files())
    quick = json.loads((Path(__file__).parent / "quick-search.json").read_text(encoding="utf-8"))
    assert schema.is_valid(quick)
    refused: list[dict[str, Any]] = [{"stepz": 3}, {"steps": -1}, {"steps": "3"}, {"budgets": {}}]
    for wrong in refused:
        assert not schema.is_valid(wrong)


def test_the_variables_of_a_recipe_are_checked_as_the_search_checks_them() -> None:
    schema = Draft202012Validator(CONFIGS["nars"].schema_of_files())
    assert schema.is_valid({"recipes": {"lr": {"low": 0.001, "high": 0.01, "log": True}}, "iterations": 5})
    assert schema.is_valid({"recipes": {"optimizer": {"values": ["sgd", "rmsprop"]}}, "training": {"steps": 300}})
    wrong: list[dict[str, Any]] = [{"recipes": {"lr": {"lowest": 0.1}}}, {"recipes": {}}, {"acquisition": "random"}]
    for document in wrong:
        assert not schema.is_valid(document)
