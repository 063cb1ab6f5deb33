"""Evaluates a network on images: the metrics of all its tasks in one pass, and their gain over other networks.

Delta_m is the mean relative gain of a network of several tasks over networks of one task each:

    Delta_m = 100 / T * sum_t (-1)^l_t (M_t - B_t) / B_t

M_t is the metric of task t of the network, B_t that of the network of this task alone, and l_t is 1 where lower values
are better. It is a percentage; negative values are a loss. The formula is that of Maninis et al. ("Attentive
Single-Tasking of Multiple Tasks", arXiv 1904.08918), which BMTAS (arXiv 2008.10292, section 4) reports.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32, gather_object
from torch import Tensor

from export.errors import UnavailableError, UserError
from export.placement import Fit
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.data.fit import parse_fit
from fbnetv5.data.loading import IN_THIS_PROCESS, Reading, images_per_batch, in_order, num_workers_for
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.data.sample import Batch, ImageSet, has_labels
from fbnetv5.data.splits import Splits, open_splits
from fbnetv5.data.targets import class_names
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.folder import networks_of
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
    fit: Fit
    """How the images were fitted to the size."""

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` document."""
        return {
            "task": self.task,
            "metric": {**asdict(self.metric), "value": self.value},
            "figures": self.figures,
            "images": self.images,
            "size": list(self.size),
            "fit": self.fit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The network of one task alone that a network of several tasks is compared with."""

    file: Path
    """Its architecture file."""
    value: float
    """Its metric on the same test images."""
    gain_percent: float | None
    """Relative gain of the compared network over it; None where its metric is 0, relative to which there is no gain."""

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` document."""
        return {"file": str(self.file), "value": self.value, "gain_percent": self.gain_percent}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A network of several tasks beside its baselines."""

    baselines: dict[str, Baseline]
    """By task."""
    delta_m_percent: float | None
    """None where a baseline has no gain."""

    def to_json(self) -> dict[str, Any]:
        """The ``--json`` document."""
        baselines = {task: baseline.to_json() for task, baseline in self.baselines.items()}
        return {"baselines": baselines, "delta_m_percent": self.delta_m_percent}


@torch.no_grad()
def measure(tasks: Mapping[str, Task], raw: Raw, batches: Iterable[Batch]) -> dict[str, Metric]:
    """By task, its metric after the batches."""
    metrics = {name: task.new_metric() for name, task in tasks.items()}
    for batch in batches:
        outputs = raw(normalise(batch.images))
        for name, task in tasks.items():
            task.measure(metrics[name], outputs[name], batch)
    return metrics


def measure_share(tasks: Mapping[str, Task], raw: Raw, batches: Iterable[Batch]) -> dict[str, Metric]:
    """By task, its metric after the batches of all processes, of which this one has every so-manieth.

    All processes must call it, and get the metrics that a single process computes of all batches in order: those of
    each batch are exchanged and added up in that order, so that sums are rounded alike.
    """
    accelerator = make_accelerator()
    if accelerator.num_processes == 1:
        return measure(tasks, raw, batches)
    rank, world = accelerator.process_index, accelerator.num_processes
    own = [(number * world + rank, measure(tasks, raw, [batch])) for number, batch in enumerate(batches)]
    everything: list[tuple[int, dict[str, Metric]]] = gather_object(own)
    (_, metrics), *others = sorted(everything, key=lambda numbered: numbered[0])
    for _, of_batch in others:
        for name, metric in metrics.items():
            metric.merge(of_batch[name])
    return metrics


def in_run_precision(raw: Raw, device: torch.device, accelerator: Accelerator) -> Raw:
    """``raw`` in the mixed precision of this run's accelerator, with images moved to ``device`` and float32 outputs."""

    def run(images: Tensor) -> Mapping[str, Any]:
        with accelerator.autocast():
            outputs = raw(images.to(device))
        return outputs if accelerator.mixed_precision == "no" else convert_to_fp32(outputs)

    return run


def evaluate_file(
    file: Path,
    *,
    task: str | None,
    weights: Path | None,
    data: Path | None,
    size: Resolution | None,
    fit: Fit | None = None,
) -> dict[str, Evaluation]:
    """By task, all figures of the network of an architecture file on the test images.

    Args:
        file: the architecture file.
        task: the task to evaluate, which the network must have; None for all of its tasks.
        weights: a safetensors file; None for the file beside the architecture file.
        data: folder of the user's images; None for the demo scenes.
        size: of the images; None for the size that the weights were trained at.
        fit: of the images of a folder; None for the fit that the weights were trained with.

    Raises:
        UserError: a file is missing, damaged or of another network, or the images have other classes.
    """
    architecture = load_architecture(file)
    check_task(architecture, task, file)
    names = list(architecture.choices) if task is None else [task]
    size, fit = size or trained_size(architecture), applied_fit(fit or trained_fit(architecture), data)
    images = open_splits(data, size=size, targets=needed_targets(names), fit=fit).test
    check_classes(architecture, class_names(images.targets), names)
    path = weights or file.with_suffix(".safetensors")
    network = architecture.load(path).to(make_accelerator().device).to(memory_format=torch.channels_last)
    reading = Reading(num_workers=num_workers_for(data))
    return evaluate_network(network, images, size=size, fit=fit, reading=reading, tasks=names)


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
            counts = [
                f"{len(labels)} ({', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''})" for labels in of_both
            ]
            raise UserError(
                f"the network has {counts[0]} classes, the images have {counts[1]}. Name the images that the "
                "network was searched for with --data, or search for these"
            )


def check_labelled(task: Task, images: ImageSet, use: str) -> None:
    """Raise UserError if no image has labels for the task, or none an object where boxes are labels.

    Labels are read up to the first labelled image, images up to the first with an object.
    """
    labelled = (index for index in range(len(images)) if has_labels(images, index, task.targets))
    first = next(labelled, None)
    if first is None:
        raise UserError(
            f"none of the {len(images)} images to {use} has labels for {task.name}. Label some, or leave the task out"
        )
    if "boxes" in task.targets and not any(_shows_object(images, index) for index in chain((first,), labelled)):
        raise UserError(
            f"none of the {len(images)} images to {use} shows an object for {task.name}. Label some, or leave the task "
            "out"
        )


def _shows_object(images: ImageSet, index: int) -> bool:
    """Whether a labelled image has a box; an image that cannot be read is left to those that load it."""
    try:
        return len(images[index].targets["boxes"].labels) > 0
    except UnavailableError:  # of the storage, for this image and all others
        raise
    except UserError:
        return False


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


def applied_fit(fit: Fit, data: Path | str | None) -> Fit:
    """The fit of the images of a user's folder; demo scenes, None, are composed at the size: nothing is padded."""
    return "stretch" if data is None else fit


def trained_fit(architecture: Architecture) -> Fit:
    """How images were fitted to the size of the training; architecture files of earlier versions do not say: stretch.

    Raises:
        UserError: the file names an unknown fit.
    """
    return parse_fit(str(architecture.provenance.get("fit", "stretch")))


def measure_network(
    network: Network, dataset: ImageSet, *, reading: Reading = IN_THIS_PROCESS, tasks: Sequence[str] | None = None
) -> dict[str, Metric]:
    """By task, its metric after a data set, of the named tasks or of all; leaves the network in eval mode.

    Processes share the images: all must call it with the same network.
    """
    accelerator = make_accelerator()
    network.eval()
    chosen = {name: network.tasks[name] for name in tasks or network.tasks}
    rank, world = accelerator.process_index, accelerator.num_processes
    batch = images_per_batch(dataset, BATCH)
    batches = in_order(dataset, batch=batch, reading=reading, rank=rank, world=world)
    device = next(network.parameters()).device
    on_device = (batch.to(device) for batch in batches)  # where the outputs are, with which metrics compare its labels
    return measure_share(chosen, in_run_precision(network.raw, device, make_accelerator()), on_device)


def evaluate_network(
    network: Network,
    dataset: ImageSet,
    *,
    size: Resolution,
    fit: Fit = "stretch",
    reading: Reading = IN_THIS_PROCESS,
    tasks: Sequence[str] | None = None,
) -> dict[str, Evaluation]:
    """By task, all figures of a network on a data set of ``size`` and ``fit``; see ``measure_network``."""
    return {
        name: Evaluation(
            task=name,
            metric=network.tasks[name].metric,
            value=metric.compute(),
            figures=metric.report(),
            images=len(dataset),
            size=size,
            fit=fit,
        )
        for name, metric in measure_network(network, dataset, reading=reading, tasks=tasks).items()
    }


def gain_percent(value: float, baseline: float, metric: MetricInfo) -> float:
    """The relative gain in percent over a baseline that is not 0; positive where the value is better."""
    return -100 * metric.drop(baseline, value) / baseline


def delta_m(values: Mapping[str, float], baselines: Mapping[str, float], metrics: Mapping[str, MetricInfo]) -> float:
    """Delta_m in percent: the mean over the tasks of ``gain_percent``.

    Args:
        values: by task, the metric of the network.
        baselines: by task, the metric of the network of this task alone; none is 0.
        metrics: by task, name and direction of the metric.
    """
    gains = [gain_percent(value, baselines[task], metrics[task]) for task, value in values.items()]
    return sum(gains) / len(gains)


def compare(
    files: Mapping[str, Path], evaluations: Mapping[str, Evaluation], data: Path | None, fit: Fit | None = None
) -> Comparison:
    """Evaluate the baselines of an evaluated network on the same test images of the same size.

    Args:
        files: by task, the architecture file of the baseline.
        evaluations: of the compared network by task.
        data: folder of the images; None for the demo scenes.
        fit: of the images; None for the fit that each baseline was trained with.

    Raises:
        UserError: the weights of a baseline are missing or damaged.
    """
    baselines = {}
    for task, evaluation in evaluations.items():
        file, size = files[task], evaluation.size
        value = evaluate_file(file, task=task, weights=None, data=data, size=size, fit=fit)[task].value
        gain = gain_percent(evaluation.value, value, evaluation.metric) if value else None
        baselines[task] = Baseline(file=file, value=value, gain_percent=gain)
    values = {task: evaluation.value for task, evaluation in evaluations.items()}
    of_baselines = {task: baseline.value for task, baseline in baselines.items()}
    metrics = {task: evaluation.metric for task, evaluation in evaluations.items()}
    mean = delta_m(values, of_baselines, metrics) if all(of_baselines.values()) else None
    return Comparison(baselines=baselines, delta_m_percent=mean)


def baseline_files(paths: Iterable[Path], architecture: Architecture, tasks: Sequence[str]) -> dict[str, Path]:
    """By task, the architecture file of its only baseline.

    Args:
        paths: architecture files of networks of one task, or run folders, whose other tasks are ignored.
        architecture: of the network that is compared with them.
        tasks: of that network, which need a baseline each.

    Raises:
        UserError: a task has no baseline or two, or a baseline has several tasks, another task, other classes or no
            weights.
    """
    files: dict[str, Path] = {}
    for path in paths:
        for file in _files_in(path, tasks):
            task = _task_of(file, architecture, tasks)
            if task in files:
                raise UserError(f"there are two baselines for {task}: {files[task]} and {file}; leave one out")
            files[task] = file
    if missing := [task for task in tasks if task not in files]:
        raise UserError(f"there is no baseline for {', '.join(missing)}: add --baseline FILE, a network of that task")
    for file in files.values():
        if not (weights := file.with_suffix(".safetensors")).exists():
            raise UserError(f"--baseline {file} has no weights, {weights}: train it first")
    return files


def _files_in(path: Path, tasks: Sequence[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    networks = networks_of(path)
    if shared := ["+".join(names) for names in networks if len(names) > 1]:
        raise UserError(
            f"--baseline {path} has one network of several tasks ({shared[0]}); a baseline must be of one task"
        )
    return [path / f"{task}.json" for (task,) in networks if task in tasks]


def _task_of(file: Path, architecture: Architecture, tasks: Sequence[str]) -> str:
    """The only task of a baseline; see ``baseline_files``."""
    baseline = load_architecture(file)
    if baseline.name not in tasks:
        raise UserError(
            f"--baseline {file} is a network for {baseline.name}; one of these is needed: {', '.join(tasks)}"
        )
    if baseline.make_task().labels != architecture.make_tasks()[baseline.name].labels:
        raise UserError(f"--baseline {file} has other classes than the network that is compared with it")
    return baseline.name
