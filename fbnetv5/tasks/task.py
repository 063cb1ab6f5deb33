"""The interface of a task. A new task on existing targets is one new file in this folder.

The file defines one subclass of ``Task``, which ``fbnetv5.tasks`` finds by listing the folder. A task names the targets
it is trained on and the features it reads, builds its head, computes the loss of each image of a batch, creates its
metric, and defines the outputs of a deployed network.

Shape legend: N images, C_p channels of the feature at stride p, H x W pixels of the image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.data.sample import Batch

ClassNames = Mapping[str, tuple[str, ...]]
"""Names of the classes by target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """Name, unit and direction of a task's metric."""

    name: str
    """E.g. "ap"."""
    unit: str = ""
    """E.g. "m"; a share from 0 to 1 has none."""
    lower_is_better: bool = False

    @property
    def label(self) -> str:
        """Name, unit and, where lower values are better, the direction, e.g. "rmse in m (lower is better)"."""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{self.name}{unit}{' (lower is better)' if self.lower_is_better else ''}"

    @property
    def worst(self) -> float:
        """The bound that no value is worse than."""
        return math.inf if self.lower_is_better else -math.inf

    def drop(self, reference: float, value: float) -> float:
        """By how much a value is worse than the reference; negative where it is better."""
        return value - reference if self.lower_is_better else reference - value


class Metric(Protocol):
    """A metric that is accumulated over many batches."""

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        """Add the deployable outputs for one batch; images without the task's labels are ignored."""

    def merge(self, other: Self) -> None:
        """Add the batches of another metric of the same kind, as if they had followed; of the same task's outputs."""

    def compute(self) -> float:
        """The value over all batches."""

    def report(self) -> dict[str, Any]:
        """All figures by name over all batches, for people; None where nothing could be measured."""


class Task(ABC):
    """One vision task on one set of classes."""

    name: ClassVar[str]
    """On the command line and in file names, e.g. "det"."""
    order: ClassVar[int] = 100
    """Tasks are listed in ascending order; tasks of equal order by name."""
    by_default: ClassVar[bool] = False
    """Whether commands use the task by default."""
    targets: ClassVar[tuple[str, ...]]
    """Names of the labels that it is trained on; an image with all of them counts as labelled."""
    soft_target: ClassVar[str | None] = None
    """Name of the label with a teacher's probabilities that ``soft_losses`` reads; None if there is none."""
    min_classes: ClassVar[int] = 0
    """Minimum number of classes, named by its first target, that can be learned; 0 for a task without classes."""
    paths: ClassVar[tuple[int, ...]]
    """Strides of the features the head reads, finest first."""
    metric: ClassVar[MetricInfo]
    output_names: tuple[str, ...]
    """Names of the deployable outputs, in order."""
    ranked_by: str | None = None
    """The output that rows are sorted by, if any: rows with equal values may come in any order."""
    forms: ClassVar[tuple[str, ...]] = ("plain",)
    """Variants of the deployable outputs, the default first; they share weights, losses and metric."""
    max_images: int | None = None
    """Maximum batch size of a deployed network; None if unlimited."""
    can_smooth: ClassVar[bool] = False
    """Whether ``losses`` uses ``label_smoothing``."""
    label_smoothing: float = 0.0
    """Share of the target probability that the loss spreads evenly over all classes (arXiv 1512.00567, section 7)."""
    panel_colours: bool = False
    """Whether a search's panel shows this task the images in other colours than in their files (docs/results.md)."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Fields of ``TrainConfig`` whose defaults differ for this task. They suit a training of a few epochs; a long one
    needs more augmentation, see docs/training.md."""

    def __init__(self, classes: ClassNames, *, form: str | None = None) -> None:
        """Create the task.

        Args:
            classes: names of the classes of each target of the data.
            form: of the deployable outputs; None is the first of ``forms``.

        Raises:
            UserError: the task has no such form.
        """
        self.classes = classes
        self.form = self.forms[0] if form is None else form
        if self.form not in self.forms:
            raise UserError(f"{self.name} has no outputs of form {form!r}; it has: {', '.join(self.forms)}")

    def in_form(self, form: str) -> Self:
        """The same task with another of its ``forms`` of deployable outputs.

        Raises:
            UserError: it has no such form.
        """
        return type(self)(self.classes, form=form)

    def smoothed(self, share: float) -> Self:
        """The same task with label smoothing in its loss, if it can have that; metric and outputs do not change."""
        task = copy(self)
        task.label_smoothing = share if self.can_smooth else 0.0
        return task

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of the deployable outputs: those of the first target."""
        return self.classes[self.targets[0]]

    def labelled(self, batch: Batch) -> Tensor:
        """Whether each image has this task's labels: bool [N]."""
        first, *others = (batch.present[name] for name in self.targets)
        for other in others:
            first = first & other
        return first

    @abstractmethod
    def build_head(self, channels: Sequence[int]) -> nn.Module:
        """A fresh, initialised head: list of [N, C_p, H/p, W/p], one per path -> raw outputs (a tensor or tuple)."""

    @abstractmethod
    def losses(self, raw: Any, batch: Batch) -> Tensor:
        """Each image's loss, float [N], differentiable; 0 where the image is not labelled."""

    def distillation_losses(self, raw: Any, teacher: Any, temperature: float) -> Tensor:
        """Each image's distance from the outputs of a teacher, float [N], differentiable; 0 where both are equal.

        Args:
            raw: outputs of the head of the network in training.
            teacher: those of a trained network for the same images, without gradients.
            temperature: divides the logits of probabilities; tasks without probabilities ignore it.

        Raises:
            UserError: the task has no distillation loss.
        """
        raise UserError(f"task {self.name} has no distillation loss: train it without a teacher")

    def soft_losses(self, raw: Any, batch: Batch, temperature: float) -> Tensor:
        """Each image's distance from its soft label, float [N], differentiable; 0 where it has none.

        Args:
            raw: outputs of the head of the network in training.
            batch: with the labels of ``soft_target``.
            temperature: as of ``distillation_losses``.

        Raises:
            UserError: the task has no soft labels.
        """
        raise UserError(f"task {self.name} has no soft labels: train it without them")

    @abstractmethod
    def deploy(self, raw: Any) -> tuple[Tensor, ...]:
        """Raw outputs of the head -> the outputs of the deployed network; traceable to ONNX."""

    def measure(self, metric: Metric, raw: Any, batch: Batch) -> None:
        """Add the raw outputs for one batch to a metric; a task with large deployable outputs makes them in parts."""
        metric.update(self.deploy(raw), batch)

    @abstractmethod
    def new_metric(self) -> Metric:
        """An empty metric."""
