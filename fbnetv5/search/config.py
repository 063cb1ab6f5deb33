"""The configuration of a search: one frozen record, kept in the run folder so that a resumed run is the same search."""

from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, model_validator

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.runs.config import NotNegative, Positive, RunConfig, Share
from fbnetv5.search.estimators import ESTIMATORS
from fbnetv5.spaces import SpaceField
from fbnetv5.spaces.four_path import FourPathSpace


def _budget(value: Any) -> Any:
    return Budget.from_json(value) if isinstance(value, dict) else value


class SearchConfig(RunConfig):
    """Everything that decides a search's result."""

    title: ClassVar[str] = "search"
    kind: ClassVar[str] = "search"
    flags: ClassVar[frozenset[str]] = frozenset({"budgets", "space", "data", "table", "foreign_table", "seed"})
    budgets: dict[str, Annotated[InstanceOf[Budget], BeforeValidator(_budget), PlainSerializer(asdict)]]
    """Per task; its keys are the run's tasks."""
    space: SpaceField = FourPathSpace()
    table: str | None = None
    """Latency table file: budgets in ms are counted by it; beside a budget in multiply-adds it predicts latency."""
    foreign_table: bool = False
    """Whether that table may be of another machine."""
    warmup_steps: Annotated[int, Field(ge=0)] = 600
    """Steps that train weights under architectures of random depth before any policy moves."""
    steps: Annotated[int, Field(ge=0)] = 1200
    """Steps after the warm-up."""
    policy_every: Annotated[int, Field(ge=2)] = 4
    """Of the steps after the warm-up, every so many-th trains policies, beginning with the first."""
    batch: Annotated[int, Field(ge=2)] = 32
    """Images of a step that trains weights, per process; batch norm has no statistics of one image on a 1x1 map."""
    policy_batch: Annotated[int, Field(ge=2)] = 64
    """Images of a step that trains policies, per process; it needs no backward pass."""
    weight_lr: Positive = 5e-3
    weight_decay: NotNegative = 0.01
    policy_lr: Positive = 0.04
    """Of policies that step along a gradient; without effect on the default estimator, as is ``multiplier_lr``."""
    estimator: str = ESTIMATORS[0]
    """How policies learn from losses; docs/search.md describes each, "average" is the reference."""
    multiplier_lr: NotNegative = 0.5
    """Of the dual ascent: what a step at twice the budget's aim adds to the multiplier."""
    importance: Share = 0.0
    """Share of the importance weights in the loss of a step that trains weights: 0 counts every task's loss fully, 1 is
    the paper's rule."""
    clip_norm: Positive = 5.0
    panel_draws: Annotated[int, Field(ge=16)] = 280
    """Architectures that the panel runs, each on one of its batches, when the weights are final."""
    panel_checks: Annotated[int, Field(ge=3)] = 24
    """Further architectures that the panel runs on all of its batches, to hold its fit against."""
    finalists: Annotated[int, Field(ge=1)] = 8
    """Architectures per task whose losses are compared on the same images in the end."""
    score_images: Annotated[int, Field(ge=1)] = 1024
    """Held-out images of that comparison."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.budgets:
            raise UserError("a search needs at least one task with a budget")
        if self.estimator not in ESTIMATORS:
            raise UserError(f"search: estimator must be one of {', '.join(ESTIMATORS)}, not {self.estimator!r}")
        return self

    @property
    def total_steps(self) -> int:
        return self.warmup_steps + self.steps

    def policy_steps(self, after: int) -> int:
        """How many of the first ``after`` steps that follow the warm-up train policies."""
        return -(-after // self.policy_every)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.budgets)
