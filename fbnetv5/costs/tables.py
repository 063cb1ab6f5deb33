"""What architectures cost: additive tables over live blocks, in multiply-adds, parameters or milliseconds.

The cost of a task's network is the sum over its live blocks plus its head, at its deploy resolution. A table is an
array over (node, candidate), so thousands of architectures are priced at once; a search needs that to follow expected
costs.

Shape legend: B architectures, S slots, V nodes, K most candidates of any node.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fbnetv5.blocks.specs import Block
from fbnetv5.costs.counting import Count, count
from fbnetv5.data.resolution import Resolution, check_resolution
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task


def block_key(block: Block, stride: int, resolution: Resolution) -> str:
    """Table key of a block whose output has ``stride`` in a network at ``resolution``."""
    height, width = _first_input(block, stride, resolution)
    return f"{block.key}@{height}x{width}"


def head_key(task: Task, space: Space, resolution: Resolution) -> str:
    """Table key of a task's head on the widths of a space."""
    widths = "-".join(str(space.widths[path]) for path in task.paths)
    return f"head_{task.name}_c{widths}_n{len(task.labels)}@{resolution[0]}x{resolution[1]}"


def head_shapes(task: Task, space: Space, resolution: Resolution) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of the features a task's head reads."""
    height, width = resolution
    return tuple((space.widths[path], height // path, width // path) for path in task.paths)


def block_shapes(block: Block, stride: int, resolution: Resolution) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of a block's inputs."""
    return block.input_shapes(*_first_input(block, stride, resolution))


def _first_input(block: Block, stride: int, resolution: Resolution) -> Resolution:
    height, width = resolution
    return height * block.stride // stride, width * block.stride // stride


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """One task's costs in one unit."""

    space: Space
    paths: tuple[int, ...]
    """Strides of the features the task reads."""
    unit: str
    """"macs", "params", "ms" or "estimated ms"."""
    blocks: NDArray[np.float64]
    """[V, K]; exact for whole numbers below 2**53."""
    head: float

    def __call__(self, choices: Choices) -> NDArray[np.float64]:
        """Cost of each architecture: [B, S] -> [B]."""
        live = self.space.live(choices, self.paths)
        slots = np.array([-1 if node.slot is None else node.slot for node in self.space.nodes])
        chosen = np.where(slots < 0, 1, choices[:, slots])
        values = self.blocks[np.arange(len(slots)), np.maximum(chosen, 1) - 1]  # a skipped node is never live
        costs: NDArray[np.float64] = np.where(live, values, 0.0).sum(axis=1) + self.head
        return costs

    def one(self, choices: Choices) -> float:
        """Cost of one architecture [S]."""
        return float(self(choices[None])[0])

    @property
    def cheapest(self) -> float:
        """Cost of the network that skips every slot; nothing is cheaper, since costs are not negative."""
        return self.one(self.space.empty())

    @property
    def dearest(self) -> float:
        """The largest cost that some architecture reaches: keeping every slot makes everything live."""
        rows = zip(self.space.nodes, self.blocks, strict=True)
        choices = [row[: len(node.candidates)].argmax() + 1 for node, row in rows if node.slot is not None]
        return self.one(np.array(choices, dtype=np.int64))


def make_table(
    space: Space,
    task: Task,
    unit: str,
    *,
    block_value: Callable[[Block, int], float],
    head_value: float,
) -> CostTable:
    """A table from a value per (block, stride of its output) and one for the head."""
    most = max(len(node.candidates) for node in space.nodes)
    values = np.zeros((len(space.nodes), most))
    for row, node in enumerate(space.nodes):
        for column, block in enumerate(node.candidates):
            values[row, column] = block_value(block, node.stride)
    return CostTable(space=space, paths=task.paths, unit=unit, blocks=values, head=head_value)


class DeployedHead(nn.Module):
    """A task's head with what makes its outputs deployable, so that both are counted and timed: a feature per path."""

    def __init__(self, task: Task, space: Space) -> None:
        super().__init__()
        self.task = task
        self.head = task.build_head([space.widths[path] for path in task.paths])

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.task.deploy(self.head(list(features)))


class Counter:
    """Counts blocks and heads of a space at one resolution, each distinct one once."""

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = check_resolution(resolution)
        self._known: dict[str, Count] = {}

    def block(self, block: Block, stride: int) -> Count:
        """The count of a block whose output has ``stride``."""
        key = block_key(block, stride, self.resolution)
        if key not in self._known:
            self._known[key] = count(block.build, block_shapes(block, stride, self.resolution))
        return self._known[key]

    def head(self, task: Task, space: Space) -> Count:
        """The count of a task's head."""
        key = head_key(task, space, self.resolution)
        if key not in self._known:
            self._known[key] = count(lambda: DeployedHead(task, space), head_shapes(task, space, self.resolution))
        return self._known[key]

    def table(self, space: Space, task: Task, unit: str) -> CostTable:
        """The task's table in "macs" or "params"."""
        return make_table(
            space,
            task,
            unit,
            block_value=lambda block, stride: getattr(self.block(block, stride), unit),
            head_value=getattr(self.head(task, space), unit),
        )


def latency_table(
    space: Space,
    task: Task,
    resolution: Resolution,
    values_ms: Callable[[Sequence[str]], Mapping[str, float]],
    *,
    unit: str = "ms",
) -> CostTable:
    """The task's table in milliseconds.

    Args:
        space: the search space.
        task: whose head is added.
        resolution: of the deployed network.
        values_ms: gives the time of every key asked for, or raises for those it does not know.
        unit: "ms", or "estimated ms".
    """
    keys = [block_key(block, node.stride, resolution) for node in space.nodes for block in node.candidates]
    head = head_key(task, space, resolution)
    values = values_ms([*dict.fromkeys(keys), head])
    return make_table(
        space,
        task,
        unit,
        block_value=lambda block, stride: values[block_key(block, stride, resolution)],
        head_value=values[head],
    )
