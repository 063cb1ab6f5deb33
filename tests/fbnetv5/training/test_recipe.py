import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.data.config import DataConfig
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.recipe import HEADER, Recipe, RecipeFields

FIELDS: dict[str, Any] = {
    "optimizer": "rmsprop",
    "lr": 0.02,
    "weight_decay": 1e-5,
    "ema_decay": 0.0,
    "dropout": 0.2,
    "stochastic_depth": 0.2,
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "augment": 0.3,
    "epochs": 1.5,
    "scale": (0.5, 2.0),
    "size": (96, 64),
}


def test_a_recipe_file_has_the_fields_that_were_set(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    recipe = Recipe(**FIELDS)
    recipe.save(path)
    assert json.loads(path.read_text()) == {"schema": 1, "kind": "recipe"} | json.loads(json.dumps(FIELDS))
    assert Recipe.load(path) == recipe
    assert Recipe.load(path).to_json() == recipe.to_json()
    assert Recipe().to_json() == {}


def test_a_training_reads_a_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    Recipe(**FIELDS).save(path)
    data = DataConfig(scenes=(3, 2, 1))
    config = TrainConfig.make(path, defaults={"lr": 5.0, "clip_norm": 2.0}, task_names=("cls",), data=data)
    fields = {name: value for name, value in FIELDS.items() if name != "size"}
    assert config == TrainConfig(task_names=("cls",), clip_norm=2.0, data=data.changed(size=FIELDS["size"]), **fields)
    with pytest.raises(UserError, match=r"recipe\.json: size is also set by --size: remove one of the two$"):
        TrainConfig.make(path, task_names=("cls",), data=data, used=("size",))


def test_every_field_of_a_recipe_is_one_of_a_training() -> None:
    for name, field in RecipeFields.model_fields.items():
        assert TrainConfig.model_fields[name].metadata == field.metadata
    assert set(Recipe.model_fields) == set(TrainConfig.settable()) - {
        "held_out", "task_weights", "evaluate_every", "checkpoint_every", "scenes", "stop_at", "cuda_graphs",
        "max_skipped", "num_workers", "prefetch",
    }  # fmt: skip


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"speed": 1}, r"r\.json: recipe: there is no field 'speed'; there are: steps"),
    "range": ({"dropout": 1.0}, r"r\.json: recipe: dropout: must be less than 1, not 1\.0$"),
    "type": ({"epochs": "3"}, r"r\.json: recipe: epochs: must be a valid number, not '3'$"),
    "both lengths": ({"epochs": 3, "steps": 7}, r"r\.json: recipe: steps and epochs both set the length"),
    "size": ({"size": [48, 64]}, r"r\.json: resolution 48x64: height and width must be multiples of 32"),
    "scale": ({"scale": [2.0, 1.0]}, r"r\.json: recipe: scale must be a range of factors"),
    "kind": ({"kind": "search"}, r"r\.json has kind 'search', not 'recipe': it is not a recipe$"),
    "schema": ({"schema": 2}, r"recipe file .*r\.json has schema 2; this version reads schema 1$"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**HEADER, **fields}))
    with pytest.raises(UserError, match=message) as recipe:
        Recipe.load(path)
    with pytest.raises(UserError) as training:
        TrainConfig.make(path, task_names=("cls",), data=DataConfig())
    assert "\n" not in str(recipe.value) + str(training.value)
    assert "r.json" in str(training.value)


@pytest.mark.parametrize(("header", "message"), [({"schema": 1}, "has kind None"), ({"kind": "recipe"}, "schema None")])
def test_half_a_header_is_refused(tmp_path: Path, header: dict[str, Any], message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(header))
    with pytest.raises(UserError, match=message):
        TrainConfig.make(path, task_names=("cls",), data=DataConfig())
