"""What a run hands over for export: the network of a task, or of several in one file, ready to be fed and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.errors import UserError
from export.manifest import Preprocessing
from export.parity import Answer
from export.runners import Array, Runner
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import MEAN, STD, normalise
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.sample import ImageSet
from fbnetv5.deploy.wrappers import FromPixels, JointNetwork, Sharing
from fbnetv5.networks.backbone import TaskNetwork
from fbnetv5.runs.checkpoint import load_tensors, load_weights
from fbnetv5.runs.config import Run
from fbnetv5.tasks.task import Task

INPUT = "images"
BATCH = 64
"""Images that a network is measured on at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverable:
    """A module and what there is to know of it."""

    module: nn.Module
    """In eval mode: images [N, 3, H, W] -> all outputs, in the order of ``output_names``."""
    tasks: dict[str, Task]
    """By name; several where their networks are joined."""
    architectures: dict[str, Architecture]
    """By task."""
    from_pixels: bool
    """It takes uint8 images and normalises them itself."""
    sharing: Sharing | None
    """What joining saves; None for one task."""

    @property
    def name(self) -> str:
        """Of its folder, and in messages: such as "det" or "cls+det"."""
        return "+".join(self.tasks)

    @property
    def resolution(self) -> Resolution:
        """That it is deployed at."""
        return next(iter(self.architectures.values())).resolution

    @property
    def answers(self) -> dict[str, Answer]:
        """By task, its outputs; joined ones bear the task's name before their own."""
        return {
            name: Answer(
                outputs=tuple(self._output(name, output) for output in task.output_names),
                ranked_by=None if task.ranked_by is None else self._output(name, task.ranked_by),
            )
            for name, task in self.tasks.items()
        }

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of all outputs, in order."""
        return tuple(output for answer in self.answers.values() for output in answer.outputs)

    @property
    def max_images(self) -> int | None:
        """That it answers in one call; None if any number."""
        return min((task.max_images for task in self.tasks.values() if task.max_images), default=None)

    @property
    def preprocessing(self) -> Preprocessing:
        """From an 8-bit image to its input."""
        if self.from_pixels:
            return Preprocessing(resize=self.resolution, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
        return Preprocessing(resize=self.resolution, mean=MEAN, std=STD)

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

    def metrics(self, run: Runner, images: ImageSet, *, most: int = BATCH) -> dict[str, float]:
        """Every task's metric on the images, of whatever runs the network on at most so many at once."""
        found = {name: task.new_metric() for name, task in self.tasks.items()}
        for batch in in_order(images, batch=self.max_images or most):
            outputs = run(self.feed(batch.images))
            for name, answer in self.answers.items():
                found[name].update([torch.from_numpy(outputs[output]) for output in answer.outputs], batch)
        return {name: metric.compute() for name, metric in found.items()}

    def _output(self, task: str, output: str) -> str:
        return output if len(self.tasks) == 1 else f"{task}_{output}"


def load_deliverable(
    run: Path, tasks: Sequence[str], *, head: str | None = None, from_pixels: bool = False
) -> Deliverable:
    """The network of a task of a finished run, or the joined networks of several.

    Args:
        run: the run folder.
        tasks: one name, or several.
        head: form of the detector's outputs; None is its usual one.
        from_pixels: normalise inside the network.

    Raises:
        UserError: the run has no such network, its files are damaged, the tasks cannot be joined, or there is no such
            form.
    """
    loaded = {task: load_network(run, task) for task in tasks}
    architectures = {task: architecture for task, (architecture, _) in loaded.items()}
    networks = {task: network for task, (_, network) in loaded.items()}
    if head is not None:
        _set_head(networks, head)
    module: nn.Module = networks[tasks[0]]
    sharing = None
    if len(networks) > 1:
        resolutions = {one.resolution for one in architectures.values()}
        if len(resolutions) > 1:
            raise UserError(f"{', '.join(tasks)} are deployed at {sorted(resolutions)}: one file takes one size")
        joint = JointNetwork(networks)
        sharing, module = joint.sharing(resolutions.pop()), joint
    return Deliverable(
        module=(FromPixels(module) if from_pixels else module).eval(),
        tasks={task: network.task for task, network in networks.items()},
        architectures=architectures,
        from_pixels=from_pixels,
        sharing=sharing,
    )


def _set_head(networks: Mapping[str, TaskNetwork], head: str) -> None:
    """Let the one task that has several forms answer in this one."""
    several = [network for network in networks.values() if len(network.task.forms) > 1]
    if not several:
        raise UserError(f"{', '.join(networks)} has one form of outputs: leave out --head")
    for network in several:
        network.task = network.task.in_form(head)


def load_network(run: Path, task: str) -> tuple[Architecture, TaskNetwork]:
    """A finished run's network of a task, with its weights, in eval mode.

    Raises:
        UserError: the run has not that network (yet), or a file is damaged or of another network.
    """
    path = run / f"{task}.json"
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in run.glob("*.safetensors"))) or "none yet"
        raise UserError(
            f"{run} has no network for {task!r}; it has: {there}. A search that stopped goes on with --resume"
        )
    architecture = load_architecture(path)
    network = architecture.build()
    weights = path.with_suffix(".safetensors")
    load_weights(network, load_tensors(weights), weights)
    return architecture, network.eval()


def tasks_of(run: Path) -> list[str]:
    """The tasks of a run, in its own order.

    Raises:
        UserError: it is not a run folder.
    """
    return list(Run.load(run).tasks)
