"""The configuration of a search: one frozen record, kept in the run folder so that a resumed run is the same search."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.runs.config import NotNegative, Positive, RunConfig, Share
from fbnetv5.search.reinforce.estimators import EstimatorName
from fbnetv5.spaces import SpaceField
from fbnetv5.spaces.four_path import FourPathSpace


class SearchConfig(RunConfig):
    """Everything that decides a search's result."""

    title: ClassVar[str] = "search"
    kind: ClassVar[str] = "search"
    flags: ClassVar[frozenset[str]] = frozenset({"budgets", "space", "data", "table", "foreign_table", "seed"})
    budgets: dict[str, Budget]
    """Budget of each task; the keys are the run's tasks."""
    space: SpaceField = FourPathSpace()
    """What the search chooses from."""
    table: str | None = None
    """Latency table file: budgets in ms are counted by it; beside a budget in multiply-adds it predicts latency."""
    foreign_table: bool = False
    """Whether that table may be of another machine."""
    warmup_steps: Annotated[int, Field(ge=0)] = 600
    """Steps that train weights under architectures of random depth before any policy moves."""
    steps: Annotated[int, Field(ge=0)] = 1200
    """Steps after the warm-up."""
    policy_every: Annotated[int, Field(ge=2)] = 4
    """Period of the steps that train policies: of the steps after the warm-up the first, the one after 4 steps, ..."""
    batch: Annotated[int, Field(ge=2)] = 32
    """Images of a step that trains weights, per process; batch norm has no statistics of one image on a 1x1 map."""
    policy_batch: Annotated[int, Field(ge=2)] = 64
    """Images of a step that trains policies, per process; it needs no backward pass."""
    weight_lr: Positive = 5e-3
    """Highest learning rate of the shared weights, after a short linear rise; half a cosine brings it down to 1 %."""
    weight_decay: NotNegative = 0.01
    """Decay of the weights of convolutions and linear layers; norms and biases do not decay."""
    policy_lr: Positive = 0.04
    """Learning rate of policies that step along a gradient. The default estimator has none."""
    estimator: EstimatorName = "control"
    """How policies learn from losses; docs/search.md describes each, "average" is the paper's."""
    multiplier_lr: NotNegative = 0.5
    """Step of the dual ascent: what an expected cost of twice the aim adds to the multiplier. The default estimator has
    none."""
    importance: Share = 0.0
    """Share of the importance weights in the loss of a step that trains weights: 0 counts every task's loss fully, 1 is
    the paper's rule."""
    clip_norm: Positive = 5.0
    """Maximum norm of the gradient of a step that trains weights; larger ones are scaled down."""
    panel_draws: Annotated[int, Field(ge=16)] = 280
    """Architectures that the panel runs, each on one of its batches, when the weights are final."""
    panel_checks: Annotated[int, Field(ge=3)] = 24
    """Further architectures that the panel runs on all of its batches, to check its fit."""
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
