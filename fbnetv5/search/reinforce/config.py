"""The configuration of a search: one frozen record, stored in the run folder so that a resumed run continues it."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from export.errors import UserError
from fbnetv5.costs.budgets import TaskBudgets
from fbnetv5.costs.cost_files import CostFiles
from fbnetv5.networks.pretrained import SCRATCH, Source
from fbnetv5.runs.config import NotNegative, Positive, Share
from fbnetv5.search.config import SupernetConfig
from fbnetv5.search.reinforce.estimators import EstimatorName
from fbnetv5.spaces import SpaceField
from fbnetv5.spaces.four_path import FourPathSpace


class SearchConfig(SupernetConfig):
    """All fields that determine a search's result."""

    title: ClassVar[str] = "search"
    kind: ClassVar[str] = "search"
    flags: ClassVar[frozenset[str]] = frozenset(
        {"budgets", "family", "costs", "space", "init", "data", "table", "other_machine_table", "seed"}
    )
    budgets: dict[str, TaskBudgets]
    """Budgets of each task, which hold together; the keys are the run's tasks."""
    family: dict[str, dict[str, TaskBudgets]] = Field(default={})
    """Budgets of the networks that are derived at the end, by the name of their folder in ``derived``."""
    costs: CostFiles = ()
    """Contents of the cost files that define the units of budgets."""
    space: SpaceField = FourPathSpace()
    """Search space."""
    init: Source = SCRATCH
    """Source of the initial weights of stage 0: "scratch", "timm", or a safetensors file."""
    warmup_steps: Annotated[int, Field(ge=0)] = 600
    """Steps that train weights under architectures of random depth before any policy is updated."""
    steps: Annotated[int, Field(ge=0)] = 1200
    """Steps after the warm-up."""
    policy_every: Annotated[int, Field(ge=2)] = 4
    """Period of the steps that train policies; the first step after the warm-up is one."""
    policy_batch: Annotated[int, Field(ge=2)] = 64
    """Images of a step that trains policies, per process; it needs no backward pass."""
    weight_lr: Positive = 1e-2
    """Highest learning rate of the shared weights, after a short linear rise; half a cosine brings it down to 1 %."""
    max_fan_in: Annotated[int, Field(ge=1)] = 128
    """Largest number of inputs per output with which a weight has the full learning rate; weights with more have one in
    inverse proportion to it, as in muP (arXiv 2203.03466)."""
    policy_lr: Positive = 0.04
    """Learning rate of policies that step along a gradient. The default estimator does not use it."""
    estimator: EstimatorName = "control"
    """Estimator of the policies' gradient; docs/search.md describes each, "average" is the paper's."""
    multiplier_lr: NotNegative = 0.5
    """Step of the dual ascent: the increase of the multiplier at an expected cost of twice the target. The default
    estimator does not use it."""
    importance: Share = 0.0
    """Share of the importance weights in the loss of a step that trains weights: 0 counts every task's loss fully, 1 is
    the paper's rule."""
    panel_draws: Annotated[int, Field(ge=16)] = 840
    """Architectures of the panel, each run on one of its batches when the weights are final. Tasks that see the images
    in other colours there (``Task.panel_colours``) have as many of their own."""
    panel_checks: Annotated[int, Field(ge=3)] = 24
    """Further architectures, as many again for tasks with other colours, run on several of the panel's batches to
    measure the quality of its fit."""
    finalists: Annotated[int, Field(ge=1)] = 4
    """Architectures per task that run on the same images at the end; that of the lowest predicted loss wins. Where the
    panel shows no effects of blocks there is only one."""
    compile_blocks: bool = False
    """Whether ``torch.compile`` compiles each block of the supernet for the steps that train weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.budgets:
            raise UserError("a search needs at least one task with a budget")
        if self.compile_blocks and any(node.whole is not None for node in self.space.nodes):
            raise UserError(
                f"compile_blocks does not go with {self.space.label}: its blocks use slices of larger ones, which are "
                "not compiled; leave compile_blocks out"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, without a family that has no member and without cost files if there are none."""
        empty = {name for name in ("family", "costs") if not getattr(self, name)}
        return {name: value for name, value in super().to_json().items() if name not in empty}

    @property
    def total_steps(self) -> int:
        return self.warmup_steps + self.steps

    def policy_steps(self, after: int) -> int:
        """Number of steps that train policies among the first ``after`` steps after the warm-up."""
        return -(-after // self.policy_every)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.budgets)
