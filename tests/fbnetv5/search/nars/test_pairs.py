from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnetv5.search.nars.pairs import PairSpace
from fbnetv5.search.nars.recipes import RecipeVariable, default_recipes
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.tasks import task_types
from tests.fbnetv5.search.nars.conftest import PAIRS, SPACE, draw

RECIPES = default_recipes(task_types()["cls"])
SPACES: Mapping[str, PairSpace] = {
    "stages": PairSpace(StageSpace(), RECIPES),
    "four-path": PairSpace(FourPathSpace(), RECIPES),
    "fixed": PairSpace(SPACE, RECIPES, fixed=tuple(SPACE.full().tolist())),
}


@pytest.mark.parametrize("pairs", SPACES.values(), ids=SPACES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_decoding_inverts_encoding(pairs: PairSpace, seed: int) -> None:
    drawn = draw(pairs, 16, seed)
    vectors = pairs.encode(drawn)
    assert vectors.shape == (16, pairs.features)
    assert 0 <= vectors.min() <= vectors.max() <= 1
    assert (pairs.decode(vectors) == drawn).all()


@pytest.mark.parametrize("pairs", SPACES.values(), ids=SPACES)
def test_points_of_the_unit_cube_cover_all_choices_evenly(pairs: PairSpace) -> None:
    points = np.repeat(np.linspace(0, 1, 4097)[:-1, None], len(pairs.counts), axis=1)
    drawn = pairs.from_unit(points)
    for position, count in enumerate(pairs.counts):
        times = np.bincount(drawn[:, position], minlength=count)
        assert len(times) == count
        assert times.max() - times.min() <= 1
    assert (pairs.from_unit(np.ones((1, len(pairs.counts)))) == pairs.counts - 1).all()


def test_a_vector_has_a_number_per_numeric_variable_and_a_code_of_the_others() -> None:
    recipes = {
        "lr": RecipeVariable(values=(0.1, 0.2, 0.4)),
        "optimizer": RecipeVariable(values=("adamw", "sgd", "rmsprop")),
        "momentum": RecipeVariable(values=(0.9,)),
    }
    pairs = PairSpace(SPACE, recipes)
    assert pairs.features - pairs.architecture_features == 1 + 3
    pair = np.concatenate([SPACE.empty(), [1, 2, 0]])[None]
    assert pairs.encode(pair)[0, pairs.architecture_features :].tolist() == [0.5, 0.0, 0.0, 1.0]
    assert pairs.recipe(pair[0]) == {"lr": 0.4 / 2 * 1e1, "optimizer": "rmsprop", "momentum": 0.9} | {"lr": 0.2}


def test_a_fixed_architecture_has_no_features_and_is_that_of_every_pair() -> None:
    pairs = SPACES["fixed"]
    assert pairs.architecture_features == 0
    assert (pairs.architectures(draw(pairs, 3)) == SPACE.full()).all()
    assert set(pairs.free) <= set(range(pairs.size, len(pairs.counts)))


def test_a_pair_is_an_architecture_and_a_recipe() -> None:
    (pair,) = draw(PAIRS, 1)
    recipe: dict[str, Any] = PAIRS.recipe(pair)
    assert recipe.keys() == RECIPES.keys()
    assert SPACE.check(PAIRS.architectures(pair[None])[0].tolist()).tolist() == pair[: len(SPACE.variables)].tolist()
