import numpy as np
from numpy.typing import NDArray

from fbnetv5.costs.walk import walk_into_window
from fbnetv5.spaces.space import Choices

COUNTS = np.array([3, 3, 3, 3])


def distance_from_six(rows: Choices) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.abs(rows.sum(axis=1) - 6.0)
    return distances


def test_rows_walk_to_an_excess_of_0_and_fixed_variables_stay() -> None:
    drawn = np.random.default_rng(0).integers(COUNTS, size=(50, 4))
    inside = walk_into_window(drawn, distance_from_six, np.array([0, 1, 2]), COUNTS, np.random.default_rng(1))
    assert (distance_from_six(inside) == 0).all()
    assert len(inside) == 50
    assert (inside[:, 3] == drawn[:, 3]).all()


def test_rows_that_never_get_there_are_left_out() -> None:
    drawn = np.array([[0, 0, 0, 0], [0, 0, 0, 2]])  # of which variable 0 alone may change
    inside = walk_into_window(
        drawn, lambda rows: abs(rows.sum(axis=1) - 4.0), np.array([0]), COUNTS, np.random.default_rng(1)
    )
    assert inside.tolist() == [[2, 0, 0, 2]]
