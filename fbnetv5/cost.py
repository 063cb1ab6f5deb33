"""What architectures cost: additive tables over live blocks, in multiply-adds, parameters or milliseconds.

The cost of a task's network is the sum over its live blocks plus its head, at its deploy resolution. A table is an
array over (node, candidate), so thousands of architectures are priced at once; a search needs that to follow expected
costs.

Shape legend: B architectures, S slots, V nodes, K most candidates of any node.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.blocks import Block
from fbnetv5.count import Count, count
from fbnetv5.space import Choices, Space
from fbnetv5.tasks.task import Task

Resolution = tuple[int, int]
"""(height, width) in pixels, multiples of 32."""
DEPLOY_RESOLUTION: Resolution = (224, 224)
MAX_SIDE = 65_536
"""Of a picture, in pixels: beyond it counts overflow."""


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


def check_resolution(resolution: Resolution) -> Resolution:
    """``resolution`` if every path divides it.

    Raises:
        UserError: not two positive multiples of 32, or larger than any picture a network is deployed on.
    """
    if len(resolution) != 2 or any(side % 32 or not 0 < side <= MAX_SIDE for side in resolution):
        sides = "x".join(map(str, resolution))
        raise UserError(f"resolution {sides}: height and width must be multiples of 32 up to {MAX_SIDE}")
    return resolution


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a task's deployed network may cost, and at which resolution."""

    limit: float
    """In ``unit``."""
    unit: str
    """"macs" or "ms"."""
    resolution: Resolution = DEPLOY_RESOLUTION

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The budget whose ``asdict`` this is."""
        height, width = document["resolution"]
        return cls(limit=float(document["limit"]), unit=str(document["unit"]), resolution=(int(height), int(width)))


WINDOW = (0.85, 1.0)
"""A derived network costs this part of its budget."""


def in_window(costs: NDArray[np.float64], budget: Budget) -> NDArray[np.bool_]:
    """Which costs lie within the part of the budget that a derived network may cost."""
    return (costs >= WINDOW[0] * budget.limit) & (costs <= WINDOW[1] * budget.limit)


_MACS = {"K": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMG]|ms|us|s)", re.ASCII)


def parse_budgets(text: str, *, unit: str, tasks: Sequence[str]) -> dict[str, Budget]:
    """Budgets per task from "400M", "det=1.2G@320x640,400M" or "8ms".

    A part without a task's name holds for every task not named; ``@HxW`` sets the deploy resolution.

    Raises:
        UserError: a part cannot be read, names an unknown task, or a task is left without a budget.
    """
    budgets: dict[str, Budget] = {}
    default: Budget | None = None
    for part in text.split(","):
        name, found, amount = part.strip().rpartition("=")
        if found and name not in tasks:
            raise UserError(f"budget {part.strip()!r}: this run has no task {name!r}; it has: {', '.join(tasks)}")
        budget = _parse_budget(amount, unit)
        if name in budgets or (not found and default is not None):
            raise UserError(f"budget {text!r} sets {name or 'the default'} twice")
        if found:
            budgets[name] = budget
        else:
            default = budget
    if default is not None:
        budgets = dict.fromkeys(tasks, default) | budgets
    missing = [task for task in tasks if task not in budgets]
    if missing:
        raise UserError(f"budget {text!r} leaves out {', '.join(missing)}; add a part without a name for the others")
    return {task: budgets[task] for task in tasks}


def _parse_budget(text: str, unit: str) -> Budget:
    amount, found, size = text.partition("@")
    match = _AMOUNT.fullmatch(amount.strip())
    example = "400M or 1.2G multiply-adds" if unit == "macs" else "8ms"
    if not match or float(match["number"]) == 0 or (unit == "macs") != (match["unit"] in _MACS):
        raise UserError(f"budget {text!r} is not a positive number with its unit, such as {example}")
    scale = _MACS[match["unit"]] if unit == "macs" else {"ms": 1.0, "us": 1e-3, "s": 1e3}[match["unit"]]
    resolution = parse_resolution(size) if found else DEPLOY_RESOLUTION
    return Budget(limit=float(match["number"]) * scale, unit=unit, resolution=resolution)


def parse_resolution(text: str) -> Resolution:
    """(height, width) from "224" or "320x640".

    Raises:
        UserError: not one or two multiples of 32.
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip(), re.ASCII)
    if not match:
        raise UserError(f"resolution {text!r} is not HEIGHTxWIDTH, such as 224x224")
    return check_resolution((int(match[1]), int(match[2] or match[1])))


def format_cost(value: float, unit: str, *, more: int = 0) -> str:
    """E.g. "398.2M", "7.91 ms" or "7.91 estimated ms", with ``more`` digits than these."""
    if unit.endswith("ms"):
        return f"{float(f'{value:.{3 + more}g}'):.15g} {unit}"
    return f"{value / 1e6:.{1 + more}f}M"


def format_apart(values: Sequence[float], unit: str) -> list[str]:
    """Costs with as many digits as it takes to tell different ones apart."""
    for more in range(12):
        texts = [format_cost(value, unit, more=more) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts
