"""The variables of training recipes: fields of ``TrainConfig`` with a list of values each.

FBNetV3 (arXiv 2006.02049, section 3) searches the learning rate, optimizer, EMA, dropout, stochastic depth, mixup and
weight decay. The ranges here suit trainings of some hundred to some thousand steps and AdamW's learning rates. As in
the paper, numbers are multiples of a step, so a recipe is one choice per variable, as an architecture is.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, Strict, model_validator

from export.document import Document
from export.errors import UserError
from fbnetv5.tasks.task import Task
from fbnetv5.training.config import TrainConfig

FACTORS = {
    "sgd": {"lr": 10.0, "weight_decay": 1e-3},
    "rmsprop": {"weight_decay": 1e-3},
}
"""Optimizer -> factors of fields whose values are those of AdamW. SGD wants a higher learning rate (in the paper, 4
times that of RMSProp), and the decay of SGD and RMSProp is an L2 penalty."""
SCALED = tuple(sorted({name for factors in FACTORS.values() for name in factors}))
"""Fields that have such a factor."""
DIGITS = 3
"""Significant digits of a value between the limits of a range."""
SCALED_DIGITS = 12
"""Significant digits of a value times its factor: enough for every value, without the rounding error of the product."""


class RecipeVariable(Document):
    """A field of a training with its values: a list, or a range of numbers at equal distances."""

    title: ClassVar[str] = "recipe variable"
    values: Annotated[tuple[bool | int | float | str, ...], Strict(False)] = ()
    """The values, in ascending order if they are numbers."""
    low: float | None = None
    """Smallest number of a range, in place of ``values``."""
    high: float | None = None
    """Largest number of a range."""
    levels: Annotated[int, Field(ge=2, le=1024)] = 16
    """How many numbers a range has."""
    log: bool = False
    """Whether the logarithms of the numbers are at equal distances."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "RecipeVariable":
        is_range = self.low is not None and self.high is not None
        if bool(self.values) == is_range or (self.low is None) != (self.high is None):
            raise UserError("a recipe variable has either values, or low and high")
        if is_range and not (self.low < self.high and (self.low > 0 or not self.log)):  # type: ignore[operator]
            raise UserError(f"a recipe variable's range must ascend, and be above 0 if log: {self.low} to {self.high}")
        if len(set(self.choices)) != len(self.choices):
            raise UserError(
                f"a recipe variable's values must differ, those of a range in {DIGITS} digits: {self.choices}"
            )
        return self

    @property
    def choices(self) -> tuple[Any, ...]:
        """All values."""
        if self.low is None or self.high is None:
            return self.values
        values = np.geomspace if self.log else np.linspace
        return tuple(float(f"{value:.{DIGITS}g}") for value in values(self.low, self.high, self.levels))


Recipes = Mapping[str, RecipeVariable]

_ANY_TASK = {
    "lr": RecipeVariable(low=3e-4, high=1e-2, log=True),
    "optimizer": RecipeVariable(values=("adamw", "sgd", "rmsprop")),
    "weight_decay": RecipeVariable(low=1e-3, high=1e-1, levels=9, log=True),
    "ema_decay": RecipeVariable(values=(0.0, 0.9, 0.98, 0.995)),
    "dropout": RecipeVariable(low=0.0, high=0.3, levels=7),
    "stochastic_depth": RecipeVariable(low=0.0, high=0.3, levels=7),
    "mixup": RecipeVariable(low=0.0, high=0.4, levels=9),
    "augment": RecipeVariable(low=0.0, high=0.5, levels=6),
}


def default_recipes(task: type[Task]) -> dict[str, RecipeVariable]:
    """Field -> its values, unless the configuration has others: those that FBNetV3 searches, and augmentation."""
    if not task.can_smooth:
        return dict(_ANY_TASK)
    return {**_ANY_TASK, "label_smoothing": RecipeVariable(low=0.0, high=0.2, levels=5)}


def make_variables(recipes: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a user's file describes by objects; other values are left for the configuration to refuse.

    Raises:
        UserError: a variable is wrong; the message names it.
    """
    variables = dict(recipes)
    for name, fields in recipes.items():
        if isinstance(fields, Mapping):
            try:
                variables[name] = RecipeVariable(**fields)
            except UserError as error:
                raise UserError(f"recipes.{name}: {error}") from None
    return variables


def check_recipes(recipes: Recipes, others: Sequence[str] = ()) -> None:
    """Check that all variables are fields of a training that a search may set.

    Args:
        recipes: the variables.
        others: fields that the search sets itself.

    Raises:
        UserError: a field does not exist or is set by something else.
    """
    allowed = sorted(set(TrainConfig.settable()) - TrainConfig.data_fields - set(others))
    for name in recipes:
        if name not in allowed:
            raise UserError(f"recipes: there is no field {name!r} to search; there are: {', '.join(allowed)}")


def recipe_fields(
    recipes: Recipes, choices: Sequence[int], common: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The fields of a training that choices [R] stand for, with the factors of the optimizer that they name.

    Args:
        recipes: the variables.
        choices: one per variable.
        common: fields that all trainings have in common but for these factors, with AdamW's values.
    """
    searched = zip(recipes.items(), choices, strict=True)
    fields = {**{name: variable.choices[choice] for (name, variable), choice in searched}, **common}
    factors = FACTORS.get(str(fields.get("optimizer")), {})
    return {name: _scaled(value, factors[name]) if name in factors else value for name, value in fields.items()}


def _scaled(value: Any, factor: float) -> Any:
    """A number times a factor; ``TrainConfig`` refuses a text or a truth value in place of a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return float(f"{value * factor:.{SCALED_DIGITS}g}")
