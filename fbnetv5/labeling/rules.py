"""From the prediction of a teacher to the label of an image: thresholds and class names.

Shape legend: T classes of the teacher, H x W pixels of the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.data.folder import KINDS
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
from fbnetv5.data.targets import ABSENT, IGNORE, Boxes, SoftLabel, Target
from fbnetv5.labeling.config import EVERY_OTHER, TeacherConfig
from fbnetv5.labeling.teachers.decoders import Prediction, ScoredMap
from fbnetv5.tasks import task_types


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """How the predictions for one task become labels."""

    target: str
    classes: tuple[str, ...]
    """Names of the classes of the labels."""
    class_ids: Tensor
    """int64 [T]: the id of each class of the teacher in ``classes``, ABSENT for a class that is left out."""
    thresholds: Tensor
    """float32 [T]: minimum confidence by class of the teacher."""
    threshold: float
    """Minimum confidence where there are no classes."""

    @property
    def made(self) -> Target:
        """The target that it makes labels of."""
        return Target(kind=KINDS[self.target], classes=self.classes)

    def __call__(self, prediction: Prediction) -> Any:
        """The label, of the type that its kind documents; None where the teacher is not confident enough."""
        if isinstance(prediction, ClassScores):
            return self._class(prediction)
        if isinstance(prediction, ScoredBoxes):
            certain = self._certain(prediction.labels, prediction.scores)
            return Boxes(prediction.xyxy[certain], self.class_ids[prediction.labels[certain]])
        if isinstance(prediction, ScoredMap):
            certain = self._certain(prediction.ids, prediction.confidences)
            ids = self.class_ids.clamp(min=0).to(torch.uint8)[prediction.ids]
            return ids.masked_fill_(~certain, IGNORE)
        if isinstance(prediction, ProbabilityMap):
            return (prediction.probabilities >= self.threshold).to(torch.uint8)
        return prediction.values

    def soft_label(self, prediction: ClassScores[Tensor], count: int) -> SoftLabel | None:
        """The ``count`` most probable classes; probabilities of classes that have one name in the data set are added.

        None where the most probable class of the teacher is left out: the others say little of such an image.
        """
        if self.class_ids[prediction.probabilities.argmax()] == ABSENT:
            return None
        used = self.class_ids != ABSENT
        sums = torch.zeros(len(self.classes)).index_add(0, self.class_ids[used], prediction.probabilities[used])
        highest = sums.sort(descending=True, stable=True)
        kept = highest.values[:count] > 0
        return SoftLabel(highest.values[:count][kept], highest.indices[:count][kept])

    def _certain(self, ids: Tensor, confidences: Tensor) -> Tensor:
        """Which of the predicted classes are sure enough and not left out."""
        return (confidences >= self.thresholds[ids]) & (self.class_ids[ids] != ABSENT)

    def _class(self, prediction: ClassScores[Tensor]) -> int | None:
        best = prediction.probabilities.argmax()
        is_certain = self._certain(best, prediction.probabilities[best])
        return int(self.class_ids[best]) if is_certain else None


def make_rule(
    task: str, names: Sequence[str], config: TeacherConfig, threshold: float, existing: Mapping[str, Target]
) -> LabelRule:
    """The rule of a teacher with these class names.

    Args:
        task: of the teacher.
        names: of its classes.
        config: its settings.
        threshold: of teachers whose settings have none.
        existing: targets of the data set, whose labels the teacher complements.

    Raises:
        UserError: class names do not match, or there are too many classes.
    """
    target = task_types()[task].targets[0]
    mapped = _mapped(task, names, config)
    used = tuple(dict.fromkeys(name for name in mapped if name))
    classes = existing[target].classes if target in existing else used
    if missing := [name for name in used if name not in classes]:
        raise UserError(
            f"the teacher of {task} has class {missing[0]!r}, and the data set has {_listed(classes)}: map its "
            f"classes to those in --config, teachers.{task}.classes, or take the images alone with --ignore-labels"
        )
    if unknown := [name for name in config.thresholds if name not in classes]:
        raise UserError(
            f"teachers.{task}.thresholds names {unknown[0]!r}, which is no class; there are {_listed(classes)}"
        )
    if target in ("mask", "parts") and len(classes) > IGNORE:
        raise UserError(
            f"the teacher of {task} has {len(classes)} classes, and a mask file has {IGNORE} at most: map some"
        )
    general = threshold if config.threshold is None else config.threshold
    ids = {name: class_id for class_id, name in enumerate(classes)}
    return LabelRule(
        target=target,
        classes=classes,
        class_ids=torch.tensor([ids[name] if name else ABSENT for name in mapped], dtype=torch.int64),
        thresholds=torch.tensor([config.thresholds.get(name, general) for name in mapped], dtype=torch.float32),
        threshold=general,
    )


def _mapped(task: str, names: Sequence[str], config: TeacherConfig) -> list[str]:
    """The name of each class of the teacher in the data set, "" for those that are left out."""
    if unknown := [name for name in config.classes if name not in names and name != EVERY_OTHER]:
        raise UserError(
            f"teachers.{task}.classes names {unknown[0]!r}, which is no class of the teacher; it has {_listed(names)}"
        )
    mapped = [config.classes.get(name, config.classes.get(EVERY_OTHER, name)) if name else "" for name in names]
    if names and not any(mapped):
        raise UserError(f"teachers.{task}.classes leaves out all classes of the teacher: keep one at least")
    return [name or "" for name in mapped]


def _listed(names: Sequence[str], count: int = 8) -> str:
    """The first names, for messages."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(repr, names[:count])) + more
