"""Delta_m: the mean relative gain of a network of several tasks over networks of one task each.

    Delta_m = 100 / T * sum_t (-1)^l_t (M_t - B_t) / B_t

M_t is the metric of task t of the network, B_t that of the network of this task alone, and l_t is 1 where lower values
are better. It is a percentage; negative values are a loss. The formula is that of Maninis et al. ("Attentive
Single-Tasking of Multiple Tasks", arXiv 1904.08918), which BMTAS (arXiv 2008.10292, section 4) reports.

Shape legend: T tasks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.evaluate import Evaluation, evaluate_file
from fbnetv5.runs.config import Run
from fbnetv5.tasks.task import MetricInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The network of one task alone that a network of several tasks is compared with."""

    file: Path
    """Its architecture file."""
    value: float
    """Its metric on the same test images."""
    gain_percent: float
    """Relative gain of the compared network over it."""

    def to_json(self) -> dict[str, Any]:
        return {"file": str(self.file), "value": self.value, "gain_percent": self.gain_percent}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A network of several tasks beside its baselines."""

    baselines: dict[str, Baseline]
    """By task."""
    delta_m_percent: float

    def to_json(self) -> dict[str, Any]:
        baselines = {task: baseline.to_json() for task, baseline in self.baselines.items()}
        return {"baselines": baselines, "delta_m_percent": self.delta_m_percent}


def gain_percent(value: float, baseline: float, metric: MetricInfo) -> float:
    """The relative gain over the baseline in percent; positive where the value is better.

    Raises:
        UserError: the baseline is 0.
    """
    if baseline == 0:
        raise UserError(f"the baseline's {metric.name} is 0, and there is no gain relative to 0")
    return -100 * metric.drop(baseline, value) / baseline


def delta_m(values: Mapping[str, float], baselines: Mapping[str, float], metrics: Mapping[str, MetricInfo]) -> float:
    """Delta_m in percent: the mean over the tasks of ``gain_percent``.

    Args:
        values: by task, the metric of the network.
        baselines: by task, the metric of the network of this task alone.
        metrics: by task, name and direction of the metric.

    Raises:
        UserError: a baseline is 0.
    """
    gains = [gain_percent(value, baselines[task], metrics[task]) for task, value in values.items()]
    return sum(gains) / len(gains)


def compare(files: Mapping[str, Path], evaluations: Mapping[str, Evaluation], data: Path | None) -> Comparison:
    """Evaluate the baselines of an evaluated network on the same test images of the same size.

    Args:
        files: by task, the architecture file of the baseline.
        evaluations: of the compared network by task.
        data: folder of the images; None for the demo scenes.

    Raises:
        UserError: the weights of a baseline are missing or damaged, or its metric is 0.
    """
    baselines = {}
    for task, evaluation in evaluations.items():
        value = evaluate_file(files[task], task=task, weights=None, data=data, size=evaluation.size)[task].value
        try:
            gain = gain_percent(evaluation.value, value, evaluation.metric)
        except UserError as error:
            raise UserError(f"--baseline {files[task]}: {error}. Train it longer") from None
        baselines[task] = Baseline(file=files[task], value=value, gain_percent=gain)
    return Comparison(
        baselines=baselines,
        delta_m_percent=delta_m(
            {task: evaluation.value for task, evaluation in evaluations.items()},
            {task: baseline.value for task, baseline in baselines.items()},
            {task: evaluation.metric for task, evaluation in evaluations.items()},
        ),
    )


def baseline_files(paths: Iterable[Path], architecture: Architecture, tasks: Sequence[str]) -> dict[str, Path]:
    """By task, the architecture file of its only baseline.

    Args:
        paths: architecture files of networks of one task, or run folders, whose other tasks are ignored.
        architecture: of the network that is compared with them.
        tasks: of that network, which need a baseline each.

    Raises:
        UserError: a task has no baseline or two, or a baseline has several tasks, another task or other classes.
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
    return files


def _files_in(path: Path, tasks: Sequence[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [path / f"{task}.json" for task in Run.load(path).tasks if task in tasks]


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
