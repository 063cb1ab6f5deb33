"""The peers of nars_race.py: random search, evolution, Optuna's TPE and BoTorch's Gaussian process.

A peer that proposes a pair outside the stored ones gets the nearest one that it has not trained, by the distance of
their vectors.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchmarks.nars_race import Order, World

BATCH = 8
POPULATION = 16
TOURNAMENT = 4


def nearest(vectors: NDArray[np.float32], wanted: NDArray[np.float32], taken: "Order") -> int:
    """The row of ``vectors`` [N, F] nearest to a vector [F] that is not taken."""
    distances = np.square(vectors - wanted).sum(axis=1)
    distances[taken] = np.inf
    return int(distances.argmin())


def random_search(world: "World", count: int, seed: int) -> "Order":
    """Rows in random order; the first ones are those that NARS starts with."""
    order: Order = np.random.default_rng([seed, 0]).permutation(len(world.choices))[:count].tolist()
    return order


def evolution(world: "World", count: int, seed: int) -> "Order":
    """Regularised evolution (arXiv 1802.01548): a mutation of the best of a few of the youngest."""
    generator = np.random.default_rng([seed, 0])
    order: Order = generator.permutation(len(world.choices))[:POPULATION].tolist()
    vectors = world.pairs.encode(world.choices)
    while len(order) < count:
        youngest = np.array(order[-POPULATION:])
        drawn = generator.choice(youngest, size=TOURNAMENT, replace=False)
        child = world.choices[drawn[world.final[drawn].argmax()]].copy()
        variables = generator.choice(world.pairs.free, size=3, replace=False)
        child[variables] = generator.integers(world.pairs.counts[variables])
        order.append(nearest(vectors, world.pairs.encode(child[None])[0], order))
    return order[:count]


def tpe(world: "World", count: int, seed: int) -> "Order":
    """Optuna's tree-structured Parzen estimator over the choices of all variables."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with catch_warnings():
        simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=BATCH, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions: dict[str, Any] = {
        f"v{number}": optuna.distributions.IntDistribution(0, int(world.pairs.counts[number]) - 1)
        for number in world.pairs.free
    }
    vectors = world.pairs.encode(world.choices)
    first = random_search(world, BATCH, seed)
    order: Order = []
    while len(order) < count:
        if len(order) < BATCH:
            row = first[len(order)]
        else:
            asked = study.ask(distributions)
            pair = np.zeros((1, len(world.pairs.counts)), dtype=np.int64)
            pair[0, world.pairs.free] = [asked.params[f"v{number}"] for number in world.pairs.free]
            row = nearest(vectors, world.pairs.encode(pair)[0], order)
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        order.append(row)
        params = {f"v{number}": int(world.choices[row, number]) for number in world.pairs.free}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=float(world.final[row]))
        )
    return order


def gaussian_process(world: "World", count: int, seed: int) -> "Order":
    """BoTorch's Gaussian process and qLogNEI (arXiv 2310.20708) over the stored pairs, in batches."""
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from botorch.optim.optimize import optimize_acqf_discrete
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(seed)
    vectors = torch.from_numpy(world.pairs.encode(world.choices)).double()
    order = random_search(world, BATCH, seed)
    with catch_warnings():
        simplefilter("ignore")
        while len(order) < count:
            scores = torch.from_numpy(world.final[order])[:, None]
            model = SingleTaskGP(vectors[order], scores, outcome_transform=Standardize(m=1))
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            acquisition = qLogNoisyExpectedImprovement(model, vectors[order], prune_baseline=True)
            left = np.setdiff1d(np.arange(len(vectors)), order)
            chosen, _ = optimize_acqf_discrete(acquisition, q=BATCH, choices=vectors[left], unique=True)
            for vector in chosen.numpy():
                order.append(nearest(vectors.numpy(), vector, order))
    return order[:count]


PEERS: "dict[str, Callable[[World, int, int], Order]]" = {
    "random": random_search,
    "evolution": evolution,
    "optuna tpe": tpe,
    "botorch gp": gaussian_process,
}
