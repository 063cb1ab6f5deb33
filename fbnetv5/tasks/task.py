"""The one interface behind which every task stands. A new task on known targets is one new file in this folder.

The file defines one subclass of ``Task``; ``fbnetv5.tasks`` finds it by looking at the folder. A task says which
targets it learns from and which features it reads, builds its head, turns a batch into per-image losses, measures
itself, and says what a deployed network answers.

Shape legend: N images, C_p channels of the feature at stride p, H x W pixels of the image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.data.sample import Batch

ClassNames = Mapping[str, tuple[str, ...]]
"""By target, the names of its classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """What a task's figure of merit is."""

    name: str
    """E.g. "ap"."""
    unit: str = ""
    """E.g. "m"; a share from 0 to 1 has none."""
    lower_is_better: bool = False

    @property
    def worst(self) -> float:
        """No value is worse."""
        return math.inf if self.lower_is_better else -math.inf

    def drop(self, reference: float, value: float) -> float:
        """By how much a value is worse than the reference; negative where it is better."""
        return value - reference if self.lower_is_better else reference - value


class Metric(Protocol):
    """A figure of merit over many batches."""

    def update(self, outputs: Sequence[Tensor], batch: Batch) -> None:
        """Take the deployable outputs for one batch; images without the task's labels are left out."""

    def compute(self) -> float:
        """The figure over all that was taken."""

    def report(self) -> dict[str, Any]:
        """All figures by name over all that was taken, for people; None where there was nothing to measure."""


class Task(ABC):
    """One vision task on one set of classes."""

    name: ClassVar[str]
    """On the command line and in file names, e.g. "det"."""
    order: ClassVar[int] = 100
    """Tasks are listed from the lowest to the highest; equal ones by name."""
    by_default: ClassVar[bool] = False
    """Whether commands work on the task where no tasks are named."""
    targets: ClassVar[tuple[str, ...]]
    """Names of the labels that it learns from, all of which an image must have to count as labelled."""
    has_classes: ClassVar[bool] = False
    """Whether it tells classes apart, so that its first target must name some."""
    paths: ClassVar[tuple[int, ...]]
    """Strides of the features the head reads, finest first."""
    metric: ClassVar[MetricInfo]
    output_names: tuple[str, ...]
    """Names of the deployable outputs, in order."""
    ranked_by: str | None = None
    """The output by which the others' rows are sorted, if any: rows whose values tie may come in any order."""
    forms: ClassVar[tuple[str, ...]] = ("plain",)
    """Which deployable outputs there are to choose from, the usual ones first; weights, losses and metric are one."""
    max_images: int | None = None
    """That a deployed network answers in one call; None if any number."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Fields of ``TrainConfig`` whose defaults differ for this task. They suit a training of a few epochs; a long one
    wants more change, see docs/training.md."""

    def __init__(self, classes: ClassNames, *, form: str | None = None) -> None:
        """Make the task.

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
        """The same task with deployable outputs of another of its ``forms``.

        Raises:
            UserError: it has no such form.
        """
        return type(self)(self.classes, form=form)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes that the deployable outputs speak of: those of the first target."""
        return self.classes[self.targets[0]]

    def labelled(self, batch: Batch) -> Tensor:
        """Which images carry this task's labels: bool [N]."""
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

    @abstractmethod
    def deploy(self, raw: Any) -> tuple[Tensor, ...]:
        """Raw outputs of the head -> the outputs a user of the network wants; traceable to ONNX."""

    @abstractmethod
    def new_metric(self) -> Metric:
        """An empty metric."""
