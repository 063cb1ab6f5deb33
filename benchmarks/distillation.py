"""Does a teacher help? Small networks trained on the demo scenes with and without one, in pairs and at equal steps.

For every task the teacher is FBNetV3-A in FBNetV3's space at full width, trained longer. The student is the smallest
network of that space at a quarter of the width. A seed determines the student's initial weights, the images of every
step and their augmentation: the arms of one seed differ in the teacher alone (common random numbers).

- ``labels``: without a teacher, the reference.
- ``distilled``: with the teacher, as ``fbnetv5 train --teacher`` does.
- ``shuffled``: a control. The same teacher sees the images of the batch in reverse order: its outputs have the same
  distribution, and know nothing of the image.

The endpoints are the task's metric and the mean loss for the labels of the averaged weights after the last step, on
test scenes of which no network has seen a product or a photograph. Nothing is chosen by them.

Expected: ``distilled`` is better than ``labels``, and ``shuffled`` is not.

    python -m benchmarks.distillation --output runs/distillation --processes 2

Finished trainings are not repeated, and an interrupted one continues. Writes ``report.json`` in the output folder and
ends in one JSON line.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import stats
from benchmarks.experiment import Trial, begin_experiment, in_turns, plain
from benchmarks.from_scratch import interval
from export.errors import UserError
from export.files import write_json
from fbnetv5.architecture import Architecture, make_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.loading import in_order
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.sample import ImageSet
from fbnetv5.data.scenes import CLASSES
from fbnetv5.evaluate import BATCH
from fbnetv5.networks.backbone import Network
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.runs.config import NAME as CONFIG
from fbnetv5.spaces.fbnetv3 import FBNETV3
from fbnetv5.spaces.space import Choices
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import task_types
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.distillation import DistillationTeacher
from fbnetv5.training.run import Prepared, open_loop, prepare, start_training

LABELS, DISTILLED, SHUFFLED = "labels", "distilled", "shuffled"
ARMS = (LABELS, DISTILLED, SHUFFLED)
TASKS = ("cls", "det", "seg", "depth")
TEACHER = "teacher"
TEACHER_SEED = 1000
HELD_OUT = 64
"""Scenes that a training evaluates at its start and end; no figure of the report depends on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that determines a result besides the task, the arm and the seed."""

    size: int
    """Height and width of the images."""
    steps: int
    teacher_steps: int
    batch: int
    scenes: int
    """Scenes to learn from."""
    test: int
    width: float
    """Of the students."""
    share: float
    """``distillation`` of the recipe."""
    temperature: float

    def train_config(self, task: str, *, seed: int, steps: int, **fields: Any) -> TrainConfig:
        """The task's own recipe, with the fields of an arm."""
        return TrainConfig(
            task_names=(task,),
            init="scratch",
            data=DataConfig(size=(self.size, self.size), scenes=(self.scenes, HELD_OUT, self.test)),
            seed=seed,
            steps=steps,
            batch=self.batch,
            warmup_steps=min(100, steps // 5),
            held_out=HELD_OUT,
            evaluate_every=steps,
            **{**task_types()[task].training, **fields},
        )

    def teacher(self, task: str) -> Architecture:
        """FBNetV3-A with ordinary padding and a task's head."""
        space = StageSpace()
        return self._architecture(space, task, space.choices_of(FBNETV3["a"].with_ordinary_padding()))

    def student(self, task: str) -> Architecture:
        """The network whose every setting is the smallest of the space."""
        space = StageSpace(width=self.width)
        return self._architecture(space, task, np.zeros(len(space.variables), dtype=np.int64))

    def _architecture(self, space: StageSpace, task: str, choices: Choices) -> Architecture:
        return make_architecture(space, {task: choices}, CLASSES, (self.size, self.size), provenance={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Trains and evaluates the network of a trial; the folder of a student is then removed."""

    folder: Path
    settings: Settings

    def __call__(self, trial: Trial) -> dict[str, Any]:
        arm, folder = trial.inputs["arm"], self.folder / "trainings" / trial.arm / trial.unit
        architecture, config = self.training(trial.arm, arm, trial.inputs["seed"])
        begin = time.perf_counter()
        average, test = train(folder, architecture, config, shuffled=arm == SHUFFLED)
        seconds = time.perf_counter() - begin
        loss, metric = measure(average, test)
        if arm == TEACHER:
            save_tensors(folder / f"{trial.arm}.safetensors", average.state_dict())
        else:
            shutil.rmtree(folder)
        cost = architecture.cost
        return {"metric": metric, "loss": loss, "macs": cost.macs, "params": cost.params, "seconds": round(seconds, 1)}

    def training(self, task: str, arm: str, seed: int) -> tuple[Architecture, TrainConfig]:
        """The network of a trial and the configuration of its training."""
        settings, fields = self.settings, {}
        if arm == TEACHER:
            config = settings.train_config(task, seed=seed, steps=settings.teacher_steps)
            return settings.teacher(task), config
        if arm != LABELS:
            file = self.folder / "trainings" / task / TEACHER / f"{task}.json"
            fields = {"teacher": str(file), "distillation": settings.share, "temperature": settings.temperature}
        return settings.student(task), settings.train_config(task, seed=seed, steps=settings.steps, **fields)


def train(folder: Path, architecture: Architecture, config: TrainConfig, *, shuffled: bool) -> tuple[Network, ImageSet]:
    """Run a training, or resume it.

    Args:
        folder: of the training.
        architecture: of the network.
        config: of the training.
        shuffled: whether the teacher sees the images of a batch in reverse order.

    Returns:
        The moving average of the weights after the last step, and the test images.
    """
    if not (folder / CONFIG).exists():
        shutil.rmtree(folder, ignore_errors=True)
        file = folder.with_suffix(".json")
        architecture.save(file)
        start_training(config, file, folder)
        file.unlink()
    prepared = replace(opened(config), config=config)
    loop = open_loop(folder, prepared)
    if shuffled:
        assert loop.objective.teacher is not None
        loop.objective.teacher = with_reversed_images(loop.objective.teacher)
    loop.run(lambda entry: None)
    return loop.average.network, prepared.test


def opened(config: TrainConfig) -> Prepared:
    """A configuration's images, opened once per process: scenes are kept after they are composed."""
    return _opened(config.data, config.task_names)


@cache
def _opened(data: DataConfig, tasks: tuple[str, ...]) -> Prepared:
    return prepare(TrainConfig(task_names=tasks, data=data, held_out=HELD_OUT))


def with_reversed_images(teacher: DistillationTeacher) -> DistillationTeacher:
    """A teacher whose outputs are those for the images of the batch in reverse order."""
    return replace(teacher, run=lambda images: teacher.run(images.flip(0)))


@torch.no_grad()
def measure(network: Network, images: ImageSet) -> tuple[float, float]:
    """(mean loss for the labels, the task's metric) of a network in eval mode."""
    task, total, metric = network.task, 0.0, network.task.new_metric()
    device = next(network.parameters()).device
    for batch in in_order(images, batch=BATCH):
        placed = batch.to(device)
        raw = network.raw(normalise(placed.images))[task.name]
        total += float(task.losses(raw, placed).double().sum())
        metric.update(task.deploy(raw), placed)
    return total / len(images), metric.compute()


def trial_of(task: str, arm: str, seed: int) -> Trial:
    """A student's trial, or a teacher's."""
    unit = TEACHER if arm == TEACHER else f"{arm}-{seed}"
    return Trial(arm=task, unit=unit, inputs={"arm": arm, "seed": seed})


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the teachers, then the students; return the report.

    Raises:
        UserError: there is one seed, or the folder was begun with other settings.
    """
    if len(set(arguments.seeds)) < 2:
        raise UserError("one pair has no interval: name two seeds at least")
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclass_fields(Settings)})
    experiment = begin_experiment(
        arguments.output,
        name="distillation",
        configuration=asdict(settings),
        data="demo scenes",
        threads=arguments.threads,
    )
    work = Work(folder=arguments.output.absolute(), settings=settings)
    teachers = [trial_of(task, TEACHER, TEACHER_SEED) for task in arguments.tasks]
    arms = [LABELS, *(arm for arm in arguments.arms if arm != LABELS)]
    students = [[trial_of(task, arm, seed) for seed in arguments.seeds for arm in arms] for task in arguments.tasks]
    results = experiment.run(teachers, work, processes=arguments.processes, report=print_trial)
    results |= experiment.run(in_turns(*students), work, processes=arguments.processes, report=print_trial)
    of_tasks = {task: summarise(task, arms, arguments.seeds, results) for task in arguments.tasks}
    return {"benchmark": "distillation", **asdict(settings), "seeds": arguments.seeds, "tasks": of_tasks}


def summarise(
    task: str, arms: Sequence[str], seeds: Sequence[int], results: Mapping[Trial, Mapping[str, Any]]
) -> dict[str, Any]:
    """The figures of a task: its teacher, every arm by seed, and the paired differences from the first arm."""

    def values(arm: str, figure: str) -> list[float]:
        return [results[trial_of(task, arm, seed)][figure] for seed in seeds]

    by_arm = {arm: {figure: values(arm, figure) for figure in ("metric", "loss", "seconds")} for arm in arms}
    metric = task_types()[task].metric
    return {
        "metric": asdict(metric),
        "teacher": results[trial_of(task, TEACHER, TEACHER_SEED)],
        "student": {figure: results[trial_of(task, LABELS, seeds[0])][figure] for figure in ("macs", "params")},
        "arms": by_arm,
        f"less_{LABELS}": {
            arm: {
                "metric": paired(by_arm[arm]["metric"], by_arm[LABELS]["metric"], lower=metric.lower_is_better),
                "loss": paired(by_arm[arm]["loss"], by_arm[LABELS]["loss"], lower=True),
            }
            for arm in arms[1:]
        },
    }


def paired(values: Sequence[float], references: Sequence[float], *, lower: bool) -> dict[str, Any]:
    """The mean difference of pairs with its interval, and in how many of them the value is better."""
    differences = np.subtract(values, references)
    better = differences < 0 if lower else differences > 0
    return {
        "mean": asdict(stats.mean(differences)),
        "p": stats.sign_flip_p(differences),
        "better": int(better.sum()),
        "pairs": len(differences),
    }


def print_trial(trial: Trial, result: Mapping[str, Any]) -> None:
    """Print a line for a finished training."""
    figures = f"metric {result['metric']:.4f} loss {result['loss']:.4f} in {result['seconds']:.0f} s"
    print(trial.arm, trial.unit, figures, flush=True)


def print_table(report: Mapping[str, Any]) -> None:
    """A line per task and arm."""
    for task, row in report["tasks"].items():
        name, teacher = row["metric"]["name"], row["teacher"]
        print(f"{task}: teacher {name} {teacher['metric']:.4f}, loss {teacher['loss']:.4f}")
        for arm, figures in row["arms"].items():
            means = f"{name} {np.mean(figures['metric']):.4f}, loss {np.mean(figures['loss']):.4f}"
            print(f"  {arm:<10} {means}, {np.mean(figures['seconds']):.0f} s")
        for arm, differences in row[f"less_{LABELS}"].items():
            for figure, pairs in differences.items():
                counts = f"better in {pairs['better']} of {pairs['pairs']} pairs, p {pairs['p']:.4f}"
                print(f"  {arm} - {LABELS}, {figure}: {interval(pairs['mean'])}, {counts}")


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for all trainings; resumed if it exists")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=sorted(task_types()))
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--steps", type=int, default=1500, help="of a student")
    parser.add_argument("--teacher-steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--scenes", type=int, default=8000, help="scenes to learn from")
    parser.add_argument("--test", type=int, default=4000, help="test scenes")
    parser.add_argument("--width", type=float, default=0.25, help="factor of the students' widths")
    parser.add_argument("--share", type=float, default=0.8, help="share of the teacher in the loss")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Train, print a table and one JSON line."""
    arguments = parse(line)
    report = plain(run(arguments))
    print_table(report)
    write_json(arguments.output / "report.json", report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
