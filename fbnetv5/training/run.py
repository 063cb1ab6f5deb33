"""Runs one training of a derived network from its arguments to its files: the work behind ``fbnetv5 train``.

The folder is a run folder: ``config.json``, the architecture ``TASK.json`` with its best weights ``TASK.safetensors``
(``branched``, or the names of all tasks, for a network of several), ``history.jsonl``, ``tensorboard/``,
``checkpoint/`` and, at the end, ``evaluation.json`` with the figures on the test images; export reads it. A killed
training is resumed from its folder alone and ends with the same files.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, set_seed

from export.files import finite, write_json
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.splits import without_policies
from fbnetv5.data.targets import class_names
from fbnetv5.evaluate import Evaluation, applied_fit, check_classes, check_labelled, evaluate_network
from fbnetv5.runs.checkpoint import load_tensors, load_weights, save_tensors
from fbnetv5.runs.folder import file_name, make_folder
from fbnetv5.runs.processes import in_first_process, make_accelerator
from fbnetv5.runs.start import check_processes, open_images
from fbnetv5.tasks import needed_targets
from fbnetv5.training.checks import check_recipe, check_soft_labels, check_teacher
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.initial import initial_network
from fbnetv5.training.loop import TrainEntry, TrainLoop

EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The result of a finished training."""

    folder: Path
    """The run folder, with the architecture file and its best weights."""
    architecture: Architecture
    initial: dict[str, float]
    """By task, the metric of the initial weights on the held-out images."""
    best: dict[str, float]
    """By task, the metric of the stored weights, on the same images."""
    best_step: int
    steps: int
    test: dict[str, Evaluation]
    """By task, all figures of the stored weights on the test images."""

    def document(self) -> dict[str, Any]:
        """The content of ``evaluation.json``."""
        figures = {name: value for name, value in self.to_json().items() if name != "folder"}
        return {"schema": 1, "kind": "evaluation", **finite(figures)}

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 train --json``."""
        return {
            "folder": str(self.folder),
            "steps": self.steps,
            "best_step": self.best_step,
            "tasks": {
                name: {
                    "held_out": {"initial": self.initial[name], "best": self.best[name]},
                    "test": evaluation.to_json(),
                }
                for name, evaluation in self.test.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A configuration, whose length is in steps, and its images, opened once."""

    config: TrainConfig
    images: ImageSet
    """Images to learn from."""
    held_out: ImageSet
    """Images that the best weights are chosen by."""
    test: ImageSet


def prepare(config: TrainConfig) -> Prepared:
    """Open the images of a configuration.

    Raises:
        UserError: the images are missing or do not fit.
    """
    splits = open_images(config.data, needed_targets(config.tasks, soft=config.reads_soft_labels))
    images, held_out = without_policies(splits, config.held_out)
    return Prepared(config=in_steps(config, len(images)), images=images, held_out=held_out, test=splits.test)


def in_steps(config: TrainConfig, images: int) -> TrainConfig:
    """The configuration with its length in steps instead of epochs of so many images, all processes together."""
    if config.epochs is None:
        return config
    per_step = config.batch * make_accelerator().num_processes
    return config.changed(steps=math.ceil(config.epochs * images / per_step), epochs=None)


