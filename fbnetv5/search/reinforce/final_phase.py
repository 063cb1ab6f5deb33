"""The final phase of a search: run the panel, fit it, search under the fit, and score finalists.

All results are a function of the frozen weights, the policies and the seed, so a run killed in this phase repeats it
with the same result. Processes share the passes.

Shape legend: T tasks, S variables.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from export.progress import Progress
from fbnetv5.costs.constraints import Constraints
from fbnetv5.data.colours import change_colours
from fbnetv5.data.loading import even_groups, evenly_spaced, images_per_batch, read_group
from fbnetv5.data.splits import Splits
from fbnetv5.networks.supernet import Supernet
from fbnetv5.runs.threads import map_in_threads
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.controller import Controller, draw, uniform_controller
from fbnetv5.search.reinforce.finalists import best_finalist, find_finalists, policy_near_budgets, pool_in_window
from fbnetv5.search.reinforce.loss_model import LossModel
from fbnetv5.search.reinforce.panel import (
    BATCH,
    BATCHES,
    CHECK_BATCHES,
    MIN_DRAWS_PER_BATCH,
    FitQuality,
    Observations,
    Panel,
    fit_losses,
    measure_fit,
)
from fbnetv5.search.scoring import Finalist, FinalistScorer, Floats, batch_losses
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks.task import Task

R = TypeVar("R")

MIN_JOBS = 32
"""Parts of a panel that processes and threads share; each reads the images of its batch."""


class FinishedLoop(Protocol):
    """A loop whose weights are final: that of a search, or of a later task."""

    @property
    def config(self) -> SearchConfig:
        """Budgets, seed, and the settings of the panel and the finalists."""

    @property
    def splits(self) -> Splits:
        """The images."""

    @property
    def supernet(self) -> Supernet:
        """The weights, with a head per task of the configuration."""

    @property
    def accelerator(self) -> Accelerator:
        """The device, and the processes that share the passes."""

    @property
    def constraints(self) -> Mapping[str, Constraints]:
        """Task -> its budgets with the tables of their costs."""

    @property
    def controller(self) -> Controller:
        """The policies of the tasks, which architectures are drawn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """A task's result of a search."""

    fit_quality: FitQuality
    """How well the panel's fit ranks networks that it was not fitted to."""
    finalists: list[Finalist]

    @property
    def best(self) -> Finalist:
        """The finalist of the lowest expected loss."""
        return best_finalist(self.finalists)


def find_networks(loop: FinishedLoop, panel: Panel, progress: Progress) -> dict[str, TaskResult]:
    """Every task's finalists under the loop's final weights and its budgets.

    Args:
        loop: after its last step.
        panel: the losses of architectures under these weights.
        progress: called after every scored architecture.

    Raises:
        UserError: no network of a task has costs in the window of its budgets.
    """
    models, qualities = fit_panel(loop, panel)
    finalists = score_finalists(loop, models, qualities, progress)
    return {name: TaskResult(fit_quality=qualities[name], finalists=finalists[name]) for name in loop.config.tasks}


