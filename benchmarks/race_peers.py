"""The peers of race.py: random search, Optuna's TPE and NSGA-II, and pymoo's genetic algorithm.

A peer sees a candidate's mean loss on a fixed set of chunks, drawn once a run, so that its candidates are compared on
the same images; a candidate met again costs nothing. Whether a candidate fits a budget is free to ask, and the peers
that know constraints are told by how much it does not.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING
from warnings import catch_warnings, simplefilter

import numpy as np

from benchmarks.race_world import Book, Floats, Meter, Rows, World
from fbnetv5.costs.budgets import WINDOW
from fbnetv5.spaces.space import Choices

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

POPULATION = 20
ENDED = object()
TRIES = 10
"""Candidates that a peer may suggest per candidate that it can afford; beyond, it suggests nothing new."""


class Fixed:
    """A peer's view: mean losses on the same chunks for all its candidates."""

    def __init__(self, world: World, limit: int, chunks: int, rng: np.random.Generator) -> None:
        self.meter = Meter(world, limit)
        self.chunks: Rows = rng.permutation(world.chunks)[:chunks]
        self.book = Book(world)
        self.tries = TRIES * limit // chunks

    def __call__(self, row: int) -> Floats:
        """[T]: a candidate's losses."""
        if not np.isfinite(self.book.estimates[row]).all():
            self.book.estimates[row] = self.meter.mean(row, self.chunks)
        losses: Floats = self.book.estimates[row]
        return losses

    def turns(self) -> Iterator[None]:
        """One for every candidate that may be suggested, while there are evaluations for it."""
        while self.meter.left >= len(self.chunks) and self.tries > 0:
            self.tries -= 1
            yield


def excess(world: World, row: int) -> Floats:
    """[T]: by how much of the budget a candidate's cost lies outside what it may be; 0 or less if it fits."""
    share = world.macs[row] / world.budgets
    outside: Floats = np.maximum(share - WINDOW[1], WINDOW[0] - share)
    return outside


def random_search(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Candidates that fit at least one task's budget; one run serves all tasks."""
    rng = np.random.default_rng([seed, 1])
    view = Fixed(world, limit, chunks, rng)
    useful = np.nonzero(world.fits.any(axis=1))[0]
    for row, _ in zip(rng.permutation(useful).tolist(), view.turns(), strict=False):
        view(row)
    return view.book.best()


def tpe(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Optuna's tree-structured Parzen estimator, a run per task."""
    from optuna.samplers import TPESampler

    answers = []
    for task in range(world.tasks):
        view = Fixed(world, limit // world.tasks, chunks, np.random.default_rng([seed, 2, task]))
        sampler = quietly(partial(TPESampler, seed=seed * world.tasks + task, constraints_func=_told))
        run_optuna(world, view, sampler, [task])
        answers.append(view.book.best()[task])
    return np.array(answers)


def nsga2(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Optuna's NSGA-II on the losses of all tasks; one run serves all. A candidate has to fit one of the budgets."""
    from optuna.samplers import NSGAIISampler

    view = Fixed(world, limit, chunks, np.random.default_rng([seed, 3]))
    sampler = quietly(partial(NSGAIISampler, seed=seed, population_size=POPULATION, constraints_func=_told))
    run_optuna(world, view, sampler, list(range(world.tasks)))
    return view.book.best()


def quietly(make: Callable[[], "BaseSampler"]) -> "BaseSampler":
    """Make a sampler without a warning: Optuna 4 calls ``constraints_func`` new, 5 calls it old, 7 will lack it."""
    with catch_warnings():
        simplefilter("ignore")
        return make()


def run_optuna(world: World, view: Fixed, sampler: "BaseSampler", tasks: list[int]) -> None:
    """Ask and tell until the evaluations are spent; what fits no budget of ``tasks`` is told without one."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(tasks))
    for _ in view.turns():
        trial = study.ask()
        bits = [trial.suggest_categorical(f"slot{slot}", (0, 1)) for slot in range(world.slots)]
        row = int(world.rows(np.array([bits]))[0])
        outside = float(excess(world, row)[tasks].min())
        trial.set_user_attr("outside", outside)
        study.tell(trial, [0.0] * len(tasks) if outside > 0 else view(row)[tasks].tolist())


def _told(trial: "FrozenTrial") -> Sequence[float]:
    return (trial.user_attrs["outside"],)


def genetic(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """The genetic algorithm of pymoo on bit strings, a run per task."""
    answers = []
    for task in range(world.tasks):
        view = Fixed(world, limit // world.tasks, chunks, np.random.default_rng([seed, 4, task]))
        run_genetic(world, view, task, seed * world.tasks + task)
        answers.append(view.book.best()[task])
    return np.array(answers)


def run_genetic(world: World, view: Fixed, task: int, seed: int) -> None:
    """Generations until the evaluations are spent."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling
    from pymoo.problems.static import StaticProblem

    problem = Problem(n_var=world.slots, n_obj=1, n_ieq_constr=1, xl=0, xu=1, vtype=bool)
    algorithm = GA(
        pop_size=POPULATION,
        sampling=BinaryRandomSampling(),
        crossover=TwoPointCrossover(),
        mutation=BitflipMutation(),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
    turns = view.turns()
    while True:
        generation = algorithm.ask()
        if generation is None or len(generation) == 0:
            return
        bits: Choices = np.array(generation.get("X")).astype(np.int64)
        losses, outside = np.zeros((len(bits), 1)), np.zeros((len(bits), 1))
        for place, row in enumerate(world.rows(bits).tolist()):
            if next(turns, ENDED) is ENDED:
                return
            outside[place] = excess(world, row)[task]
            if outside[place] <= 0:
                losses[place] = view(row)[task]
        algorithm.evaluator.eval(StaticProblem(problem, F=losses, G=outside), generation)
        algorithm.tell(infills=generation)
