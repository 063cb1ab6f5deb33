"""The variables of training recipes: fields of ``TrainConfig`` with a list of values each.

FBNetV3 (arXiv 2006.02049, section 3) searches the learning rate, optimizer, EMA, dropout, stochastic depth, mixup and
weight decay. The ranges here suit trainings of some hundred to some thousand steps and AdamW's learning rates. As in the
paper, numbers are multiples of a step, so a recipe is one choice per variable, as an architecture is.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, Strict, model_validator

from export.document import Document
from export.errors import UserError
from fbnetv5.training.config import TrainConfig

LR_FACTORS = {"sgd": 10.0}
"""Optimizer -> factor of the recipe's learning rate; the paper multiplies that of SGD too. 1 for the others."""
DIGITS = 3
"""Significant digits of a value between the limits of a range."""


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
        if len(set(self.values)) != len(self.values):
            raise UserError(f"a recipe variable's values must differ: {self.values}")
        if is_range and not (self.low < self.high and (self.low > 0 or not self.log)):  # type: ignore[operator]
            raise UserError(f"a recipe variable's range must ascend, and be above 0 if log: {self.low} to {self.high}")
        return self

    @property
    def choices(self) -> tuple[Any, ...]:
        """All values."""
        if self.low is None or self.high is None:
            return self.values
        spread = np.geomspace if self.log else np.linspace
        return tuple(float(f"{value:.{DIGITS}g}") for value in spread(self.low, self.high, self.levels))


Recipes = Mapping[str, RecipeVariable]

DEFAULT_RECIPES: Recipes = {
    "lr": RecipeVariable(low=3e-4, high=6e-3, log=True),
    "optimizer": RecipeVariable(values=("adamw", "sgd")),
    "weight_decay": RecipeVariable(low=1e-4, high=1e-1, log=True),
    "ema_decay": RecipeVariable(values=(0.9, 0.98, 0.995)),
    "mixup": RecipeVariable(low=0.0, high=0.4, levels=9),
    "flip": RecipeVariable(values=(0.0, 0.5)),
    "colour": RecipeVariable(low=0.0, high=0.4, levels=9),
}
"""Field -> its values, unless the configuration has others."""


def check_recipes(recipes: Recipes, others: Sequence[str] = ()) -> None:
    """Check that all variables are fields of a training that a search may set.

    Args:
        recipes: the variables.
        others: fields that the search sets itself.

    Raises:
        UserError: a field does not exist or is set by something else.
    """
    allowed = sorted(set(TrainConfig.settable()) - {"scenes", *others})
    for name in recipes:
        if name not in allowed:
            raise UserError(f"recipes: there is no field {name!r} to search; there are: {', '.join(allowed)}")


def recipe_fields(recipes: Recipes, choices: Sequence[int]) -> dict[str, Any]:
    """The fields of a training that choices [R] stand for; SGD's learning rate is multiplied."""
    fields = {name: variable.choices[choice] for (name, variable), choice in zip(recipes.items(), choices, strict=True)}
    if "lr" in fields:
        factor = LR_FACTORS.get(str(fields.get("optimizer")), 1.0)
        fields["lr"] = float(f"{fields['lr'] * factor:.{DIGITS}g}")
    return fields
