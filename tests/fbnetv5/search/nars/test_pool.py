from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import qmc

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import Constraints
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.pool import sample_pool, unique_rows, walk_into_window
from fbnetv5.search.nars.prepare import Prepared
from tests.fbnetv5.search.nars.conftest import MACS, PAIRS, SIZE, SPACE, draw

MakeConstraints = Callable[..., Constraints]
BUDGETS: dict[str, dict[str, float]] = {
    "small": {"macs": 0.04},
    "medium": {"macs": 0.5},
    "large": {"macs": 0.999},
    "few parameters": {"params": 0.04},
    "both, of which one binds": {"macs": 0.3, "params": 0.9},
    "both": {"macs": 0.5, "params": 0.5},
}


@pytest.mark.parametrize("shares", BUDGETS.values(), ids=BUDGETS)
def test_every_pair_of_the_pool_meets_the_budgets(constrain: MakeConstraints, shares: dict[str, float]) -> None:
    constraints = constrain(**shares)
    pool = sample_pool(PAIRS, constraints, 100, 0)
    assert 64 < len(pool) <= 128
    assert len(np.unique(pool, axis=0)) == len(pool)
    budgeted, architectures = zip(constraints.tables, constraints.budgets, strict=True), PAIRS.architectures(pool)
    ratios = np.array([table(architectures) / budget.limit for table, budget in budgeted])
    assert ratios.max() <= 1
    assert ratios.max(axis=0).min() >= 0.85
    assert ((pool >= 0) & (pool < PAIRS.counts)).all()


def test_budgets_that_no_pair_meets_together_are_refused(constrain: MakeConstraints) -> None:
    constraints = constrain(macs=-0.2, params=1.3)
    with pytest.raises(UserError, match="was found that meets the budgets together; raise one of them"):
        sample_pool(PAIRS, constraints, 16, 0)


def test_the_pool_is_a_function_of_the_seed(constrain: MakeConstraints) -> None:
    first, again, other = (sample_pool(PAIRS, constrain(macs=0.4), 32, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert first.shape != other.shape or (first != other).any()


def discrepancy(choices: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Of the middles of the intervals that the choices stand for, mean over all projections to two dimensions."""
    points = (choices + 0.5) / counts
    axes = range(points.shape[1])
    return float(np.mean([qmc.discrepancy(points[:, [a, b]]) for a in axes for b in axes if a < b]))


def test_recipes_of_the_pool_are_spread_more_evenly_than_uniform_draws(constrain: MakeConstraints) -> None:
    constraints = constrain(macs=0.4)
    recipe = slice(PAIRS.size, None)
    sobol = [sample_pool(PAIRS, constraints, 128, seed)[:, recipe] for seed in range(3)]
    uniform = [draw(PAIRS, 128, seed)[:, recipe] for seed in range(3)]
    counts = PAIRS.counts[recipe]
    assert max(discrepancy(pool, counts) for pool in sobol) < 0.8 * min(discrepancy(pool, counts) for pool in uniform)


def test_pairs_walk_into_the_window_and_keep_their_recipes(constrain: MakeConstraints) -> None:
    drawn, constraints = draw(PAIRS, 32), constrain(macs=0.1)
    inside = constraints.excess(PAIRS.architectures(drawn)) == 0
    walked = walk_into_window(drawn, PAIRS, constraints, np.random.default_rng(0))
    assert 0 <= inside.mean() < 1
    assert (walked[:, PAIRS.size :] == drawn[:, PAIRS.size :]).all()
    assert (walked[inside] == drawn[inside]).all()


def test_a_fixed_architecture_has_a_pool_of_recipes(constrain: MakeConstraints) -> None:
    pairs = PairSpace(SPACE, PAIRS.recipes, fixed=tuple(SPACE.empty().tolist()))
    pool = sample_pool(pairs, constrain(), 64, 0)
    assert len(pool) == 64
    assert (pairs.architectures(pool) == SPACE.empty()).all()


def test_repeated_rows_are_left_out_in_order() -> None:
    rows = np.array([[3, 1], [0, 2], [3, 1], [0, 0]])
    assert unique_rows(rows).tolist() == [[3, 1], [0, 2], [0, 0]]


def test_a_pool_meets_a_limit_of_memory(prepared: Prepared) -> None:
    memory = Budget(limit=7e4, unit="bytes", resolution=SIZE)
    constraints = prepared.constraints((MACS, memory))
    pool, others = PAIRS.architectures(sample_pool(PAIRS, constraints, 32, 0)), PAIRS.architectures(draw(PAIRS, 32))
    assert constraints.memory is not None
    assert len(pool) > 16
    assert constraints.memory.peak(pool).max() <= 7e4 < constraints.memory.peak(others).max()
