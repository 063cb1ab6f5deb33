"""Are networks that were searched for a latency better than published networks that are as fast?

The network that each search found for one task, and FBNetV3-A and EfficientNet-Lite0 with the same head, are trained
from scratch on the demo scenes. Each published network is widened or narrowed until it is as fast: of the widths below,
the first that takes at least as long as the slowest found network, in milliseconds of ONNX Runtime at the deploy
resolution, all measured together by the protocol of latency tables; less by 1 % counts as equal. So no published
network has noticeably less time.

Every search is one training seed: the found network, and both published ones with the same scenes in the same order and
the same seed of their initial weights, by the conditions of ``from_scratch.py``. The endpoint is the mean loss on 4000
test scenes of that seed; the task's metric on 1000 of them is beside it.

Expected: for each seed the found network has a lower loss than both published ones.

    fbnetv5 derive runs/s0 --latency 6ms --device cpu --output runs/fast0
    python -m benchmarks.equal_latency runs/fast0 runs/fast1 runs/fast2 --task det --output runs/equal-latency

Timing needs idle cores and takes some four minutes, a training some three of one core. Finished trainings are not
repeated. Prints a table and ends in one JSON line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import from_scratch
from benchmarks.experiment import Trial, begin_experiment, hash_images, machine, plain
from benchmarks.from_scratch import add_training_options, compose_scenes, print_trial, training_config
from benchmarks.stored_scenes import StoredScenes
from export.errors import UserError
from export.files import read_json_object, write_json
from fbnetv5.architecture import load_architecture
from fbnetv5.costs.counting import count
from fbnetv5.data.resolution import Resolution
from fbnetv5.data.scenes import CLASSES
from fbnetv5.networks.backbone import task_network
from fbnetv5.spaces import read_space
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import default_tasks, make_tasks
from fbnetv5.training.config import TrainConfig
from latency.backends import open_backend
from latency.profile import Network, measure_networks
from latency.protocol import Timing

FOUND = "found"
PUBLISHED = ("fbnetv3-a", "efficientnet-lite0")
WIDTHS = tuple(round(0.5 + 0.05 * step, 2) for step in range(23))
"""Factors of a published network's widths: .5 to 1.6."""
EQUAL = 0.99
"""Share of a latency that counts as equal to it: repetitions differ by more."""
REPETITIONS = 16
SIZE = (64, 64)
"""Of the scenes, as in the searches' demo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network of one task."""

    name: str
    space: Space
    choices: tuple[int, ...]

    @property
    def array(self) -> Choices:
        """[S]."""
        return np.array(self.choices, dtype=np.int64)


def found_network(file: Path, task: str, number: int) -> tuple[Candidate, Resolution]:
    """The network of an architecture file, and its deploy resolution.

    Raises:
        UserError: the file is of another task or other classes.
    """
    architecture = load_architecture(file)
    if architecture.task != task or architecture.make_task().labels != make_tasks((task,), CLASSES)[task].labels:
        raise UserError(f"{file} is not a network for {task} on the demo scenes; name a run that was searched on them")
    name, choices = f"{FOUND} {number}", tuple(int(choice) for choice in architecture.choices_array)
    return Candidate(name=name, space=architecture.space, choices=choices), architecture.resolution


def published_network(encoder: str, width: float) -> Candidate:
    """A published encoder at a width."""
    space = BranchingSpace(encoder=encoder, width=width, copies=1)
    return Candidate(name=f"{encoder} x{width:g}", space=space, choices=(0,) * len(space.layers))


def timed_network(candidate: Candidate, task_name: str, resolution: Resolution) -> Network:
    """The candidate with its head, to be timed."""
    (task,) = make_tasks((task_name,), CLASSES).values()
    build, shapes = partial(task_network, task, candidate.space, candidate.array), ((3, *resolution),)
    return Network(
        key=candidate.name,
        build=build,
        input_shapes=shapes,
        output_names=task.output_names,
        task=task_name,
        blocks={},
        macs=count(build, shapes).macs,
    )


def time_all(candidates: Sequence[Candidate], task: str, resolution: Resolution, folder: Path) -> dict[str, Any]:
    """Name -> milliseconds and multiply-adds; measured once, and read from the folder afterwards.

    Raises:
        UserError: the folder has the times of other networks.
    """
    path = folder / "times.json"
    if not path.exists():
        networks = [timed_network(candidate, task, resolution) for candidate in candidates]
        backend, timing = open_backend("cpu", threads=1), Timing(repetitions=REPETITIONS)
        measured = measure_networks(networks, backend=backend, timing=timing)
        rows = {
            name: {"latency_ms": of.measurement.latency_ms_median, "cv": of.measurement.cv, "macs": of.macs}
            for name, of in measured.items()
        }
        about = {"resolution": resolution, "runtime": backend.fingerprint(), "timing": asdict(timing), **machine(1)}
        choices = {candidate.name: candidate.choices for candidate in candidates}
        write_json(path, {"rows": rows, "about": about, "choices": choices})
    document = read_json_object(path, what="times")
    if document["choices"] != plain({candidate.name: candidate.choices for candidate in candidates}):
        raise UserError(f"{path} has the times of other networks; name another folder")
    times: dict[str, Any] = document["rows"]
    return times


