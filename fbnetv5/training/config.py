"""The configuration of a training: one frozen record, stored in its folder so that a resumed training continues it.

``Task.training`` has the fields whose defaults a task changes. A network of several tasks is trained jointly.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, Strict, ValidationInfo, field_validator, model_validator

from export.errors import UserError
from fbnetv5.labeling.teachers.families import LIBRARIES
from fbnetv5.networks.pretrained import SCRATCH
from fbnetv5.runs.config import MaxSkipped, Positive, RunConfig
from fbnetv5.training.recipe import HEADER, RecipeFields, without_header

SOFT_LABELS = "soft-labels"
"""Name of the teacher whose probabilities are stored with the images."""
OF_TEACHER = ("distillation", "temperature")
"""Fields of a recipe that have an effect with a teacher alone."""

OF_LEARNING_RATE = ("optimizer", "lr", "max_fan_in")
"""Fields of a recipe whose values fit one another: whoever sets one of them has the usual defaults of the others."""
FROM_SCRATCH: dict[str, Any] = {"lr": 1e-2, "max_fan_in": 128}
"""Defaults for random initial weights, the rates of a search: lower ones, as for inherited weights, learn less."""


def _absolute(teacher: str | None) -> str | None:
    """The name of a teacher with absolute paths, so that a run can be resumed from any folder."""
    if teacher is None or teacher == SOFT_LABELS:
        return teacher
    library, colon, rest = teacher.partition(":")
    if not colon or library not in LIBRARIES:
        return str(Path(teacher).absolute())
    network, at, file = rest.partition("@")
    if library == "transformers" and Path(network).is_dir():
        network = str(Path(network).absolute())
    return f"{library}:{network}{at}{Path(file).absolute() if at else ''}"


TeacherName = Annotated[str | None, AfterValidator(_absolute)]
"""Name of a teacher; a path in it is made absolute."""


class TrainConfig(RunConfig, RecipeFields):
    """All fields that determine a training's result; those of the recipe are declared in ``RecipeFields``."""

    title: ClassVar[str] = "training"
    kind: ClassVar[str] = "training"
    flags: ClassVar[frozenset[str]] = frozenset({"task_names", "init", "teacher", "data", "seed"})
    data_fields: ClassVar[frozenset[str]] = RunConfig.data_fields | {"size"}
    task_names: Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
    """Names of the network's tasks."""
    init: str = "inherited"
    """Initial weights: "inherited" from the search, "scratch", "torchvision", "timm", or a safetensors file."""
    teacher: TeacherName = None
    """A trained network to imitate: an architecture file with weights beside it or, for classification, an exported
    folder, an ONNX file with a description, a published network such as timm:NAME or timm:NAME@FILE, or "soft-labels":
    the probabilities that ``fbnetv5 label --soft-labels`` stored with the images."""
    held_out: Annotated[int, Field(ge=1)] = 1000
    """Maximum number of images held out of the training, which the best weights are chosen by."""
    task_weights: Literal["average", "paper"] | dict[str, Positive] = "average"
    """Weights of the losses of several tasks: "average" divides each loss by its moving average, "paper" has those of
    BMTAS for PASCAL-Context, and an object has a weight by task. One task needs none."""
    evaluate_every: Annotated[int, Field(ge=1)] = 250
    """Steps between evaluations on the held-out images."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints."""
    max_skipped: MaxSkipped = 10
    """Number of steps that may be skipped because a loss or gradient is not finite, and of images that may be replaced
    because they cannot be read; one more ends the training."""
    stop_at: Annotated[int, Field(ge=1)] | None = None
    """Step after which the training stops early, a multiple of evaluate_every; the learning rate still follows the
    whole length. A later value continues the training as if it had not stopped."""
    cuda_graphs: bool = True
    """Whether a single GPU replays the network's passes as CUDA graphs, which is faster if the CPU limits the speed."""

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
        if self.stop_at is not None and self.stop_at % self.evaluate_every:
            raise UserError(
                f"training: stop_at must be a multiple of evaluate_every ({self.evaluate_every}), not {self.stop_at}: "
                "else the evaluation at the stop would change what a longer training stores"
            )
        if round(min(self.data.size) * self.scale[0]) < 1:
            size = f"{self.data.size[0]}x{self.data.size[1]}"
            raise UserError(f"training: scale from {self.scale[0]} leaves nothing of images of {size}")
        changed = [name for name in OF_TEACHER if getattr(self, name) != RecipeFields.model_fields[name].default]
        if self.teacher is None and changed:
            raise UserError(f"training: {changed[0]} has no effect without a teacher: name one, or leave it out")
        return self

    @property
    def reads_soft_labels(self) -> bool:
        """Whether the teacher is that of the images' soft labels."""
        return self.teacher == SOFT_LABELS

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.task_names

    @property
    def last_step(self) -> int:
        """The number of steps after which the training ends."""
        return self.steps if self.stop_at is None else min(self.steps, self.stop_at)

    @classmethod
    def read_fields(cls, source: Path | Mapping[str, Any]) -> dict[str, Any]:
        fields = super().read_fields(source)
        where = Path("config") if isinstance(source, Mapping) else source
        return without_header(fields, where) if HEADER.keys() & fields.keys() else fields

    @classmethod
    def schema_of_files(cls) -> dict[str, Any]:
        schema = super().schema_of_files()
        header = {name: {"const": value, "description": "Header of a recipe file."} for name, value in HEADER.items()}
        return schema | {"properties": header | schema["properties"]}


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


def fitting_defaults(
    trainings: Iterable[Mapping[str, Any]], init: str, fields: Path | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Defaults of a training, in place of the model's: those of its tasks and of random weights.

    Args:
        trainings: ``Task.training`` of each task.
        init: initial weights, as ``TrainConfig.init``.
        fields: that the user set, or their file.

    Raises:
        UserError: the file is missing, unreadable, or a recipe of another schema.
    """
    recipe = TrainConfig.read_fields(fields) if fields is not None else {}
    has_rates = not recipe.keys().isdisjoint(OF_LEARNING_RATE)
    return common_defaults(trainings) | (FROM_SCRATCH if init == SCRATCH and not has_rates else {})


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
