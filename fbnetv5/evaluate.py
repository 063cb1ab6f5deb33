"""Evaluates a network on images: the metrics of all its tasks, or all figures of them, in one pass."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.data.loading import in_order, num_workers_for
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.data.sample import Batch, ImageSet
from fbnetv5.data.splits import Splits, open_splits
from fbnetv5.data.targets import class_names
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.processes import make_accelerator
from fbnetv5.tasks import make_tasks, needed_targets
from fbnetv5.tasks.task import ClassNames, Metric, MetricInfo, Task

BATCH = 64

Raw = Callable[[Tensor], Mapping[str, Any]]
"""Normalised images [N, 3, H, W] -> by task, the raw outputs of its head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All figures of a network on a set of images."""

    task: str
    metric: MetricInfo
    """The metric that searches and trainings optimise."""
    value: float
    """Of the metric."""
    figures: dict[str, Any]
    """All of them by name; see the task's metric."""
    images: int
    size: Resolution

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "metric": {**asdict(self.metric), "value": self.value},
            "figures": self.figures,
            "images": self.images,
            "size": list(self.size),
        }


def evaluate(tasks: Mapping[str, Task], raw: Raw, batches: Iterable[Batch]) -> dict[str, float]:
    """By task, its metric over the batches."""
    return {name: metric.compute() for name, metric in measure(tasks, raw, batches).items()}


@torch.no_grad()
def measure(tasks: Mapping[str, Task], raw: Raw, batches: Iterable[Batch]) -> dict[str, Metric]:
    """By task, its metric after the batches."""
    metrics = {name: task.new_metric() for name, task in tasks.items()}
    for batch in batches:
        outputs = raw(normalise(batch.images))
        for name, task in tasks.items():
            metrics[name].update(task.deploy(outputs[name]), batch)
    return metrics


def evaluate_file(
    file: Path, *, task: str | None, weights: Path | None, data: Path | None, size: Resolution | None
) -> dict[str, Evaluation]:
    """By task, all figures of the network of an architecture file on the test images.

    Args:
        file: the architecture file.
        task: the task to evaluate, which the network must have; None for all of its tasks.
        weights: a safetensors file; None for the file beside the architecture file.
        data: folder of the user's images; None for the demo scenes.
        size: of the images; None for the size that the weights were trained at.

    Raises:
        UserError: a file is missing, damaged or of another network, or the images have other classes.
    """
    architecture = load_architecture(file)
    check_task(architecture, task, file)
    names = list(architecture.choices) if task is None else [task]
    size = size or trained_size(architecture)
    images = open_splits(data, size=size, targets=needed_targets(names)).test
    check_classes(architecture, class_names(images.targets), names)
    path = weights or file.with_suffix(".safetensors")
    network = architecture.load(path).to(make_accelerator().device).to(memory_format=torch.channels_last)
    return evaluate_network(network, images, size=size, num_workers=num_workers_for(data), tasks=names)


def check_task(architecture: Architecture, task: str | None, file: Path) -> None:
    """Raise UserError if the network does not have the task; None stands for any task."""
    if task is not None and task not in architecture.choices:
        raise UserError(f"{file} is a network for {architecture.name}, not for {task}; name another --arch")


def check_classes(architecture: Architecture, classes: ClassNames, names: Sequence[str] | None = None) -> None:
    """Raise UserError unless these classes of images are those of the named tasks of the network, or of all."""
    of_network = architecture.make_tasks()
    for name, task in make_tasks(tuple(names or of_network), classes).items():
        if task.labels != of_network[name].labels:
            of_both = (of_network[name].labels, task.labels)
            counts = [f"{len(labels)} ({', '.join(labels[:3])}, ...)" for labels in of_both]
            raise UserError(
                f"the network has {counts[0]} classes, the images have {counts[1]}. Name the images that the "
                "network was searched for with --data, or search for these"
            )


def check_labelled(task: Task, images: ImageSet, use: str) -> None:
    """Raise UserError if no image has labels for the task. Images are read up to the first labelled image."""
    if any(bool(task.labelled(batch).any()) for batch in in_order(images, batch=1)):
        return
    raise UserError(
        f"none of the {len(images)} images to {use} has labels for {task.name}. Label some, or leave the task out"
    )


def check_splits(tasks: Iterable[Task], splits: Splits) -> None:
    """Raise UserError if a split has no image with labels for one of the tasks."""
    for task in tasks:
        for use, images in (("learn from", splits.weights), ("hold out", splits.policies), ("test on", splits.test)):
            check_labelled(task, images, use)


def trained_size(architecture: Architecture) -> Resolution:
    """The size of the images that the weights beside an architecture file were trained at."""
    size = architecture.provenance.get("trained_at")
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int for side in size):
        return architecture.resolution
    return check_resolution((*size,))


def evaluate_network(
    network: Network,
    dataset: ImageSet,
    *,
    size: Resolution,
    num_workers: int = 0,
    tasks: Sequence[str] | None = None,
) -> dict[str, Evaluation]:
    """By task, all figures of a network on a data set of ``size``, of the named tasks or of all, in one pass."""
    device = next(network.parameters()).device
    network.eval()
    chosen = {name: network.tasks[name] for name in tasks or network.tasks}
    batches = in_order(dataset, batch=BATCH, num_workers=num_workers)
    metrics = measure(chosen, lambda images: network.raw(images.to(device)), batches)
    return {
        name: Evaluation(
            task=name,
            metric=task.metric,
            value=metrics[name].compute(),
            figures=metrics[name].report(),
            images=len(dataset),
            size=size,
        )
        for name, task in chosen.items()
    }
