"""The configuration of a training: one frozen record, stored in its folder so that a resumed training continues it.

``Task.training`` has the fields whose defaults a task changes. A network of several tasks is trained jointly.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, ValidationInfo, field_validator, model_validator

from export.errors import UserError
from fbnetv5.runs.config import NotNegative, Positive, RunConfig, Share

MAX_SCALE = 16
"""Maximum factor of ``TrainConfig.scale``."""


class TrainConfig(RunConfig):
    """All fields that determine a training's result."""

    title: ClassVar[str] = "training"
    kind: ClassVar[str] = "training"
    flags: ClassVar[frozenset[str]] = frozenset({"task_names", "init", "data", "seed"})
    task_names: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
    """Names of the network's tasks."""
    init: str = "inherited"
    """Initial weights: "inherited" from the search, "scratch", "torchvision", "timm", or a safetensors file."""
    held_out: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of images held out of the training, which the best weights are chosen by."""
    steps: Annotated[int, Field(ge=1)] = 1500
    """Steps of the optimizer."""
    batch: Annotated[int, Field(ge=2)] = 32
    """Images of a step, per process; batch norm has no statistics of one image on a 1x1 map."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer; SGD has Nesterov momentum and usually wants a learning rate some ten times higher."""
    lr: Positive = 3e-3
    """Highest learning rate, after the warm-up; half a cosine then brings it down to 1 %."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 0.02
    """Decay of the weights of convolutions and linear layers; norms and biases do not decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises linearly."""
    ema_decay: Share = 0.998
    """Decay per step of the moving average of the weights, which the training stores; lower in the first steps."""
    clip_norm: Positive = 5.0
    """Maximum norm of the gradient; larger ones are scaled down."""
    flip: Share = 0.5
    """Probability of mirroring an image."""
    scale: Annotated[tuple[float, float], Strict(False)] = (1.0, 1.0)
    """Range of the factor by which an image is resized before a crop of the training size is taken."""
    colour: Share = 0.2
    """Maximum change of brightness, contrast and saturation."""
    task_weights: Literal["average", "paper"] | dict[str, Positive] = "average"
    """Weights of the losses of several tasks: "average" divides each loss by its moving average, "paper" has those of
    BMTAS for PASCAL-Context, and an object has a weight by task. One task needs none."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (arXiv 1710.09412), which blends pairs of images and their losses; 0 turns it off."""
    evaluate_every: Annotated[int, Field(ge=1)] = 250
    """Steps between evaluations on the held-out images."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints."""

    @field_validator("task_weights", mode="before")
    @classmethod
    def _check_task_weights(cls, weights: Any, fields: ValidationInfo) -> Any:
        if isinstance(weights, Mapping):
            _check_weights(weights, fields.data.get("task_names", tuple(weights)))
        elif weights not in ("average", "paper"):
            raise UserError(
                f"training: task_weights must be 'average', 'paper' or an object of tasks and weights, not {weights!r}"
            )
        return weights

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= MAX_SCALE:
            raise UserError(f"training: scale must be a range of factors above 0 to {MAX_SCALE}, not {self.scale}")
        if round(min(self.data.size) * self.scale[0]) < 1:
            size = f"{self.data.size[0]}x{self.data.size[1]}"
            raise UserError(f"training: scale from {self.scale[0]} leaves nothing of images of {size}")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.task_names


def _check_weights(weights: Mapping[Any, Any], tasks: Sequence[str]) -> None:
    """Raise a ``UserError`` unless ``weights`` has a weight above 0 for each of the tasks alone."""
    problems = [f"{task} is missing" for task in tasks if task not in weights]
    problems += [f"{task} is unknown" for task in weights if task not in tasks]
    if problems:
        raise UserError(
            f"training: task_weights must have a weight for each of {', '.join(tasks)}: {', '.join(problems)}"
        )
    for task, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e12:
            raise UserError(
                f"training: in task_weights the weight of {task} must be a number above 0, at most 1e12, not {weight!r}"
            )


def common_defaults(trainings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of ``Task.training`` that hold for a joint training: those on which all of its tasks agree.

    A task that does not change a field disagrees with one that does, and the default of ``TrainConfig`` remains: a
    random scale suits segmentation, but a network that learns edges as well is trained without it.
    """
    first, *others = trainings
    return {
        field: value
        for field, value in first.items()
        if all(field in other and other[field] == value for other in others)
    }
