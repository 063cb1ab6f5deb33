from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fbnetv5.costs.constraints import Constraints
from fbnetv5.search.nars.evolution import EvolutionSettings, cross, evolve, mutate
from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.pool import sample_pool
from fbnetv5.spaces.space import Choices
from tests.fbnetv5.search.nars.conftest import PAIRS, SPACE, draw

MakeConstraints = Callable[..., Constraints]
WEIGHTS = np.random.default_rng(0).normal(size=PAIRS.features)


class Linear:
    """A linear score of vectors, which counts how many pairs it scored."""

    def __init__(self) -> None:
        self.scored: list[Choices] = []

    def __call__(self, pairs: Choices) -> NDArray[np.float64]:
        self.scored.append(pairs)
        scores: NDArray[np.float64] = PAIRS.encode(pairs).astype(np.float64) @ WEIGHTS
        return scores

    @property
    def evaluations(self) -> int:
        return sum(map(len, self.scored))


def test_the_best_pair_beats_the_best_of_as_many_random_ones(constrain: MakeConstraints) -> None:
    constraints, score = constrain(macs=0.4), Linear()
    survivors = evolve(sample_pool(PAIRS, constraints, 64, 0), score, PAIRS, constraints, seed=0)
    random = sample_pool(PAIRS, constraints, score.evaluations, 1)
    assert len(random) >= 0.99 * score.evaluations
    assert score(survivors).max() > score(random).max() + score(random).std()
    assert (np.diff(score(survivors)) <= 0).all()


def test_the_optimum_of_a_recipe_is_reached() -> None:
    pairs = PairSpace(SPACE, PAIRS.recipes, fixed=tuple(SPACE.full().tolist()))
    best = draw(pairs, 1, seed=1)

    def near(chosen: Choices) -> NDArray[np.float64]:
        distances: NDArray[np.float64] = np.abs(pairs.encode(chosen) - pairs.encode(best)).sum(axis=1)
        return -distances

    anything = Constraints(budgets=(), tables=())
    assert (evolve(draw(pairs, 64), near, pairs, anything, seed=0)[0] == best).all()


def test_survivors_meet_the_budgets_and_differ(constrain: MakeConstraints) -> None:
    constraints = constrain(macs=0.3, params=0.5)
    survivors = evolve(draw(PAIRS, 32), Linear(), PAIRS, constraints, seed=0)
    assert (constraints.excess(PAIRS.architectures(survivors)) == 0).all()
    assert len(np.unique(survivors, axis=0)) == len(survivors) == EvolutionSettings().parents


def test_evolution_stops_when_the_best_no_longer_gains(constrain: MakeConstraints) -> None:
    generations = []

    def flat(pairs: Choices) -> NDArray[np.float64]:
        generations.append(len(pairs))
        return np.zeros(len(pairs))

    evolve(draw(PAIRS, 8), flat, PAIRS, constrain(macs=0.5), seed=0, settings=EvolutionSettings(patience=3))
    assert len(generations) == 1 + 3


def test_evolution_stops_at_its_last_generation(constrain: MakeConstraints) -> None:
    score = Linear()
    settings = EvolutionSettings(max_generations=2, children=16, parents=8)
    survivors = evolve(draw(PAIRS, 8), score, PAIRS, constrain(macs=0.5), seed=0, settings=settings)
    assert len(score.scored) == 1 + 2
    assert len(survivors) == 8


def test_evolution_is_a_function_of_the_seed(constrain: MakeConstraints) -> None:
    settings = EvolutionSettings(max_generations=3)
    results = [
        evolve(draw(PAIRS, 16), Linear(), PAIRS, constrain(macs=0.5), seed=seed, settings=settings)
        for seed in (0, 0, 1)
    ]
    assert (results[0] == results[1]).all()
    assert results[0].shape != results[2].shape or (results[0] != results[2]).any()


def test_mutations_change_at_least_one_variable_at_the_set_rate() -> None:
    parents, settings = draw(PAIRS, 1), EvolutionSettings(children=2000, mutated=0.2)
    children = mutate(parents, PAIRS, np.random.default_rng(0), settings)
    assert ((children >= 0) & (children < PAIRS.counts)).all()
    changed = (children != parents[0]).mean(axis=0)
    expected = (0.2 + 0.8 / len(PAIRS.free)) * (1 - 1 / PAIRS.counts)  # a random choice may be the old one
    assert np.abs(changed - expected).max() < 0.05


def test_children_have_each_variable_of_one_of_two_parents() -> None:
    parents = np.stack([np.zeros(40, dtype=np.int64), np.ones(40, dtype=np.int64)])
    children = cross(parents, np.random.default_rng(0), EvolutionSettings(children=500))
    assert set(np.unique(children)) == {0, 1}
    mixed = children[(children.min(axis=1) == 0) & (children.max(axis=1) == 1)]
    assert 150 < len(mixed) < 350  # half of the draws have the same parent twice
    assert abs(mixed.mean() - 0.5) < 0.02