def observe(loop: FinishedLoop, progress: Progress) -> Panel:
    """Run the panel's architectures: the draws on one batch each, and those that check the fit on several.

    Each group of ``tasks_by_images`` has architectures of its own and runs alone; the other tasks' losses are nan.
    """
    config = loop.config
    images = loop.splits.policies
    size = images_per_batch(images, BATCH)
    count = min(-(-BATCHES * BATCH // size), config.panel_draws // MIN_DRAWS_PER_BATCH)
    batches = even_groups(images, batch=size, count=count)
    of_checks = evenly_spaced(len(batches), CHECK_BATCHES)
    rng = np.random.default_rng([config.seed, config.total_steps])
    drawn, checks = [], []
    for group, names in enumerate(tasks_by_images(loop.supernet.tasks)):
        fitted, checking = draw_panel(loop, names, rng)
        first = group * len(batches)
        drawn.append((fitted, first + np.arange(len(fitted)) % len(batches)))
        checks.append((np.repeat(checking, len(of_checks), axis=0), first + np.tile(of_checks, len(checking))))
    choices, numbers = (np.concatenate(arrays) for arrays in zip(*drawn, *checks, strict=True))
    losses = run_panel(loop, choices, numbers, batches, progress)
    observations = Observations(choices=choices, batches=numbers, losses=losses)
    end = sum(len(fitted) for fitted, _ in drawn)
    return Panel(drawn=observations.part(0, end), checks=observations.part(end, len(choices)))


def tasks_by_images(tasks: Mapping[str, Task]) -> list[tuple[str, ...]]:
    """The tasks that the panel shows the images as they are, then those that it shows them in other colours."""
    groups = [tuple(name for name, task in tasks.items() if bool(task.panel_colours) == own) for own in (False, True)]
    return [names for names in groups if names]


def draw_panel(loop: FinishedLoop, names: Collection[str], rng: np.random.Generator) -> tuple[Choices, Choices]:
    """Architectures to fit a model to, half of them from the policies, and random ones to check the fit.

    The first are near the budgets of these tasks, where the best networks are looked for. The others are near the
    budgets of all tasks: networks of one budget differ less, beside the same noise, so an order of these alone would
    tell less about the fit.
    """
    config = loop.config
    uniform = uniform_controller(loop.supernet.space, len(config.tasks))
    of_all = {task: loop.constraints[name] for task, name in enumerate(config.tasks)}
    own = {task: constraints for task, constraints in of_all.items() if config.tasks[task] in names}
    half = config.panel_draws // 2
    likely = draw_near_budgets(loop.controller, own, half, rng)
    random = draw_near_budgets(uniform, own, config.panel_draws - half, rng)
    return np.concatenate([likely, random]), draw_near_budgets(uniform, of_all, config.panel_checks, rng)


def run_panel(
    loop: FinishedLoop,
    choices: Choices,
    numbers: NDArray[np.int64],
    batches: Sequence[Sequence[int]],
    progress: Progress,
) -> Floats:
    """[N, T]: the losses of architectures [N, S], each on the batch of its number.

    Processes and threads share the batches, and where there are few batches also the architectures of each. The images
    of a batch have the same colours in all of them.

    Args:
        loop: the weights and the images.
        choices: [N, S].
        numbers: [N], those of the batch and of the group of ``tasks_by_images``: batch + group * number of batches.
        batches: the indices of each batch's images.
        progress: called after every batch, or part of one.
    """
    config, of_thread, reading = loop.config, threading.local(), threading.Lock()
    groups = tasks_by_images(loop.supernet.tasks)
    parts = -(-MIN_JOBS // len(batches))
    split = [np.array_split(np.flatnonzero(numbers == number), parts) for number in np.unique(numbers)]
    jobs = [rows for of_batch in split for rows in of_batch if len(rows)]

    def run(job: int) -> Floats:
        if not hasattr(of_thread, "supernet"):
            of_thread.supernet = loop.supernet.copy()
        number = int(numbers[jobs[job][0]])
        names, indices = groups[number // len(batches)], batches[number % len(batches)]
        with reading:
            batch = read_group(loop.splits.policies, indices).to(loop.accelerator.device)
        if loop.supernet.tasks[names[0]].panel_colours:
            rng = np.random.default_rng([config.seed, config.total_steps, number])
            batch = replace(batch, images=change_colours(batch.images, rng))
        return batch_losses(of_thread.supernet, batch, choices[jobs[job]], loop.accelerator, names)

    losses = np.empty((len(choices), len(config.tasks)))
    for rows, of_rows in zip(jobs, _distribute(loop, run, len(jobs), "running the panel", progress), strict=True):
        losses[rows] = of_rows
    return losses


def fit_panel(loop: FinishedLoop, panel: Panel) -> tuple[dict[str, LossModel], dict[str, FitQuality]]:
    """Per task the model of all observations, and how well a model of the draws alone ranks the other networks."""
    space, observations = loop.supernet.space, panel.drawn.joined(panel.checks)
    models, qualities = {}, {}
    for number, (name, task) in enumerate(loop.supernet.tasks.items()):
        models[name] = fit_losses(space, task.paths, observations, number)
        qualities[name] = measure_fit(fit_losses(space, task.paths, panel.drawn, number), panel.checks, number)
    return models, qualities


def search_models(
    loop: FinishedLoop, models: Mapping[str, LossModel], qualities: Mapping[str, FitQuality]
) -> dict[str, list[Choices]]:
    """Every task's finalists, the best by the posterior's mean first; one of the pool where losses show no effects.

    Raises:
        UserError: no network of a task has costs in the window of its budgets.
    """
    config, networks = loop.config, {}
    for task, name in enumerate(config.tasks):
        constraints, rng = loop.constraints[name], np.random.default_rng([config.seed, config.total_steps, task])
        policy = policy_near_budgets(loop.controller, task, constraints, rng)
        pool = pool_in_window(name, policy, constraints, rng)
        if qualities[name].has_effects:
            networks[name] = find_finalists(models[name], pool, constraints, config.finalists, rng)
        else:
            networks[name] = [pool[rng.integers(len(pool))]]
    return networks


def score_finalists(
    loop: FinishedLoop, models: Mapping[str, LossModel], qualities: Mapping[str, FitQuality], progress: Progress
) -> dict[str, list[Finalist]]:
    """Every task's finalists with their losses on the same images."""
    config, constraints = loop.config, loop.constraints
    by_task = search_models(loop, models, qualities)
    jobs = [(name, choices) for name, networks in by_task.items() for choices in networks]
    scorer = FinalistScorer(loop.supernet, loop.splits, images=config.score_images, device=loop.accelerator.device)

    def score(index: int) -> Finalist:
        name, choices = jobs[index]
        return scorer(name, choices, constraints[name])

    finalists = _distribute(loop, score, len(jobs), "scoring finalists", progress)
    return {
        name: with_expected_losses(
            models[name],
            [finalist for (task, _), finalist in zip(jobs, finalists, strict=True) if task == name],
        )
        for name in config.tasks
    }


def with_expected_losses(model: LossModel, finalists: Sequence[Finalist]) -> list[Finalist]:
    """A task's finalists with the losses that the panel's model predicts, at the level of the measured ones.

    How finalists differ in their measured losses does not count: that belongs to these weights more than to the
    networks, and by other weights a choice that considered it was not better (docs/results.md).
    """
    predicted = model.table(np.array([finalist.choices for finalist in finalists]))
    level = float(np.mean([finalist.loss for finalist in finalists]) - predicted.mean())
    return [
        replace(finalist, expected_loss=float(loss) + level)
        for finalist, loss in zip(finalists, predicted, strict=True)
    ]


def draw_near_budgets(
    controller: Controller, constraints: Mapping[int, Constraints], count: int, rng: np.random.Generator
) -> Choices:
    """[count, S]: drawn in turn from the policies of the tasks with these numbers, after ``policy_near_budgets``."""
    policies = [policy_near_budgets(controller, task, own, rng) for task, own in constraints.items()]
    return np.concatenate([draw(policies[number % len(policies)], 1, rng) for number in range(count)])


def _distribute(loop: FinishedLoop, work: Callable[[int], R], count: int, what: str, progress: Progress) -> list[R]:
    """The results of ``work`` on 0 to ``count`` - 1, in order; each call runs in a thread of one of the processes."""
    rank, world = loop.accelerator.process_index, loop.accelerator.num_processes
    own, own_results = range(rank, count, world), []
    for index, result in zip(own, map_in_threads(work, own, loop.accelerator.device), strict=True):
        own_results.append((index, result))
        progress(what, min(index + world, count), count)
    all_results: list[tuple[int, R]] = gather_object(own_results)
    return [result for _, result in sorted(all_results, key=lambda pair: pair[0])]
