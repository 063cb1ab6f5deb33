"""Walks architectures into the window of their budgets, one changed variable at a time.

Shape legend: B architectures, S variables.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fbnetv5.spaces.space import Choices

MAX_CHANGES = 2000
"""Changes after which an architecture that is still outside the window is left out."""


def walk_into_window(
    drawn: Choices,
    excess_of: Callable[[Choices], NDArray[np.float64]],
    movable: NDArray[np.int64],
    counts: NDArray[np.int64],
    generator: np.random.Generator,
) -> Choices:
    """The rows [B, S], changed until their excess is 0, without those that never get there.

    One variable at a time takes a random other choice, and the change is kept unless it leads further away.

    Args:
        drawn: [B, S].
        excess_of: [B, S] -> [B], the distance from the window.
        movable: numbers of the variables that may change.
        counts: [S], number of choices of each variable.
        generator: source of randomness.
    """
    pool, excess = drawn.copy(), excess_of(drawn)
    for _ in range(MAX_CHANGES):
        outside = np.flatnonzero(excess)
        if not len(outside):
            break
        changed = pool[outside]
        variables = generator.choice(movable, size=len(outside))
        changed[np.arange(len(outside)), variables] = generator.integers(counts[variables])
        nearer = (of_changed := excess_of(changed)) <= excess[outside]
        pool[outside[nearer]], excess[outside[nearer]] = changed[nearer], of_changed[nearer]
    inside: Choices = pool[excess == 0]
    return inside
