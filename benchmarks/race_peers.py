"""The peers of race.py: random search, a linear surrogate, Optuna's TPE and NSGA-II, and pymoo's genetic algorithm.

A peer gets a candidate's mean loss on a fixed set of chunks, drawn once per run, so that its candidates are compared on
the same images; a repeated candidate needs no evaluation. Whether a candidate fits a budget is free to compute, and the
peers that support constraints get the amount by which it does not.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING
from warnings import catch_warnings, simplefilter

import numpy as np

from benchmarks.race_world import Estimates, Floats, Meter, Rows, World
from fbnetv5.costs.budgets import BUDGET_WINDOW
from fbnetv5.spaces.space import Choices

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

POPULATION = 20
ENDED = object()
TRIES = 10
"""Maximum number of suggestions per affordable candidate; a peer that reaches it suggests nothing new."""


class Fixed:
    """Evaluates a peer's candidates: mean losses on the same chunks for all."""

    def __init__(self, world: World, limit: int, chunks: int, rng: np.random.Generator) -> None:
        self.meter = Meter(world, limit)
        self.chunks: Rows = rng.permutation(world.chunks)[:chunks]
        self.estimates = Estimates(world)
        self.tries = TRIES * limit // chunks

    def __call__(self, row: int) -> Floats:
        """[T]: a candidate's losses."""
        if not np.isfinite(self.estimates.losses[row]).all():
            self.estimates.losses[row] = self.meter.mean(row, self.chunks)
        losses: Floats = self.estimates.losses[row]
        return losses

    def suggestions(self) -> Iterator[None]:
        """Yield once for every candidate that may be suggested, while evaluations remain."""
        while self.meter.left >= len(self.chunks) and self.tries > 0:
            self.tries -= 1
            yield


def excess(world: World, row: int) -> Floats:
    """[T]: distance of a candidate's cost from the budget's window, as a share of the budget; 0 or less inside it."""
    share = world.macs[row] / world.budgets
    outside: Floats = np.maximum(share - BUDGET_WINDOW[1], BUDGET_WINDOW[0] - share)
    return outside


def random_search(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Candidates that fit at least one task's budget; one run serves all tasks."""
    rng = np.random.default_rng([seed, 1])
    view = Fixed(world, limit, chunks, rng)
    useful = np.nonzero(world.fits.any(axis=1))[0]
    for row, _ in zip(rng.permutation(useful).tolist(), view.suggestions(), strict=False):
        view(row)
    return view.estimates.best()


def linear_surrogate(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Half of the evaluations on random candidates; least squares on their variables then proposes the others.

    One run serves all tasks, which propose in turn the best predicted candidate that fits their budget. The norm of the
    coefficients is the smallest where there are fewer candidates than variables.
    """
    view = Fixed(world, limit, chunks, np.random.default_rng([seed, 5]))
    useful = np.random.default_rng([seed, 6]).permutation(np.nonzero(world.fits.any(axis=1))[0])
    first = useful[: max(1, limit // chunks // 2)]
    losses = np.stack([view(int(row)) for row in first])
    features = np.column_stack([world.choices(np.arange(len(world.truth))), np.ones(len(world.truth))])
    predicted = features @ np.linalg.lstsq(features[first], losses, rcond=None)[0]
    orders = [
        iter(useful[world.fits[useful, task]][predicted[useful[world.fits[useful, task]], task].argsort()])
        for task in range(world.tasks)
    ]
    for task, _ in zip(cycle(range(world.tasks)), view.suggestions(), strict=False):
        if (row := next(orders[task], None)) is not None:
            view(int(row))
    return view.estimates.best()


def tpe(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Optuna's tree-structured Parzen estimator, a run per task."""
    from optuna.samplers import TPESampler

    networks = []
    for task in range(world.tasks):
        view = Fixed(world, limit // world.tasks, chunks, np.random.default_rng([seed, 2, task]))
        sampler = quietly(partial(TPESampler, seed=seed * world.tasks + task, constraints_func=_constraints))
        run_optuna(world, view, sampler, [task])
        networks.append(view.estimates.best()[task])
    return np.array(networks)


def nsga2(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """Optuna's NSGA-II on the losses of all tasks; one run serves all. A candidate has to fit one of the budgets."""
    from optuna.samplers import NSGAIISampler

    view = Fixed(world, limit, chunks, np.random.default_rng([seed, 3]))
    sampler = quietly(partial(NSGAIISampler, seed=seed, population_size=POPULATION, constraints_func=_constraints))
    run_optuna(world, view, sampler, list(range(world.tasks)))
    return view.estimates.best()


def quietly(make: Callable[[], "BaseSampler"]) -> "BaseSampler":
    """Make a sampler without warnings on ``constraints_func``: new in Optuna 4, deprecated in 5, removed in 7."""
    with catch_warnings():
        simplefilter("ignore")
        return make()


def run_optuna(world: World, view: Fixed, sampler: "BaseSampler", tasks: list[int]) -> None:
    """Ask and tell until the evaluations are spent; candidates that fit no budget of ``tasks`` are not evaluated."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(tasks))
    for _ in view.suggestions():
        trial = study.ask()
        bits = [trial.suggest_categorical(f"variable{variable}", (0, 1)) for variable in range(world.variables)]
        row = int(world.rows(np.array([bits]))[0])
        outside = float(excess(world, row)[tasks].min())
        trial.set_user_attr("outside", outside)
        study.tell(trial, [0.0] * len(tasks) if outside > 0 else view(row)[tasks].tolist())


def _constraints(trial: "FrozenTrial") -> Sequence[float]:
    return (trial.user_attrs["outside"],)


def genetic(world: World, limit: int, seed: int, *, chunks: int) -> Rows:
    """The genetic algorithm of pymoo on bit strings, a run per task."""
    networks = []
    for task in range(world.tasks):
        view = Fixed(world, limit // world.tasks, chunks, np.random.default_rng([seed, 4, task]))
        run_genetic(world, view, task, seed * world.tasks + task)
        networks.append(view.estimates.best()[task])
    return np.array(networks)


def run_genetic(world: World, view: Fixed, task: int, seed: int) -> None:
    """Generations until the evaluations are spent."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling
    from pymoo.problems.static import StaticProblem

    problem = Problem(n_var=world.variables, n_obj=1, n_ieq_constr=1, xl=0, xu=1, vtype=bool)
    algorithm = GA(
        pop_size=POPULATION,
        sampling=BinaryRandomSampling(),
        crossover=TwoPointCrossover(),
        mutation=BitflipMutation(),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
    suggestions = view.suggestions()
    while True:
        generation = algorithm.ask()
        if generation is None or len(generation) == 0:
            return
        bits: Choices = np.array(generation.get("X")).astype(np.int64)
        losses, outside = np.zeros((len(bits), 1)), np.zeros((len(bits), 1))
        for index, row in enumerate(world.rows(bits).tolist()):
            if next(suggestions, ENDED) is ENDED:
                return
            outside[index] = excess(world, row)[task]
            if outside[index] <= 0:
                losses[index] = view(row)[task]
        algorithm.evaluator.eval(StaticProblem(problem, F=losses, G=outside), generation)
        algorithm.tell(infills=generation)