def start_training(
    config: TrainConfig, file: Path, folder: Path, *, transferred: Architecture | None = None
) -> tuple[Path, Prepared]:
    """Check all inputs before any computing time is spent, then make the folder.

    Args:
        config: of the training.
        file: the architecture file.
        folder: to make.
        transferred: the network to train instead of that of the file, whose blocks it inherits.

    Returns:
        The folder, the first process's where there are several; and the configuration with its images, opened.

    Raises:
        UserError: an input does not fit, or the folder exists already or cannot be written.
        UnavailableError: published weights, or the library of a teacher, are not on this machine.
    """
    architecture, prepared = transferred or load_architecture(file), prepare(config)
    check_classes(architecture, class_names(prepared.images.targets))
    uses = (("learn from", prepared.images), ("hold out", prepared.held_out), ("test on", prepared.test))
    for (use, images), task in product(uses, architecture.make_tasks().values()):
        check_labelled(task, images, use)
    check_recipe(config, list(architecture.make_tasks().values()), prepared.images.targets)
    blocks_only = transferred is not None
    network = initial_network(architecture, config.init, file=file, seed=config.seed, blocks_only=blocks_only)
    if config.reads_soft_labels:
        check_soft_labels(network.tasks, prepared.images)
    elif config.teacher is not None:
        check_teacher(config.teacher, network, config.data.size)

    def write(temporary: Path) -> None:
        architecture.save(temporary / f"{architecture.file_name}.json")
        save_tensors(temporary / f"{architecture.file_name}.safetensors", network.state_dict())
        prepared.config.save(temporary)

    return in_first_process(lambda: _make_whole(folder, write)), prepared


def _make_whole(folder: Path, write: Callable[[Path], None]) -> Path:
    """Make a run folder with the files that ``write`` writes, or no folder at all; returns the folder.

    Raises:
        UserError: the folder exists already, or something cannot be written.
    """
    temporary = folder.parent / f".{folder.name}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        make_folder(temporary, flag="--output")
        write(temporary)
        make_folder(folder, flag="--output")
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def run_training(
    folder: Path, prepared: Prepared, report: Callable[[TrainEntry], None], log: Callable[[str], None]
) -> TrainResult:
    """Run or resume the training of a folder to its end, then evaluate its weights on the test images.

    Args:
        folder: of the training.
        prepared: its configuration, with images opened.
        report: called with every entry of the history.
        log: prints a line for the user.

    Raises:
        UserError: bad input, a damaged checkpoint, or processes that differ.
        VerificationError: too many losses or the first score are not finite, or too many images unreadable.
    """
    check_processes(folder, prepared.test)
    loop = open_loop(folder, prepared)
    loop.run(report)
    log("evaluating the best weights on the test images")
    result = _result(folder / f"{loop.architecture.file_name}.json", loop, prepared.test)
    if loop.accelerator.is_main_process:
        write_json(folder / EVALUATION, result.document())
    return result


def check_resumed(folder: Path, prepared: Prepared) -> None:
    """Raise UserError if the images of a training that is resumed have other classes than when it began."""
    tasks = prepared.config.tasks
    architecture = load_architecture(folder / f"{file_name(folder, tasks)}.json")
    check_classes(architecture, class_names(prepared.images.targets), tasks)


def open_loop(folder: Path, prepared: Prepared) -> TrainLoop:
    """The loop of the training of a folder, at its initial weights.

    Args:
        folder: of the training.
        prepared: its configuration, with images opened.

    Raises:
        UserError: the architecture or the weights are missing or damaged.
    """
    config = prepared.config
    set_seed(config.seed)
    file = folder / f"{file_name(folder, config.tasks)}.json"
    architecture = load_architecture(file)
    network = architecture.load(file.with_suffix(".safetensors"))
    return TrainLoop(config, folder, architecture, network, dataset=prepared.images, held_out=prepared.held_out)


def _result(file: Path, loop: TrainLoop, test: ImageSet) -> TrainResult:
    """Evaluate the best weights, which replace the last average; called in all processes."""
    loop.accelerator.wait_for_everyone()  # the first process has written them
    best, weights, data = loop.average.network, file.with_suffix(".safetensors"), loop.config.data
    load_weights(best, load_tensors(weights), weights)
    fit = applied_fit(data.fit, data.folder)
    (best_so_far,) = broadcast_object_list([loop.best])  # which the first process alone knows
    return TrainResult(
        folder=loop.folder,
        architecture=load_architecture(file),
        initial=best_so_far.initial,
        best=best_so_far.scores,
        best_step=best_so_far.step,
        steps=loop.done,
        test=evaluate_network(best, test, size=data.size, fit=fit, reading=loop.reading),
    )
