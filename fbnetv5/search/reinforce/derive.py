"""What follows a search's last step: run the panel, fit it, search its fit, and compare finalists.

Everything here is a function of the frozen weights, the policies and the seed, so a run killed in the middle does it
again with the same result. Processes share the passes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from accelerate.utils import gather_object

from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.loading import even_batches
from fbnetv5.search.reinforce.controller import Controller, draw
from fbnetv5.search.reinforce.finalists import Scored, best, finalists_for, near_budget
from fbnetv5.search.reinforce.loop import SearchLoop
from fbnetv5.search.reinforce.panel import BATCH, BATCHES, Check, LossModel, Observations, check_fit, fit_losses
from fbnetv5.search.reinforce.ridge import Floats
from fbnetv5.search.scoring import FinalistScorer, batch_losses
from fbnetv5.spaces.space import Choices

R = TypeVar("R")
Stage = Callable[[str, int, int], None]
"""Called with work that has no steps: (what, done, of how many)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What a task's search came to."""

    check: Check
    """How well the panel's fit orders networks that it has not seen."""
    finalists: list[Scored]

    @property
    def best(self) -> Scored:
        return best(self.finalists)


def derive(loop: SearchLoop, tables: Mapping[str, CostTable], stage: Stage) -> dict[str, Derived]:
    """Every task's finalists, by the weights that the loop has ended with.

    Raises:
        UserError: no network of a task costs what its budget asks for.
    """
    drawn, checks = observe(loop, tables, stage)
    models, fits = fit_panel(loop, drawn, checks)
    finalists = compare(loop, models, tables, stage)
    return {name: Derived(check=fits[name], finalists=finalists[name]) for name in loop.config.tasks}


def observe(loop: SearchLoop, tables: Mapping[str, CostTable], stage: Stage) -> tuple[Observations, Observations]:
    """The panel's losses: of the draws to fit, and of random architectures to hold the fit against.

    A draw, from a policy or at random, runs on one batch; each of the others runs on all batches.
    """
    config = loop.config
    batches = [
        batch.to(loop.accelerator.device) for batch in even_batches(loop.parts.policies, batch=BATCH, count=BATCHES)
    ]
    rng = np.random.default_rng([config.seed, config.total_steps])
    at_random = Controller(loop.supernet.space.choice_counts, len(config.tasks), lr=1.0)
    half = config.panel_draws // 2
    drawn = np.concatenate(
        [
            _draw(loop.controller, tables, config.budgets, half, rng),
            _draw(at_random, tables, config.budgets, config.panel_draws - half, rng),
        ]
    )
    checks = np.repeat(_draw(at_random, tables, config.budgets, config.panel_checks, rng), len(batches), axis=0)
    choices, numbers = np.concatenate([drawn, checks]), np.arange(len(drawn) + len(checks))
    numbers[len(drawn) :] -= len(drawn)
    numbers %= len(batches)

    def losses(index: int) -> Floats:
        return batch_losses(loop.supernet, batches[numbers[index]], choices[index])

    found = np.stack(_share(loop, losses, len(choices), "running the panel", stage))
    everything = Observations(choices=choices, batches=numbers, losses=found)
    return everything.part(0, len(drawn)), everything.part(len(drawn), len(choices))


def fit_panel(
    loop: SearchLoop, drawn: Observations, checks: Observations
) -> tuple[dict[str, LossModel], dict[str, Check]]:
    """Per task the model of all observations, and how well a model of the draws alone orders the other networks."""
    space, everything = loop.supernet.space, drawn.joined(checks)
    models, found = {}, {}
    for number, (name, task) in enumerate(loop.supernet.tasks.items()):
        models[name] = fit_losses(space, task.paths, everything, number)
        found[name] = check_fit(fit_losses(space, task.paths, drawn, number), checks, number)
    return models, found


def compare(
    loop: SearchLoop, models: Mapping[str, LossModel], tables: Mapping[str, CostTable], stage: Stage
) -> dict[str, list[Scored]]:
    """Every task's finalists with their losses on the same images."""
    config = loop.config
    jobs: list[tuple[str, Choices]] = []
    for task, (name, budget) in enumerate(config.budgets.items()):
        rng = np.random.default_rng([config.seed, config.total_steps, task])
        tilted = near_budget(loop.controller, task, tables[name], budget, rng)
        found = finalists_for(name, models[name], tilted, tables[name], budget, config.finalists, rng)
        jobs += [(name, choices) for choices in found]
    scorer = FinalistScorer(loop.supernet, loop.parts, images=config.score_images, device=loop.accelerator.device)

    def score(index: int) -> Scored:
        name, choices = jobs[index]
        return scorer(name, choices, tables[name])

    scored = _share(loop, score, len(jobs), "comparing finalists", stage)
    return {name: [one for (task, _), one in zip(jobs, scored, strict=True) if task == name] for name in config.tasks}


def _draw(
    controller: Controller,
    tables: Mapping[str, CostTable],
    budgets: Mapping[str, Budget],
    count: int,
    rng: np.random.Generator,
) -> Choices:
    """[count, S]: from every task's policy in turn, tilted so that its expected cost is near the task's budget."""
    tilted = [
        near_budget(controller, task, tables[name], budget, rng) for task, (name, budget) in enumerate(budgets.items())
    ]
    return np.concatenate([draw(tilted[number % len(tilted)], 1, rng) for number in range(count)])


def _share(loop: SearchLoop, work: Callable[[int], R], count: int, what: str, stage: Stage) -> list[R]:
    """The results of ``work`` on 0 to ``count`` - 1, in order, each done by one of the processes."""
    rank, world = loop.accelerator.process_index, loop.accelerator.num_processes
    mine: list[tuple[int, R]] = []
    for index in range(rank, count, world):
        mine.append((index, work(index)))
        stage(what, min(index + world, count), count)
    everyone: list[tuple[int, R]] = gather_object(mine)
    return [result for _, result in sorted(everyone, key=lambda pair: pair[0])]
