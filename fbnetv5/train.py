"""One training of one derived network, from its arguments to its files: the work behind ``fbnetv5 train``.

The folder is a run's: ``config.json``, the architecture ``TASK.json`` with its best weights ``TASK.safetensors``,
``history.jsonl``, ``tensorboard/`` and ``checkpoint/``; export takes it. A killed training is resumed from its folder
alone and ends with the same files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, set_seed

from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.data.splits import Splits, without_policies
from fbnetv5.data.targets import class_names
from fbnetv5.evaluate import Evaluation, check_classes, check_labelled, evaluate_network
from fbnetv5.runs.checkpoint import load_tensors, load_weights, save_tensors
from fbnetv5.runs.folder import make_folder
from fbnetv5.runs.processes import in_first_process
from fbnetv5.tasks import needed_targets
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.initial import initial_network
from fbnetv5.training.loop import Report, TrainLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a finished training achieved."""

    folder: Path
    architecture: Architecture
    first: float
    """The task's metric of the initial weights on the held-out images."""
    best: float
    """Of the weights kept, on the same images."""
    best_step: int
    steps: int
    test: Evaluation
    """Of the weights kept, on the test images."""

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "task": self.architecture.task,
            "steps": self.steps,
            "held_out": {"initial": self.first, "best": self.best, "best_step": self.best_step},
            "test": self.test.to_json(),
        }


def start_training(config: TrainConfig, file: Path, folder: Path) -> Path:
    """Check everything that can be checked before anything is spent, then make the folder.

    Args:
        config: of the training.
        file: the architecture file.
        folder: to make.

    Returns:
        The folder, the first process's where there are several.

    Raises:
        UserError: something does not fit, or the folder exists already or cannot be written.
    """
    architecture, parts = load_architecture(file), config.data.open(needed_targets(config.tasks))
    check_classes(architecture, class_names(parts.weights.targets))
    images, held_out = without_policies(parts, config.held_out)
    for use, part in (("learn from", images), ("hold out", held_out), ("test on", parts.test)):
        check_labelled(architecture.make_task(), part, use)
    network = initial_network(architecture, config.init, file=file, seed=config.seed)

    def make() -> Path:
        make_folder(folder, otherwise="--output")
        architecture.save(folder / f"{config.task}.json")
        save_tensors(folder / f"{config.task}.safetensors", network.state_dict())
        config.save(folder)
        return folder

    return in_first_process(make)


def run_training(folder: Path, report: Report, say: Callable[[str], None]) -> Result:
    """Run or resume the training of a folder to its end, then measure its weights on the test images.

    Raises:
        UserError: bad input or a damaged checkpoint.
        CheckFailed: a loss is not finite.
    """
    config = TrainConfig.load(folder)
    set_seed(config.seed)
    architecture = load_architecture(folder / f"{config.task}.json")
    parts = config.data.open(needed_targets(config.tasks))
    images, held_out = without_policies(parts, config.held_out)
    weights = folder / f"{config.task}.safetensors"
    network = architecture.build()
    load_weights(network, load_tensors(weights), weights)
    loop = TrainLoop(config, folder, architecture, network, dataset=images, held_out=held_out)
    loop.run(report)
    result = None
    if loop.accelerator.is_main_process:
        say("measuring the best weights on the test images")
        result = _result(folder, loop, parts)
    (shared,) = broadcast_object_list([result])
    assert isinstance(shared, Result)
    return shared


def _result(folder: Path, loop: TrainLoop, parts: Splits) -> Result:
    """Measure the best weights, which take the place of the last average."""
    task, best = loop.config.task, loop.average.network
    weights = folder / f"{task}.safetensors"
    load_weights(best, load_tensors(weights), weights)
    return Result(
        folder=folder,
        architecture=load_architecture(folder / f"{task}.json"),
        first=loop.best if loop.first is None else loop.first,
        best=loop.best,
        best_step=loop.best_step,
        steps=loop.done,
        test=evaluate_network(best, parts.test, size=loop.config.data.size, num_workers=loop.readers),
    )
