"""Costs of architectures: additive tables over live blocks, in multiply-adds, parameters, milliseconds or other units.

The cost of a task's network is the sum over its live blocks plus its head, at its deploy resolution. A table is an
array over (node, candidate), so the costs of thousands of architectures are computed at once, which a search needs to
follow expected costs.

Shape legend: B architectures, S variables, V nodes, K most candidates of any node.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fbnetv5.blocks.specs import Block
from fbnetv5.costs.counting import Count, count
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.spaces.graph import SKIPPED, Graph
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task


def block_key(block: Block, stride: int, resolution: Resolution) -> str:
    """Table key of a block whose output has ``stride`` in a network at ``resolution``."""
    height, width = _first_input(block, stride, resolution)
    return f"{block.key}@{height}x{width}"


def head_key(task: Task, channels: Sequence[int], resolution: Resolution) -> str:
    """Table key of a task's head on features of these widths."""
    widths = "-".join(map(str, channels))
    return f"head_{task.name}_c{widths}_n{len(task.labels)}@{resolution[0]}x{resolution[1]}"


def head_shapes(task: Task, channels: Sequence[int], resolution: Resolution) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of the features a task's head reads."""
    height, width = resolution
    return tuple((count, height // path, width // path) for count, path in zip(channels, task.paths, strict=True))


def block_shapes(block: Block, stride: int, resolution: Resolution) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of a block's inputs."""
    return block.input_shapes(*_first_input(block, stride, resolution))


def _first_input(block: Block, stride: int, resolution: Resolution) -> Resolution:
    height, width = resolution
    return height * block.stride // stride, width * block.stride // stride


HeadCost = Callable[[tuple[int, ...]], float]
"""Widths of the features that a head reads -> its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """One task's costs in one unit."""

    space: Space
    paths: tuple[int, ...]
    """Strides of the features the task reads."""
    unit: str
    """"macs", "params", "ms", "estimated ms", or of a cost file, such as "energy_mJ"."""
    blocks: NDArray[np.float64]
    """[V, K]; exact for whole numbers below 2**53."""
    head: float | HeadCost
    """Cost of the head; a function of the widths of its features in a space where these differ."""

    def __call__(self, choices: Choices) -> NDArray[np.float64]:
        """Cost of each architecture: [B, S] -> [B]."""
        return self._of_live(self.space.live_candidates(choices, self.paths)) + self._head(choices)

    def _of_live(self, live: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cost of the candidates that run, ``SKIPPED`` where none does: [B, V] -> [B]."""
        values = self.blocks[np.arange(live.shape[1]), np.maximum(live, 0)]
        costs: NDArray[np.float64] = np.where(live != SKIPPED, values, 0.0).sum(axis=1)
        return costs

    def _head(self, choices: Choices) -> float | NDArray[np.float64]:
        if not callable(self.head):
            return self.head
        widths, rows = np.unique(self.space.feature_widths(choices, self.paths), axis=0, return_inverse=True)
        return np.array([self.head(tuple(row)) for row in widths.tolist()])[rows.ravel()]

    @property
    def fixed_head(self) -> float:
        """Cost of the head in a space where the widths of its features are the same in every architecture.

        Raises:
            TypeError: they differ.
        """
        if callable(self.head):
            raise TypeError(f"the cost of the head differs between the architectures of {self.space.label}")
        return self.head

    def cost_of(self, choices: Choices) -> float:
        """Cost of one architecture [S]."""
        return float(self(choices[None])[0])

    @property
    def min_cost(self) -> float:
        """The smallest cost of any architecture: all that can be skipped is skipped, the rest has minimum cost."""
        return self.cost_of(self.min_cost_architecture())

    @property
    def max_cost(self) -> float:
        """The largest cost of any architecture: nothing is skipped, and every node's candidate has maximum cost."""
        return self.cost_of(self._extreme(self.space.full(), np.argmax))

    def min_cost_architecture(self) -> Choices:
        """[S]: the architecture of ``min_cost``."""
        return self._extreme(self.space.empty(), np.argmin)

    def _extreme(self, start: Choices, best: Callable[[NDArray[np.float64]], np.intp]) -> Choices:
        """[S]: every variable's best choice, each compared beside ``start``: exact where costs add up."""
        counts = self.space.choice_counts
        variables = np.repeat(np.arange(len(counts)), counts)
        choices = np.concatenate([np.arange(count) for count in counts])
        architectures = np.repeat(start[None], len(choices), axis=0)
        architectures[np.arange(len(choices)), variables] = choices
        costs_of_variables = np.split(self(architectures), np.cumsum(counts)[:-1])
        return np.array([best(costs) for costs in costs_of_variables], dtype=np.int64)


def weighted_sum(tables: Sequence[CostTable], weights: Sequence[float] | NDArray[np.float64]) -> CostTable:
    """The weighted sum of the costs of a task's networks in several units."""
    pairs = list(zip(tables, weights, strict=True))

    def head(channels: tuple[int, ...]) -> float:
        return float(sum(weight * (of.head(channels) if callable(of.head) else of.head) for of, weight in pairs))

    first = tables[0]
    blocks: NDArray[np.float64] = np.sum([weight * table.blocks for table, weight in pairs], axis=0)
    total = head if callable(first.head) else head(())
    return CostTable(space=first.space, paths=first.paths, unit="weighted sum", blocks=blocks, head=total)


def make_table(
    space: Space,
    task: Task,
    unit: str,
    *,
    block_value: Callable[[Block, int], float],
    head_value: HeadCost,
) -> CostTable:
    """A table from a value per (block, stride of its output) and one per head, by the widths of its features."""
    max_candidates = max(len(node.candidates) for node in space.nodes)
    values = np.zeros((len(space.nodes), max_candidates))
    for row, node in enumerate(space.nodes):
        for column, block in enumerate(node.candidates):
            values[row, column] = block_value(block, node.stride)
    head = head_value(space.channels(task.paths)) if space.has_fixed_widths else head_value
    return CostTable(space=space, paths=task.paths, unit=unit, blocks=values, head=head)


class DeployedHead(nn.Module):
    """A task's head and its deploy step, which are counted and timed together; reads a feature per path."""

    def __init__(self, task: Task, channels: Sequence[int]) -> None:
        super().__init__()
        self.task = task
        self.head = task.build_head(channels)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.task.deploy(self.head(list(features)))


class Counter:
    """Counts blocks and heads of a space at one resolution, each distinct block or head once in a process."""

    _counts: ClassVar[dict[tuple[type, str], Count]] = {}
    """Counts by class of the block or task and by table key, of all counters."""

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = check_resolution(resolution)

    def block(self, block: Block, stride: int) -> Count:
        """The count of a block whose output has ``stride``."""
        key = (type(block), block_key(block, stride, self.resolution))
        if key not in self._counts:
            self._counts[key] = count(block.build, block_shapes(block, stride, self.resolution))
        return self._counts[key]

    def head(self, task: Task, channels: Sequence[int]) -> Count:
        """The count of a task's head on features of these widths."""
        key = (type(task), head_key(task, channels, self.resolution))
        if key not in self._counts:
            shapes = head_shapes(task, channels, self.resolution)
            self._counts[key] = count(lambda: DeployedHead(task, channels), shapes)
        return self._counts[key]

    def graph(self, graph: Graph, tasks: Mapping[str, Task]) -> Count:
        """The count of a whole network of one task or several, heads included."""
        blocks = [self.block(step.block, step.stride) for step in graph.steps]
        heads = [self.head(task, graph.channels(name)) for name, task in tasks.items()]
        return sum([*blocks, *heads], Count())

    def table(self, space: Space, task: Task, unit: str) -> CostTable:
        """The task's table in "macs" or "params"."""
        return make_table(
            space,
            task,
            unit,
            block_value=lambda block, stride: getattr(self.block(block, stride), unit),
            head_value=lambda channels: getattr(self.head(task, channels), unit),
        )


def table_keys(space: Space, task: Task, resolution: Resolution) -> list[str]:
    """The keys of all blocks of a space and of all heads that a task may have in it, each once."""
    blocks = [block_key(block, node.stride, resolution) for node in space.nodes for block in node.candidates]
    heads = [head_key(task, channels, resolution) for channels in space.possible_widths(task.paths)]
    return list(dict.fromkeys([*blocks, *heads]))


def keyed_table(
    space: Space,
    task: Task,
    resolution: Resolution,
    values_of: Callable[[Sequence[str]], Mapping[str, float]],
    *,
    unit: str = "ms",
) -> CostTable:
    """The task's table of values by key, such as those of a latency table.

    Args:
        space: the search space.
        task: whose head is added.
        resolution: of the deployed network.
        values_of: returns the value of every key, or raises if a key is missing.
        unit: of the values, such as "ms" or "estimated ms".
    """
    keys = [block_key(block, node.stride, resolution) for node in space.nodes for block in node.candidates]
    values = values_of(list(dict.fromkeys(keys)))

    def head_value(channels: tuple[int, ...]) -> float:
        key = head_key(task, channels, resolution)
        return values_of([key])[key]

    return make_table(
        space,
        task,
        unit,
        block_value=lambda block, stride: values[block_key(block, stride, resolution)],
        head_value=head_value,
    )
