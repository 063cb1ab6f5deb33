"""The model that is exported: the network of one task or of several tasks, with its inputs, outputs and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.errors import UserError
from export.manifest import Preprocessing
from export.parity import OutputGroup
from export.placement import PADDING, Fit
from export.runners import Array, Runner
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.data.loading import images_per_batch, in_order
from fbnetv5.data.preprocess import MEAN, STD, normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import ImageSet
from fbnetv5.deploy.wrappers import FromPixels, Sharing, measure_sharing
from fbnetv5.networks.backbone import Network, merge_networks
from fbnetv5.runs.folder import BRANCHED, file_name, missing_network
from fbnetv5.tasks.task import Task

INPUT = "images"
BATCH = 64
"""Batch size of metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportModel:
    """A module to export and its description."""

    module: nn.Module
    """In eval mode: images [N, 3, H, W] -> all outputs, in the order of ``output_names``."""
    tasks: dict[str, Task]
    """By name; several tasks if their networks are joined."""
    architectures: dict[str, Architecture]
    """By task."""
    from_pixels: bool
    """The module takes uint8 images and normalises them."""
    sharing: Sharing | None
    """What a joint network saves; None for one task."""
    fit: Fit = "stretch"
    """How images are fitted to the network's input."""

    @property
    def name(self) -> str:
        """Name in messages and of the folder, such as "det" or "cls+det"."""
        return "+".join(self.tasks)

    @property
    def resolution(self) -> Resolution:
        """The deploy resolution."""
        return next(iter(self.architectures.values())).resolution

    @property
    def task_outputs(self) -> dict[str, OutputGroup]:
        """The outputs of each task; in a joint network, output names start with the task's name."""
        return {
            name: OutputGroup(
                outputs=tuple(self._output(name, output) for output in task.output_names),
                ranked_by=None if task.ranked_by is None else self._output(name, task.ranked_by),
            )
            for name, task in self.tasks.items()
        }

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all outputs, in order."""
        return tuple(output for group in self.task_outputs.values() for output in group.outputs)

    @property
    def max_images(self) -> int | None:
        """Maximum number of images in one call; None for any number."""
        return min((task.max_images for task in self.tasks.values() if task.max_images), default=None)

    @property
    def preprocessing(self) -> Preprocessing:
        """The steps from an 8-bit image to the network's input."""
        steps = Preprocessing(
            resize=self.resolution,
            mean=MEAN,
            std=STD,
            fit=self.fit,
            padding=PADDING if self.fit == "letterbox" else None,
        )
        return steps.changed(mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0) if self.from_pixels else steps

    def feed(self, images: Tensor) -> dict[str, Array]:
        """Stored images, uint8 [N, 3, H, W], as the network's input."""
        return {INPUT: np.ascontiguousarray((images if self.from_pixels else normalise(images)).numpy())}

    def seeded(self, size: Resolution, images: int) -> dict[str, Array]:
        """Noise as the network's input, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        shape = (min(images, self.max_images or images), 3, *size)
        if self.from_pixels:
            return {INPUT: torch.randint(256, shape, generator=generator, dtype=torch.uint8).numpy()}
        return {INPUT: torch.randn(shape, generator=generator).numpy()}

    def first(self, images: ImageSet, count: int) -> dict[str, Array]:
        """The first images of a set as the network's input."""
        limit = min(count, self.max_images or count)
        return self.feed(next(iter(in_order(images, batch=limit, limit=limit))).images)

    def metrics(self, run: Runner, images: ImageSet, *, max_batch: int = BATCH) -> dict[str, float]:
        """Every task's metric on the images, with a runner of the network that accepts up to ``max_batch`` images."""
        metrics = {name: task.new_metric() for name, task in self.tasks.items()}
        for batch in in_order(images, batch=self.max_images or images_per_batch(images, max_batch)):
            outputs = run(self.feed(batch.images))
            for name, group in self.task_outputs.items():
                metrics[name].update([torch.from_numpy(outputs[output]) for output in group.outputs], batch)
        return {name: metric.compute() for name, metric in metrics.items()}

    def _output(self, task: str, output: str) -> str:
        return output if len(self.tasks) == 1 else f"{task}_{output}"


def load_export_model(
    run: Path, tasks: Sequence[str], *, head: str | None = None, from_pixels: bool = False, fit: Fit = "stretch"
) -> ExportModel:
    """The network of a task of a finished run, or the joined networks of several.

    Args:
        run: the run folder.
        tasks: one name, or several.
        head: form of the detector's outputs; None is the default form.
        from_pixels: the network contains its preprocessing.
        fit: how images are fitted to the network's input.

    Raises:
        UserError: the run has no such network, its files are damaged, the tasks cannot be joined, or the detector has
            no such form.
    """
    if (run / f"{file_name(run, tasks)}.json").exists():
        architecture, network = load_network(run, tasks)
        architectures = {task: architecture.alone(task) if len(tasks) > 1 else architecture for task in tasks}
    else:
        architectures, network = _join(run, tasks)
    if head is not None:
        _set_head(network, head)
    return ExportModel(
        module=(FromPixels(network) if from_pixels else network).eval(),
        tasks=network.tasks,
        architectures=architectures,
        from_pixels=from_pixels,
        sharing=None if len(tasks) == 1 else measure_sharing(network, architectures[tasks[0]].resolution),
        fit=fit,
    )


def _join(run: Path, tasks: Sequence[str]) -> tuple[dict[str, Architecture], Network]:
    """By task, the architectures of the run; and the network that joins those of all tasks."""
    loaded = {task: load_network(run, [task]) for task in tasks}
    architectures = {task: architecture for task, (architecture, _) in loaded.items()}
    resolutions = sorted({architecture.resolution for architecture in architectures.values()})
    if len(resolutions) > 1:
        raise UserError(f"{', '.join(tasks)} are deployed at {resolutions}: one file has one size")
    network = merge_networks({task: network for task, (_, network) in loaded.items()})
    if not network.backbone.graph.shared:
        raise UserError(
            f"the networks of {', '.join(tasks)} share no block, so that one file of them would save nothing: "
            "export them one by one"
        )
    return architectures, network


def _set_head(network: Network, head: str) -> None:
    """Set the form of outputs of the task that has several forms."""
    several = [name for name, task in network.tasks.items() if len(task.forms) > 1]
    if not several:
        raise UserError(f"{', '.join(network.tasks)} has one form of outputs: leave out --head")
    for name in several:
        network.tasks[name] = network.tasks[name].in_form(head)


def load_network(run: Path, tasks: Sequence[str]) -> tuple[Architecture, Network]:
    """A finished run's network with its weights, in eval mode.

    Args:
        run: the run folder.
        tasks: one task, or all tasks of one network for several.

    Raises:
        UserError: the run does not have that network (yet), or a file is damaged or of another network.
    """
    name = "+".join(tasks)
    path = run / f"{file_name(run, tasks)}.json"
    if not path.exists():
        if (run / f"{BRANCHED}.json").exists():
            raise UserError(f"{run} has one network for all of its tasks, not one for {name}: leave out --task")
        raise missing_network(run, name)
    architecture = load_architecture(path)
    if set(architecture.choices) != set(tasks):
        raise UserError(f"{path} is the network of {architecture.name}, not of {name}")
    return architecture, architecture.load(path.with_suffix(".safetensors")).eval()
