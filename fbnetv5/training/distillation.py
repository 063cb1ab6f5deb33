"""The teacher of a training: a trained network whose raw outputs the network in training imitates (arXiv 1503.02531).

The objective of a task that the teacher has is

    (1 - distillation) * mean loss of the labelled images + distillation * mean distillation loss of all images

with ``Task.distillation_losses`` and a share of 0.8 as in FBNetV3's recipe (arXiv 2006.02049). An image needs no label
to be imitated on. The teacher sees the same augmented and mixed images, in eval mode, and runs before the generators of
the step are seeded: nothing that it draws changes what the network drops.

A teacher is an architecture file with weights beside it, for any of its tasks, or a classifier that
``fbnetv5.labeling.teachers`` opens. Deployed networks of other tasks cannot teach: their outputs are decoded, while a
loss needs those of the head. Neither can a network of other classes.

Shape legend: N images, H x W pixels, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.errors import UserError
from export.manifest import NAME as MANIFEST
from export.manifest import file_sha256, read_manifest
from export.placement import Fit
from export.validate import ONNX
from fbnetv5.architecture import load_architecture
from fbnetv5.evaluate import trained_fit
from fbnetv5.labeling.teachers.families import LIBRARIES, open_teacher
from fbnetv5.tasks.classification import Classification
from fbnetv5.tasks.task import Task
from fbnetv5.training.config import SOFT_LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationTeacher:
    """A trained network for some of the tasks of a network in training, on the same device."""

    tasks: frozenset[str]
    """The tasks that it teaches; others are trained from their labels alone."""
    checksum: str
    """Of its weights: a training is resumed with the same."""
    run: Callable[[Tensor], Mapping[str, Any]]
    """Normalised images [N, 3, H, W] -> by task, raw outputs of the head; in eval mode."""

    @torch.no_grad()
    def raw(self, images: Tensor) -> Mapping[str, Any]:
        """Normalised images [N, 3, H, W] -> by task, the raw outputs, without gradients."""
        return self.run(images)


def open_distillation_teacher(name: str, tasks: Mapping[str, Task], device: torch.device) -> DistillationTeacher:
    """The teacher of a network in training.

    Args:
        name: an architecture file, or a classifier as ``open_teacher`` reads it.
        tasks: of the network in training.
        device: of the network in training.

    Raises:
        UserError: there is no such teacher, it is damaged, has none of the tasks, or has other classes.
        UnavailableError: its library, or its weights, are not on this machine.
    """
    path = Path(name)
    if path.suffix == ".json":
        return _open_architecture(path, tasks, device)
    if path.is_dir() and not (path / MANIFEST).exists():
        raise UserError(f"teacher {name} is no exported folder: name an architecture file, such as {name}/cls.json")
    if name.partition(":")[0] not in LIBRARIES and not path.exists():
        raise UserError(
            f"there is no teacher {name}: name an architecture file with weights beside it or, for classification, an "
            "exported folder, an ONNX file with a description, or a published network such as timm:NAME"
        )
    return _open_classifier(name, tasks, device)


def _open_architecture(file: Path, tasks: Mapping[str, Task], device: torch.device) -> DistillationTeacher:
    """A network of this library."""
    architecture = load_architecture(file)
    of_teacher = architecture.make_tasks()
    shared = [task for task in tasks if task in of_teacher]
    if not shared:
        raise UserError(f"teacher {file} is a network for {architecture.name}: it cannot teach {', '.join(tasks)}")
    for task in shared:
        check_same_classes(str(file), of_teacher[task].labels, tasks[task])
    weights = file.with_suffix(".safetensors")
    network = architecture.load(weights).to(device).to(memory_format=torch.channels_last)
    network.eval().requires_grad_(False)
    return DistillationTeacher(tasks=frozenset(shared), checksum=file_sha256(weights), run=network.raw)


def _open_classifier(name: str, tasks: Mapping[str, Task], device: torch.device) -> DistillationTeacher:
    """A classifier; one with a file of the user's own weights has the classes of the images, in their order."""
    if Classification.name not in tasks:
        raise UserError(
            f"teacher {name} can teach {Classification.name} alone, not {', '.join(tasks)}: name an architecture file "
            "with weights beside it"
        )
    task = tasks[Classification.name]
    of_library = name.partition(":")[0] in LIBRARIES
    teacher = open_teacher(
        task.name,
        name,
        class_names=task.labels if of_library and "@" in name else None,
        device=str(device) if of_library else None,
        download=True,
    )
    check_same_classes(name, teacher.classes, task)

    def run(images: Tensor) -> dict[str, Tensor]:
        return {task.name: teacher.class_logits(images).clone()}  # a loss cannot keep a tensor of inference mode

    return DistillationTeacher(tasks=frozenset({task.name}), checksum=" ".join(teacher.provenance.values()), run=run)


def fit_of_teacher(name: str) -> Fit | None:
    """The fit of the images that a teacher was trained on; None where its files do not say.

    Raises:
        UserError: a file is missing or damaged.
    """
    path = Path(name)
    if name == SOFT_LABELS or name.partition(":")[0] in LIBRARIES:
        return None
    if path.suffix == ".json":
        return trained_fit(load_architecture(path))
    if path.is_file() and path.name != ONNX:
        return None
    folder = path if path.is_dir() else path.parent
    return read_manifest(folder).preprocessing.fit if (folder / MANIFEST).exists() else None


def check_same_classes(name: str, labels: Sequence[str], task: Task) -> None:
    """Raise a ``UserError`` that names the first difference, unless a teacher has the classes of a task in order."""
    for number, (theirs, ours) in enumerate(zip_longest(labels, task.labels)):
        if theirs != ours:
            raise UserError(
                f"teacher {name} has other classes for {task.name} than the images: class {number} is {theirs!r} "
                f"there, and {ours!r} here. Name a teacher that was trained on these classes"
            )
