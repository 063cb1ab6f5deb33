from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.search.nars.recipes import RecipeVariable, check_recipes, default_recipes, make_variables, recipe_fields
from fbnetv5.tasks import task_types
from fbnetv5.training.config import TrainConfig


def test_a_range_has_numbers_at_equal_distances() -> None:
    assert RecipeVariable(low=0.0, high=0.3, levels=4).choices == (0.0, 0.1, 0.2, 0.3)
    assert RecipeVariable(low=1e-3, high=1e-1, levels=3, log=True).choices == (0.001, 0.01, 0.1)
    assert len(RecipeVariable(low=0.1, high=0.2).choices) == 16
    assert RecipeVariable(values=("a", "b")).choices == ("a", "b")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "either values, or low and high"),
    "both": ({"values": (1, 2), "low": 0.0, "high": 1.0}, "either values, or low and high"),
    "half a range": ({"low": 0.0}, "either values, or low and high"),
    "half a range and values": ({"low": 0.0, "values": (1, 2)}, "either values, or low and high"),
    "descending": ({"low": 2.0, "high": 1.0}, "must ascend"),
    "logarithm of 0": ({"low": 0.0, "high": 1.0, "log": True}, "above 0 if log"),
    "equal values": ({"values": (1, 1)}, "must differ"),
    "one level": ({"low": 0.0, "high": 1.0, "levels": 1}, "levels"),
    "range that rounds alike": ({"low": 1.0, "high": 1.001, "levels": 8}, "must differ"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_wrong_variables_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RecipeVariable(**fields)


@pytest.mark.parametrize("task", task_types())
def test_every_value_of_the_default_recipes_can_be_trained(task: str) -> None:
    recipes = default_recipes(task_types()[task])
    check_recipes(recipes)
    assert ("label_smoothing" in recipes) == task_types()[task].can_smooth
    for position, (name, variable) in enumerate(recipes.items()):
        for choice in range(len(variable.choices)):
            choices = [choice if other == position else 0 for other in range(len(recipes))]
            fields = recipe_fields(recipes, choices)
            assert fields[name] == TrainConfig(task_names=(task,), **fields).to_json()[name]


def test_the_learning_rate_and_decay_of_an_optimizer_are_scaled() -> None:
    recipes = {
        "lr": RecipeVariable(values=(0.003,)),
        "optimizer": RecipeVariable(values=("adamw", "sgd", "rmsprop")),
        "weight_decay": RecipeVariable(values=(0.02,)),
    }
    assert recipe_fields(recipes, [0, 0, 0]) == {"lr": 0.003, "optimizer": "adamw", "weight_decay": 0.02}
    assert recipe_fields(recipes, [0, 1, 0]) == {"lr": 0.03, "optimizer": "sgd", "weight_decay": 2e-5}
    assert recipe_fields(recipes, [0, 2, 0]) == {"lr": 0.003, "optimizer": "rmsprop", "weight_decay": 2e-5}


def test_fields_that_are_not_searched_are_scaled_too() -> None:
    recipes = {"optimizer": RecipeVariable(values=("adamw", "sgd"))}
    common = {"lr": 0.003, "weight_decay": 0.012345}
    assert recipe_fields(recipes, [0], common) == {"optimizer": "adamw", **common}
    assert recipe_fields(recipes, [1], common) == {"optimizer": "sgd", "lr": 0.03, "weight_decay": 1.2345e-5}


@pytest.mark.parametrize("value", ["x", True])
def test_values_that_are_no_numbers_are_not_scaled(value: str | bool) -> None:
    recipes = {"lr": RecipeVariable(values=(value, 1.5)), "optimizer": RecipeVariable(values=("sgd",))}
    assert recipe_fields(recipes, [0, 0])["lr"] is value


@pytest.mark.parametrize("fields", [{"low": 0.1}, {"lo": 0.1}, {"low": 0.1, "high": 1.0, "levels": 1}], ids=str)
def test_the_error_of_a_variable_names_it(fields: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^recipes\.mixup: "):
        make_variables({"lr": RecipeVariable(values=(0.1, 0.2)), "mixup": fields})


@pytest.mark.parametrize("name", ["learning_rate", "data", "seed", "steps", "scenes"])
def test_fields_that_cannot_be_searched_are_refused_with_those_that_can(name: str) -> None:
    with pytest.raises(UserError, match=rf"no field '{name}' to search; there are: .*\blr\b"):
        check_recipes({name: RecipeVariable(values=(1, 2))}, ("steps",))