def as_fast(encoder: str, least_ms: float, times: Mapping[str, Any]) -> Candidate:
    """The narrowest of a published network's widths that takes at least ``least_ms``, or about as much.

    Raises:
        UserError: even the widest takes less.
    """
    for width in WIDTHS:
        candidate = published_network(encoder, width)
        if times[candidate.name]["latency_ms"] >= EQUAL * least_ms:
            return candidate
    raise UserError(f"{encoder} x{WIDTHS[-1]:g} takes less than {least_ms:.2f} ms; derive for a lower latency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Trains and evaluates the network of a trial under its seed."""

    config: TrainConfig
    scenes: Mapping[int, tuple[Path, Path]]
    """By seed, the folders of the scenes to train and to test on."""

    def __call__(self, trial: Trial) -> dict[str, Any]:
        space, seed = read_space(trial.inputs["space"]), trial.inputs["seed"]
        (scenes, test), config = self.scenes[seed], self.config.changed(seed=seed)
        return from_scratch.Training(space=space, config=config, scenes=scenes, test=test)(trial)


def train_all(arguments: argparse.Namespace, seeds: Sequence[Sequence[Candidate]]) -> list[list[dict[str, float]]]:
    """The results of the networks of every seed, in order."""
    with_seed = [argparse.Namespace(**vars(arguments) | {"seed": seed}) for seed in range(len(seeds))]
    scenes = {of_seed.seed: compose_scenes(of_seed, SIZE) for of_seed in with_seed}
    config = training_config(with_seed[0], SIZE)
    experiment = begin_experiment(
        arguments.output / arguments.task,
        name="equal_latency",
        configuration={"recipe": config.to_json()},
        data=hash_images(*(StoredScenes(folder) for folders in scenes.values() for folder in folders)),
        threads=1,
    )
    trials = [
        [
            Trial(
                arm=str(seed),
                unit=candidate.name.replace(" ", "-"),
                inputs={"space": candidate.space.to_json(), "choices": candidate.choices, "seed": seed},
            )
            for candidate in candidates
        ]
        for seed, candidates in enumerate(seeds)
    ]
    work = Training(config=config, scenes=scenes)
    flat = [trial for of_seed in trials for trial in of_seed]
    results = experiment.run(flat, work, processes=arguments.processes, report=print_trial)
    return [[results[trial] for trial in of_seed] for of_seed in trials]


def summarise(results: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Group -> the losses and metrics by seed."""
    groups = (FOUND, *PUBLISHED)
    return {
        group: {figure: [of_seed[number][figure] for of_seed in results] for figure in ("loss", "metric")}
        for number, group in enumerate(groups)
    }


def as_expected(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> bool:
    """Whether the found network has the lowest loss for every seed."""
    searched = groups[FOUND]["loss"]
    return all(
        min(others) > own for own, *others in zip(searched, *(groups[name]["loss"] for name in PUBLISHED), strict=True)
    )


def parse(line: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of searches or of fbnetv5 derive")
    parser.add_argument("--task", default="det", choices=default_tasks())
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings; resumed if it exists")
    add_training_options(parser)
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> None:
    """Time, train, print a table and one JSON line."""
    arguments = parse(line)
    task, folder = arguments.task, arguments.output / arguments.task
    opened = [found_network(run / f"{task}.json", task, number) for number, run in enumerate(arguments.runs)]
    searched, (resolution, *others) = [candidate for candidate, _ in opened], sorted({size for _, size in opened})
    if others:
        raise UserError(f"these runs have several resolutions: {[resolution, *others]}; name runs of one")
    scaled = [published_network(encoder, width) for encoder in PUBLISHED for width in WIDTHS]
    times = time_all([*searched, *scaled], task, resolution, folder)
    least_ms = max(times[candidate.name]["latency_ms"] for candidate in searched)
    published = [as_fast(encoder, least_ms, times) for encoder in PUBLISHED]
    groups = summarise(train_all(arguments, [[candidate, *published] for candidate in searched]))
    rows = {candidate.name: times[candidate.name] for candidate in [*searched, *published]}
    for name, row in rows.items():
        print(f"{name:<26} {row['macs'] / 1e6:6.1f}M multiply-adds, {row['latency_ms']:.2f} ms, cv {row['cv']:.1%}")
    for name, figures in groups.items():
        losses, metrics = (" ".join(f"{value:.4f}" for value in figures[figure]) for figure in ("loss", "metric"))
        print(f"{name:<20} loss {losses}, mean {np.mean(figures['loss']):.4f}; metric {metrics}")
    report = {"benchmark": "equal_latency", "task": task, "steps": arguments.steps, "as_expected": as_expected(groups)}
    report |= {"groups": groups, "networks": rows}
    write_json(folder / "report.json", plain(report))
    print(json.dumps(plain(report)))


if __name__ == "__main__":
    main()
