import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.nars.recipes import RecipeVariable, default_recipes
from fbnetv5.tasks import task_types
from tests.fbnetv5.search.nars.conftest import SPACE, tiny_config


def test_a_stored_configuration_is_loaded_as_it_was(tmp_path: Path) -> None:
    config = tiny_config(fixed=tuple(SPACE.full().tolist()))
    config.save(tmp_path)
    assert NarsConfig.load(tmp_path) == config
    document = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (document["kind"], document["tasks"]) == ("nars", ["cls"])


def test_the_default_recipes_are_stored(tmp_path: Path) -> None:
    fields = {name: value for name, value in tiny_config().__dict__.items() if name in NarsConfig.model_fields}
    config = NarsConfig(**{name: value for name, value in fields.items() if name != "recipes"})
    assert config.recipes == default_recipes(task_types()["cls"])
    config.save(tmp_path)
    assert "label_smoothing" in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["recipes"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no budget": ({"budgets": ()}, "budgets: Tuple should have at least 1 item"),
    "an unknown task": ({"task_name": "weather"}, "weather"),
    "half a range": ({"recipes": {"mixup": {"low": 0.1}}}, r"recipes\.mixup: .* either values, or low and high"),
    "a variable that is none": ({"recipes": {"mixup": 3}}, r"recipes\.mixup: must be a valid dictionary"),
    "texts in place of numbers": (
        {"recipes": {"lr": {"values": ["x", "y"]}, "optimizer": {"values": ["sgd", "adamw"]}}},
        "training: lr: must be a valid number, not 'x'",
    ),
    "an unknown field to search": ({"recipes": {"learning": RecipeVariable(values=(1, 2))}}, "no field 'learning'"),
    "a field that all share": ({"recipes": {"steps": RecipeVariable(values=(1, 2))}}, "no field 'steps'"),
    "no recipe": ({"recipes": {}}, "recipes"),
    "a field twice": ({"training": {"lr": 0.1}}, "lr stands in recipes and in training"),
    "a field of its own": ({"training": {"stop_at": 4}}, "no field 'stop_at'"),
    "an unknown field of all": ({"training": {"stepz": 4}}, "no field 'stepz'"),
    "a value of all out of range": ({"training": {"batch": 0}}, "batch"),
    "a first value out of range": ({"recipes": {"lr": RecipeVariable(values=(-1.0, 1.0))}}, "lr"),
    "a last value out of range": ({"recipes": {"dropout": RecipeVariable(values=(0.0, 1.5))}}, "dropout"),
    "a value that scales out of range": ({"recipes": {"scale": RecipeVariable(values=(1.0, 2.0))}}, "scale"),
    "a learning rate that the factor of an optimizer takes out of range": (
        {"recipes": {"lr": RecipeVariable(values=(1.0, 1e12)), "optimizer": RecipeVariable(values=("adamw", "sgd"))}},
        "lr",
    ),
    "a batch of one": ({"first_batch": 1}, "first_batch"),
    "a teacher among the fields of all": ({"training": {"teacher": "t.json"}}, "no field 'teacher'"),
    "a temperature without a teacher": (
        {"recipes": {"temperature": RecipeVariable(values=(1.0, 2.0))}},
        "temperature has no effect without a teacher",
    ),
    "choices of another space": ({"fixed": (0, 1)}, "2 choices do not fit"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(**changes)


def test_a_training_has_the_fields_of_all_and_those_of_its_recipe() -> None:
    config = tiny_config(seed=7)
    training = config.train_config({"lr": 0.5, "optimizer": "sgd"}, stop_at=2)
    assert (training.lr, training.optimizer, training.stop_at) == (0.5, "sgd", 2)
    assert (training.steps, training.batch, training.held_out, training.seed) == (4, 8, 16, 7)
    assert training.init == "scratch"
    assert training.data == config.data
    assert config.steps == 4


LR = 7e-4
"""AdamW's learning rate in a training of classification that names none."""
SEARCHED: dict[str, tuple[list[str], dict[str, float], dict[str, tuple[float, float]]]] = {
    "defaults": (["adamw", "sgd"], {}, {"adamw": (LR, 0.02), "sgd": (10 * LR, 2e-5)}),
    "values of all trainings": (
        ["adamw", "sgd", "rmsprop"],
        {"lr": 0.002, "weight_decay": 0.05},
        {"adamw": (0.002, 0.05), "sgd": (0.02, 5e-5), "rmsprop": (0.002, 5e-5)},
    ),
    "another first optimizer": (["sgd", "adamw"], {}, {"sgd": (10 * LR, 2e-5), "adamw": (LR, 0.02)}),
}


@pytest.mark.parametrize(("optimizers", "fields", "expected"), SEARCHED.values(), ids=SEARCHED)
def test_a_searched_optimizer_has_its_own_rate_and_decay_also_where_they_are_not_searched(
    optimizers: list[str], fields: dict[str, float], expected: dict[str, tuple[float, float]]
) -> None:
    recipes = {"optimizer": RecipeVariable(values=tuple(optimizers)), "mixup": RecipeVariable(values=(0.0, 0.2))}
    config = tiny_config(recipes=recipes, training={**tiny_config().training, **fields})
    trainings = {training.optimizer: (training.lr, training.weight_decay) for training in config.trainings()}
    assert trainings == expected


def test_the_values_of_an_optimizer_that_is_not_searched_are_its_own() -> None:
    fields = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4}
    config = tiny_config(
        recipes={"mixup": RecipeVariable(values=(0.0, 0.2))}, training={**tiny_config().training, **fields}
    )
    assert {(training.lr, training.weight_decay) for training in config.trainings()} == {(0.1, 1e-4)}


def test_every_training_imitates_the_teacher_with_the_share_of_its_recipe() -> None:
    config = tiny_config(teacher="t.json", recipes={"distillation": RecipeVariable(values=(0.2, 0.6))})
    assert config.teacher == str(Path("t.json").absolute())
    assert {(training.teacher, training.distillation) for training in config.trainings()} == {
        (config.teacher, 0.2),
        (config.teacher, 0.6),
    }


def test_the_defaults_of_the_task_hold_unless_the_search_has_others() -> None:
    name, fields = next((name, task.training) for name, task in task_types().items() if task.training)
    config = tiny_config(task_name=name, recipes={"lr": RecipeVariable(values=(0.1, 0.2))})
    for field, value in fields.items():
        assert config.train_fields({})[field] == tiny_config().training.get(field, value)


def test_the_ensemble_has_the_members_of_the_configuration() -> None:
    settings = tiny_config(members=7, pretraining_epochs=0).predictor
    assert (settings.members, settings.pretraining_epochs) == (7, 0)
