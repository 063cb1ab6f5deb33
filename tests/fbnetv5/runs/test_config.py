"""The ``config.json`` of every method, of this version and of schema 1."""

import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.runs.config import Run
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.training.config import TrainConfig

DATA = DataConfig(folder="/images", size=(96, 64), scenes=(3, 2, 1))
BUDGETS: dict[str, tuple[Budget, ...]] = {
    "seg": (Budget(limit=4e8, unit="macs"),),
    "cls": (Budget(limit=8.0, unit="ms"),),
}
METHODS: dict[str, tuple[SearchConfig | TrainConfig, tuple[str, ...]]] = {
    "search": (SearchConfig(budgets=BUDGETS, data=DATA), ("seg", "cls")),
    "training": (TrainConfig(task_names=("det",), data=DATA), ("det",)),
}


@pytest.mark.parametrize("kind", METHODS)
def test_a_run_of_any_method_has_the_same_fields(kind: str, tmp_path: Path) -> None:
    config, tasks = METHODS[kind]
    config.save(tmp_path)
    assert Run.load(tmp_path) == Run(kind=kind, tasks=tasks, data=DATA)


def schema_1(config: SearchConfig | TrainConfig) -> dict[str, Any]:
    """A configuration as version 0.1 wrote it before methods had a kind."""
    document = config.to_json()
    data = document.pop("data")
    return {"schema": 1, "data": data["folder"], "size": data["size"], "pictures": data["scenes"], **document}


def test_a_search_of_schema_1_is_read(tmp_path: Path) -> None:
    config = METHODS["search"][0]
    (tmp_path / "config.json").write_text(json.dumps(schema_1(config)), encoding="utf-8")
    assert SearchConfig.load(tmp_path) == config
    assert Run.load(tmp_path).data == DATA


def test_a_run_without_a_fit_stretched(tmp_path: Path) -> None:
    config = METHODS["search"][0]
    document = {"schema": 2, "kind": "search", "tasks": ["seg", "cls"], **config.to_json()}
    assert document["data"].pop("fit") == "stretch"
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    assert SearchConfig.load(tmp_path).data.fit == Run.load(tmp_path).data.fit == "stretch"


def test_a_training_of_schema_1_is_read(tmp_path: Path) -> None:
    search, training = METHODS["search"][0], METHODS["training"][0]
    (tmp_path / "config.json").write_text(json.dumps(schema_1(search)), encoding="utf-8")  # for export
    document = schema_1(training)
    for added in ("task_names", "task_weights"):
        del document[added]
    (tmp_path / "training.json").write_text(json.dumps(document | {"task": "det"}), encoding="utf-8")
    assert TrainConfig.load(tmp_path) == training
    assert Run.load(tmp_path) == Run(kind="training", tasks=("det",), data=DATA)
    with pytest.raises(UserError, match="is the folder of a training, not of a search"):
        SearchConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("{}", "schema None; this version reads 1 and 2"), ('{"schema": 2}', "kind is missing")],
    ids=["cut", "empty", "no fields"],
)
def test_a_damaged_run_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "steps: 12\nweight_lr: 1e-3\nscenes: [5, 4, 3]\n"),
        ("c.json", '{"steps": 12, "weight_lr": 1e-3, "scenes": [5, 4, 3]}'),
    ],
    ids=["YAML", "JSON"],
)
def test_a_file_sets_fields_without_a_flag(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    config = SearchConfig.make(tmp_path / name, budgets=BUDGETS, data=DATA, seed=7)
    assert (config.steps, config.weight_lr, config.seed) == (12, 1e-3, 7)
    assert config.data == DATA.changed(scenes=(5, 4, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "no field 'seed' to set; there are: batch"),
        ("step: 1", "no field 'step' to set"),
        ("steps: many", r"c.yaml: search: steps: must be a valid integer, not 'many'"),
        ("scenes: [1, 2]", "c.yaml: data: scenes.2 is missing"),
        ("- steps", "is not a list of NAME: VALUE lines"),
        ("steps: [", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        SearchConfig.make(tmp_path / "c.yaml", budgets=BUDGETS, data=DATA, seed=7)
