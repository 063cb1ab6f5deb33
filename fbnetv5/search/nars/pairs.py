"""Pairs of an architecture and a training recipe as one row of choices, and the vectors that a predictor reads.

A pair is one choice per variable of the space, then one per variable of the recipe. In the vector, a variable whose
choices are numbers is one value between 0 and 1, and any other variable is a one-hot code (FBNetV3, arXiv 2006.02049,
section 3.2). Pairs and vectors map to each other without loss.

Shape legend: B pairs, S variables of the space, R of the recipe, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbnetv5.search.nars.recipes import Recipes, recipe_fields
from fbnetv5.spaces.space import Choices, Space

Vectors = NDArray[np.float32]
"""[B, F]."""


@dataclass(frozen=True)
class PairSpace:
    """All pairs of an architecture of a space, or of one fixed architecture, and a recipe."""

    space: Space
    recipes: Recipes
    fixed: tuple[int, ...] | None = None
    """Choices of the only architecture, if the search is for its recipe alone."""
    scaled_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of all trainings, as AdamW has them, that a pair's optimizer scales."""

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """[S + R]: number of choices of each variable; 1 for those of a fixed architecture."""
        space = self.space.choice_counts if self.fixed is None else (1,) * len(self.fixed)
        return np.array([*space, *(len(variable.choices) for variable in self.recipes.values())])

    @cached_property
    def free(self) -> NDArray[np.int64]:
        """Positions of the variables with several choices."""
        return np.flatnonzero(self.counts > 1)

    @property
    def size(self) -> int:
        """S, the number of the space's variables."""
        return len(self.space.variables)

    def architectures(self, pairs: Choices) -> Choices:
        """[B, S + R] -> [B, S]: the architectures' choices."""
        if self.fixed is not None:
            return np.repeat(np.array([self.fixed]), len(pairs), axis=0)
        return pairs[:, : self.size]

    def recipe(self, pair: Choices) -> dict[str, Any]:
        """The fields of a training that a pair [S + R] stands for."""
        return recipe_fields(self.recipes, pair[self.size :].tolist(), self.scaled_fields)

    def from_unit(self, points: NDArray[np.float64]) -> Choices:
        """Points of the unit cube [B, S + R] -> pairs: the interval of each variable is cut into equal parts."""
        pairs: Choices = np.minimum((points * self.counts).astype(np.int64), self.counts - 1)
        return pairs

    @cached_property
    def _columns(self) -> tuple[tuple[bool, int, int], ...]:
        """Of every variable: whether it is a number, and the first and the end of its features."""
        names = [variable.choices for variable in self.space.variables]
        values: list[Sequence[Any]] = [*names, *(variable.choices for variable in self.recipes.values())]
        columns, first = [], 0
        for count, choices in zip(self.counts.tolist(), values, strict=True):
            is_number = count > 1 and all(map(_is_number, choices))
            width = 0 if count == 1 else 1 if is_number or count == 2 else count
            columns.append((width == 1, first, first + width))
            first += width
        return tuple(columns)

    @property
    def features(self) -> int:
        """F, the length of a vector."""
        return self._columns[-1][2]

    @property
    def architecture_features(self) -> int:
        """How many features, the first ones, are of the architecture."""
        return self._columns[self.size - 1][2]

    def encode(self, pairs: Choices) -> Vectors:
        """[B, S + R] -> [B, F]."""
        vectors = np.zeros((len(pairs), self.features), dtype=np.float32)
        for position, (is_number, first, end) in enumerate(self._columns):
            if is_number:
                vectors[:, first] = pairs[:, position] / (self.counts[position] - 1)
            elif end > first:
                vectors[np.arange(len(pairs)), first + pairs[:, position]] = 1.0
        return vectors

    def decode(self, vectors: Vectors) -> Choices:
        """[B, F] -> [B, S + R], the nearest pairs: the inverse of ``encode``."""
        pairs = np.zeros((len(vectors), len(self.counts)), dtype=np.int64)
        for position, (is_number, first, end) in enumerate(self._columns):
            if is_number:
                last = self.counts[position] - 1
                pairs[:, position] = np.clip(np.rint(vectors[:, first] * last), 0, last)
            elif end > first:
                pairs[:, position] = vectors[:, first:end].argmax(axis=1)
        return pairs


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return not isinstance(value, bool)
