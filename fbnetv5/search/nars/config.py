"""The configuration of a search for pairs: one frozen record, stored in the run folder so that a run is resumed."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.resolution import Resolution
from fbnetv5.runs.config import RunConfig, Share
from fbnetv5.search.nars.predictor import PredictorSettings
from fbnetv5.search.nars.recipes import (
    SCALED,
    RecipeVariable,
    check_recipes,
    default_recipes,
    make_variables,
    recipe_fields,
)
from fbnetv5.spaces import SpaceField
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import check_names, task_types
from fbnetv5.training.config import SOFT_LABELS, TeacherName, TrainConfig

OWN_FIELDS = ("stop_at", "epochs", "task_weights")
"""Fields of a training that the search sets itself or that are for other trainings."""
EQUAL_FIELDS = ("steps", "evaluate_every", "held_out", "checkpoint_every")
"""Fields that all trainings must have in common, for their curves to be comparable."""


class NarsConfig(RunConfig):
    """All fields that determine the result of a search for an architecture and a recipe."""

    title: ClassVar[str] = "nars"
    kind: ClassVar[str] = "nars"
    flags: ClassVar[frozenset[str]] = frozenset(
        {"task_name", "budgets", "space", "fixed", "teacher", "data", "table", "other_machine_table", "seed"}
    )
    task_name: str
    """Name of the task."""
    budgets: Annotated[tuple[Budget, ...], Strict(False), Field(min_length=1)]
    """Budgets that hold together, each in a unit of its own."""
    space: SpaceField = StageSpace()
    """Space of the architectures."""
    fixed: Annotated[tuple[int, ...], Strict(False)] | None = None
    """Choices of the only architecture, if the search is for its recipe alone."""
    teacher: TeacherName = None
    """A trained network that all trainings imitate, as ``fbnetv5 train --teacher`` reads it."""
    table: str | None = None
    """Latency table file: the costs of a budget in ms, and one more statistic of the pretraining."""
    other_machine_table: bool = False
    """Whether that table may have been measured on another machine."""
    recipes: Annotated[dict[str, RecipeVariable], Field(min_length=1)]
    """Fields of the training that are searched, with their values: those of FBNetV3 unless others are named."""
    training: dict[str, Any] = Field(default={})
    """Fields of all trainings, such as steps; the others have the defaults of ``fbnetv5 train``. Where ``recipes`` has
    the optimizer, ``lr`` and ``weight_decay`` are those of AdamW, from which those of the other optimizers follow."""
    pool: Annotated[int, Field(ge=16, le=2**17)] = 4096
    """Pairs that meet the budgets, from which trainings are chosen."""
    pretraining_pool: Annotated[int, Field(ge=16, le=2**17)] = 16384
    """Architectures of all costs whose statistics pretrain the predictor."""
    first_batch: Annotated[int, Field(ge=2)] = 8
    """Trainings of the first iteration, the first pairs of the pool."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Trainings of every later iteration, chosen by the predictor."""
    iterations: Annotated[int, Field(ge=1)] = 4
    """Iterations, the first one included."""
    finalists: Annotated[int, Field(ge=1)] = 2
    """Pairs of the evolution, and as many of those stopped early, that are trained to the end at last."""
    correlation: Share = 0.92
    """Later trainings stop where the ranking of the first batch correlates with its last one above this; 1: never."""
    acquisition: Literal["greedy", "thompson"] = "thompson"
    """How a batch is chosen: by the highest mean prediction (the paper), or each pair by the highest prediction of one
    member of the ensemble (Thompson sampling), which also tries what the members disagree on."""
    members: Annotated[int, Field(ge=1)] = 5
    """Members of the ensemble of predictors; the paper has one."""
    pretraining_epochs: Annotated[int, Field(ge=0)] = 30
    """Passes of the predictor's pretraining over its pool; 0 turns it off, for comparisons."""

    @model_validator(mode="before")
    @classmethod
    def _fill_recipes(cls, fields: Any) -> Any:
        """Make the variables, whose errors then name them, and store the default ones: later versions may differ."""
        if isinstance(recipes := fields.get("recipes"), Mapping):
            return {**fields, "recipes": make_variables(recipes)}
        if "recipes" in fields or not isinstance(task := fields.get("task_name"), str):
            return fields
        check_names([task])
        return {**fields, "recipes": default_recipes(task_types()[task])}

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_names(self.tasks)
        check_recipes(self.recipes, (*OWN_FIELDS, *EQUAL_FIELDS))
        if twice := sorted(self.recipes.keys() & self.training.keys()):
            raise UserError(f"nars: {', '.join(twice)} stands in recipes and in training; remove it from one of them")
        check_recipes(self.training, OWN_FIELDS)
        if self.fixed is not None:
            self.space.check(self.fixed)
            if all(len(variable.choices) == 1 for variable in self.recipes.values()):
                raise UserError("nars: there is nothing to search: one architecture, and one value of each field")
        for _ in self.trainings():
            pass  # each is checked when it is made
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task_name,)

    @property
    def resolution(self) -> Resolution:
        """Of the deployed network."""
        return self.budgets[0].resolution

    @property
    def predictor(self) -> PredictorSettings:
        return PredictorSettings(members=self.members, pretraining_epochs=self.pretraining_epochs)

    def with_table(self, file: Path, *, other_machine: bool) -> Self:
        """The configuration with a latency table file."""
        return self.changed(table=str(file.resolve()), other_machine_table=other_machine)

    def train_config(self, recipe: Mapping[str, Any], *, stop_at: int | None = None) -> TrainConfig:
        """The configuration of the training of a recipe; all have the same seed, so that they are comparable.

        Raises:
            UserError: a field of the recipe or of ``training`` is out of range.
        """
        fields = self.train_fields(recipe)
        return TrainConfig(
            task_names=self.tasks,
            init="scratch",
            teacher=self.teacher,
            data=self.data,
            seed=self.seed,
            stop_at=stop_at,
            **fields,
        )

    @property
    def reads_soft_labels(self) -> bool:
        """Whether the teacher is that of the images' soft labels."""
        return self.teacher == SOFT_LABELS

    def trainings(self) -> Iterator[TrainConfig]:
        """A training for every value of every variable and optimizer, in which the others have their first value.

        Raises:
            UserError: a value is out of range.
        """
        optimizers = range(len(self.recipes["optimizer"].choices)) if "optimizer" in self.recipes else range(1)
        for name, variable in self.recipes.items():
            for choice, optimizer in product(range(len(variable.choices)), optimizers):
                choices = {"optimizer": optimizer, name: choice}
                row = [choices.get(other, 0) for other in self.recipes]
                yield self.train_config(recipe_fields(self.recipes, row, self.scaled_fields))

    @property
    def scaled_fields(self) -> dict[str, Any]:
        """The values for AdamW of those fields that have a factor of the searched optimizer but are not searched."""
        if "optimizer" not in self.recipes:
            return {}
        defaults = {name: TrainConfig.model_fields[name].default for name in SCALED}
        fields = defaults | self.train_fields({})
        return {name: fields[name] for name in SCALED if name not in self.recipes}

    @property
    def steps(self) -> int:
        """Steps of a training that is not stopped early."""
        return self.train_config({}).steps

    def train_fields(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the training of a recipe that do not have their usual value, and the learning rate.

        ``fbnetv5 train`` has another learning rate from random weights, unless the recipe says its own.
        """
        lr = TrainConfig.model_fields["lr"].default
        return {"lr": lr, **task_types()[self.task_name].training, **self.training, **recipe}
