import numpy as np
import pytest
from numpy.typing import NDArray

from fbnetv5.search.nars.acquisition import choose, without
from fbnetv5.search.nars.predictor import Ensemble
from fbnetv5.spaces.space import Choices
from tests.fbnetv5.search.nars.conftest import IDENTITY, PAIRS, draw

POOL = draw(PAIRS, 40)
NONE = POOL[:0]


class Lookup(Ensemble):
    """Members with made-up quantiles [M, B] for the pairs of ``POOL``."""

    values = np.random.default_rng(0).random((4, len(POOL)))

    def quantiles(self, choices: Choices) -> NDArray[np.float64]:
        rows = [int((pair == POOL).all(axis=1).argmax()) for pair in choices]
        return self.values[:, rows]


class OneMember(Lookup):
    values = Lookup.values[:1]


LOOKUP = Lookup(pairs=PAIRS, members=(), scale=IDENTITY)


def rows(pairs: Choices) -> list[int]:
    return [POOL.tolist().index(pair) for pair in pairs.tolist()]


def test_greedy_takes_the_highest_means() -> None:
    chosen = choose(LOOKUP, POOL, NONE, 7, method="greedy", seed=0)
    assert rows(chosen) == np.argsort(-LOOKUP.values.mean(axis=0))[:7].tolist()


@pytest.mark.parametrize("method", ["greedy", "thompson"])
@pytest.mark.parametrize("seed", range(5))
def test_no_pair_is_chosen_twice_or_trained_again(method: str, seed: int) -> None:
    trained = POOL[::3]
    chosen = choose(LOOKUP, POOL, trained, 20, method=method, seed=seed)
    assert len(chosen) == 20
    assert len(set(rows(chosen))) == 20
    assert not set(rows(chosen)) & set(rows(trained))


def test_thompson_takes_the_best_of_a_member_each_time() -> None:
    chosen = rows(choose(LOOKUP, POOL, NONE, 6, method="thompson", seed=1))
    left = set(range(len(POOL)))
    for row in chosen:
        assert any(row == max(left, key=lambda other: values[other]) for values in LOOKUP.values)
        left.remove(row)


def test_thompson_is_a_function_of_the_seed_and_tries_what_members_disagree_on() -> None:
    choices = [rows(choose(LOOKUP, POOL, NONE, 6, method="thompson", seed=seed)) for seed in (0, 0, 1, 2)]
    assert choices[0] == choices[1]
    assert len({tuple(chosen) for chosen in choices}) > 1
    single = OneMember(pairs=PAIRS, members=(), scale=IDENTITY)
    greedy, thompson = (rows(choose(single, POOL, NONE, 6, method=m, seed=0)) for m in ("greedy", "thompson"))
    assert greedy == thompson


@pytest.mark.parametrize("method", ["greedy", "thompson"])
def test_a_pool_that_is_used_up_gives_what_is_left(method: str) -> None:
    assert len(choose(LOOKUP, POOL, POOL[2:], 9, method=method, seed=0)) == 2
    assert choose(LOOKUP, POOL, POOL, 9, method=method, seed=0).shape == (0, POOL.shape[1])


def test_the_pairs_that_are_left() -> None:
    assert without(POOL, POOL[3:]).tolist() == POOL[:3].tolist()
