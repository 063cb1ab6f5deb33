"""The configuration of a later task: one frozen record, stored in its folder read again when it is resumed."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from export.errors import UserError
from fbnetv5.costs.budgets import TaskBudgets
from fbnetv5.costs.cost_files import CostFiles
from fbnetv5.search.config import SupernetConfig
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.spaces import SpaceField

OF_THE_RUN = (
    "batch", "weight_decay", "max_fan_in", "clip_norm", "score_images", "checkpoint_every", "panel_draws",
    "panel_checks", "finalists",
)  # fmt: skip
"""Fields whose defaults are the values of the search that the task is added to."""


class LaterConfig(SupernetConfig):
    """All fields that determine a later task's result."""

    title: ClassVar[str] = "later task"
    kind: ClassVar[str] = "later-task"
    flags: ClassVar[frozenset[str]] = frozenset(
        {"run", "budgets", "costs", "space", "data", "table", "other_machine_table", "seed"}
    )
    run: str
    """Path of the run folder of the search that the task is added to."""
    budgets: dict[str, TaskBudgets]
    """The budgets of the task, by its name; they hold together."""
    costs: CostFiles = ()
    """Contents of the cost files that define the units of budgets."""
    space: SpaceField
    """Search space, that of the run."""
    steps: Annotated[int, Field(ge=1)] = 400
    """Steps that train the head; the trunk does not change."""
    max_fan_in: Annotated[int, Field(ge=1)] = 128
    """Largest number of inputs per output with which a weight has the full learning rate, as in a search."""
    panel_draws: Annotated[int, Field(ge=16)] = 840
    """Architectures of the panel, each run on one of its batches when the head is trained."""
    panel_checks: Annotated[int, Field(ge=3)] = 24
    """Further architectures of the panel, run on several of its batches to measure the quality of its fit."""
    finalists: Annotated[int, Field(ge=1)] = 4
    """Architectures that run on the same images at the end; that of the lowest predicted loss wins. Where the panel
    shows no effects of blocks there is only one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.budgets) != 1:
            raise UserError("a later task is a single task with its budget")
        return self

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, without cost files if there are none."""
        return {name: value for name, value in super().to_json().items() if self.costs or name != "costs"}

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.budgets)

    def as_search(self) -> SearchConfig:
        """The search of this task alone with the same final phase: what opens inputs and finds networks reads it."""
        shared = {name: getattr(self, name) for name in type(self).model_fields if name in SearchConfig.model_fields}
        return SearchConfig(warmup_steps=0, **shared)
