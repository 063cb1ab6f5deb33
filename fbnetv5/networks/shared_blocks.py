"""Passes of several architectures on the same images, each of which reuses blocks of the pass before it.

The first blocks of a network have the largest maps and depend on few choices, so architectures in the order of
``by_first_choices`` often have them in common. In variant ``a`` at 64x64 such passes take three quarters of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import is_not
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fbnetv5.spaces.graph import Step
from fbnetv5.spaces.space import Choices, Space

MAX_VARIABLES = 5
"""Variables that an output which is kept for the next pass may depend on: with more it is rarely the same again."""

ModuleOf = Callable[[Step], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class LastRun:
    """Of a node."""

    candidate: int
    inputs: tuple[Tensor, ...]
    output: Tensor


class SharedBlocks:
    """Runs a block near the images only if it, or what it reads, differs from the last pass; without gradients.

    Nothing may change its outputs or the weights in between.
    """

    def __init__(self, space: Space, module_of: ModuleOf) -> None:
        self._nodes, self._module_of = nodes_of_few_variables(space), module_of
        self._last: dict[str, LastRun] = {}

    def module_of(self, step: Step) -> Callable[..., Any]:
        """The module that runs a step, or a function that returns its last output if that is the same."""
        module = self._module_of(step)
        return partial(self._run, step, module) if step.node in self._nodes else module

    def _run(self, step: Step, module: Callable[..., Any], *inputs: Tensor) -> Tensor:
        last = self._last.get(step.node)
        if last is None or last.candidate != step.candidate or any(map(is_not, last.inputs, inputs)):
            last = self._last[step.node] = LastRun(step.candidate, inputs, module(*inputs))
        return last.output


def by_first_choices(architectures: Choices) -> NDArray[np.int64]:
    """[K]: an order of architectures [K, S] in which those with the same first choices follow one another."""
    order: NDArray[np.int64] = np.lexsort(architectures.T[::-1])
    return order


def nodes_of_few_variables(space: Space) -> frozenset[str]:
    """Names of the nodes whose outputs depend on at most ``MAX_VARIABLES`` variables."""
    variables: dict[str, frozenset[int]] = {}
    for node in space.nodes:
        variables[node.name] = frozenset(node.variables).union(*(variables[name] for name in node.inputs))
    return frozenset(name for name, own in variables.items() if len(own) <= MAX_VARIABLES)
