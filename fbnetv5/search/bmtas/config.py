"""The configuration of a search for a branched network: one frozen record, stored in the run folder."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.networks.pretrained import SCRATCH, Source
from fbnetv5.runs.config import NotNegative, Positive, Share
from fbnetv5.search.config import SupernetConfig
from fbnetv5.spaces.branching import MAX_COPIES, BranchingSpace


class BranchConfig(SupernetConfig):
    """All fields that determine the result of a search for a branched network."""

    title: ClassVar[str] = "branch search"
    kind: ClassVar[str] = "branch"
    flags: ClassVar[frozenset[str]] = frozenset(
        {"budget", "task_names", "encoder", "init", "data", "table", "other_machine_table", "seed"}
    )
    budget: Budget
    """Budget of the whole network, heads included."""
    task_names: Annotated[tuple[str, ...], Strict(False)]
    """Names of the tasks."""
    encoder: str = "fbnetv3-a"
    """Name of the encoder: "fbnetv3-a" to "fbnetv3-g", "mobilenetv2", "efficientnet-lite0" or "resnet50"."""
    init: Source = SCRATCH
    """Source of the encoder's initial weights: "scratch", "torchvision", "timm", or a safetensors file."""
    width: Annotated[float, Field(ge=0.25, le=2.0)] = 1.0
    """Factor of all widths of the encoder."""
    routing: Literal["soft", "sampled"] = "sampled"
    """Routing of a step: "sampled" draws one copy per task and layer, and learns by REINFORCE; "soft" is the paper's
    mixture of all copies, which runs every layer once per copy and task."""
    start: Literal["budget", "uniform"] = "budget"
    """Routing at the start: "budget" has the budget as its expected cost, all tasks preferring the same copies;
    "uniform", the paper's, has the same probability for all copies, so that hardly any layer is shared."""
    steps: Annotated[int, Field(ge=1)] = 1000
    """Steps of the search, those of the routing included."""
    batch: Annotated[int, Field(ge=2)] = 16
    """Images of a step, per process; each passes through the encoder up to once per task."""
    warmup_share: Share = 0.05
    """Share of the steps, at the start, in which every task trains its own copies; 0 for none."""
    routing_every: Annotated[int, Field(ge=2)] = 4
    """Period of the steps that train the routing on held-out images; the others train weights."""
    draws: Annotated[int, Field(ge=2)] = 4
    """Routings that a step of the sampled routing runs on the same images."""
    routing_lr: Positive = 0.1
    """Learning rate of the routing's logits; the paper's is 0.01, for many more steps."""
    routing_decay: NotNegative = 5e-5
    """Weight decay of the routing's logits."""
    first_temperature: Positive = 5.0
    """Temperature of the Gumbel-softmax in the first step; it falls linearly."""
    last_temperature: Positive = 0.1
    """Temperature of the Gumbel-softmax in the last step."""
    cost_weight: NotNegative | None = None
    """Fixed weight of the expected cost, relative to the budget, as in the paper; None steers it to the budget."""
    multiplier_lr: NotNegative = 0.5
    """Step of the dual ascent: the increase of the multiplier at an expected cost of twice the budget."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 2 <= len(self.task_names) <= MAX_COPIES:
            raise UserError(f"a branched network serves 2 to {MAX_COPIES} tasks, not {len(self.task_names)}")
        _ = self.space
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.task_names

    @property
    def space(self) -> BranchingSpace:
        """The encoder with one copy of each layer per task.

        Raises:
            UserError: the encoder is unknown.
        """
        return BranchingSpace(encoder=self.encoder, width=self.width, copies=len(self.task_names))

    @property
    def warmup_steps(self) -> int:
        """Number of steps in which every task trains its own copies."""
        return round(self.warmup_share * self.steps)

    def with_table(self, file: Path, *, other_machine: bool) -> Self:
        """This configuration with a latency table file, which may be of another machine if ``other_machine``."""
        return self.changed(table=str(file.resolve()), other_machine_table=other_machine)
