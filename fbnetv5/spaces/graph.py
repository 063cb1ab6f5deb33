"""Graphs of blocks: the nodes that a space offers, and the live blocks of one architecture for one task or several.

A ``Node`` is a position with candidate blocks; a ``Step`` is a node that runs, with the block that runs there. A
``Graph`` lists the steps in running order and names, per task, the steps whose outputs the task's head reads.
Supernets, derived networks, costs and exports all work on a ``Graph``, whether it serves one task or several.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fbnetv5.blocks.specs import Block

SKIPPED = -1
"""Stands for a candidate's index if the node does not run and passes its first input through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A decision of a search, with named choices. It may set several nodes."""

    name: str
    choices: tuple[str, ...]
    """Names of the choices. Choice 0 skips nodes if any choice does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A position of a space.

    ``variables`` and ``table`` define how choices set the node: the table has a candidate's index, or ``SKIPPED``, for
    every combination of choices of its variables, in row-major order. A node without variables always runs its only
    candidate.
    """

    name: str
    inputs: tuple[str, ...]
    """Names of the nodes read; the first passes through if this node is skipped. Empty for the stem."""
    candidates: tuple[Block, ...]
    stride: int
    """Stride of the node's output, relative to the image."""
    stage: int
    """Number of the stage that the node belongs to."""
    variables: tuple[int, ...] = ()
    """Indices of the space's variables that set this node."""
    table: tuple[int, ...] = (0,)
    """Candidate, or ``SKIPPED``, per combination of the variables' choices."""
    whole: Block | None = None
    """The block whose weights a supernet stores for all candidates, which use slices of them; None if each candidate
    has weights of its own."""

    @property
    def stored(self) -> tuple[Block, ...]:
        """The blocks whose weights a supernet stores."""
        return self.candidates if self.whole is None else (self.whole,)

    @property
    def skippable(self) -> bool:
        """Whether some choice leaves the node out."""
        return SKIPPED in self.table

    @property
    def channels(self) -> int:
        """Width of the widest candidate's output; in most spaces all candidates have the same."""
        return max(block.out_channels for block in self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A live node of a graph: which block runs, on whose outputs, and for which tasks."""

    name: str
    """Unique in its graph: the node's name, followed by the tasks where a graph holds several steps of one node."""
    node: str
    candidate: int
    """Index of the block among the node's candidates."""
    block: Block
    inputs: tuple[str, ...]
    """Names of steps; empty for the stem, which reads the images."""
    stride: int
    """Stride of the step's output, relative to the image."""
    stage: int
    tasks: tuple[str, ...]
    """Tasks whose features depend on this step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The live blocks in running order and, per task, the steps whose outputs its head reads."""

    steps: tuple[Step, ...]
    features: Mapping[str, tuple[str, ...]]
    """Task -> names of steps, in the order in which the head reads their outputs."""

    @property
    def shared(self) -> tuple[Step, ...]:
        """Steps that run once for two tasks or more."""
        return tuple(step for step in self.steps if len(step.tasks) > 1)

    def channels(self, task: str) -> tuple[int, ...]:
        """Widths of the features that the task's head reads."""
        widths = {step.name: step.block.out_channels for step in self.steps}
        return tuple(widths[name] for name in self.features[task])


Place = tuple[str, str]
"""(node, first of the tasks): identifies a step of a merged graph while its list of tasks still grows."""


@dataclass(slots=True, kw_only=True)
class _Merged:
    """A step of a merged graph and the tasks that share it so far."""

    step: Step
    inputs: tuple[Place, ...]
    tasks: list[str]

    @property
    def place(self) -> Place:
        return self.step.node, self.tasks[0]


def merge(graphs: Mapping[str, Graph], same_weights: Callable[[Step, str, str], bool]) -> Graph:
    """The graph that serves all tasks at once, each of which has a graph of its own.

    Two tasks share a step if it is the same candidate of the same node on the same inputs, shared themselves, with the
    same weights. Once the tasks differ, everything that depends on the difference runs once per task.

    Args:
        graphs: by task, the graph of that task alone.
        same_weights: (step, task, other task) -> whether the block's weights are the same for both. For an architecture
            with one set of weights it is true of all steps; separately trained networks compare their weights.

    Returns:
        Steps in running order. A step of all tasks has its node's name, any other also names its tasks, such as
        "s1_p8_0_of_det" or "s0_p8_1_of_det_seg".
    """
    merged: list[_Merged] = []
    place_of: dict[tuple[str, str], _Merged] = {}
    for task, graph in graphs.items():
        for step in graph.steps:
            inputs = tuple(place_of[task, name].place for name in step.inputs)
            match = next((other for other in merged if _is_same(other, step, inputs, task, same_weights)), None)
            if match is None:
                match = _Merged(step=step, inputs=inputs, tasks=[])
                merged.append(match)
            match.tasks.append(task)
            place_of[task, step.name] = match
    names = {each.place: _name(each, tuple(graphs)) for each in merged}
    steps = tuple(
        replace(
            each.step,
            name=names[each.place],
            inputs=tuple(names[place] for place in each.inputs),
            tasks=tuple(each.tasks),
        )
        for each in merged
    )
    features = {
        task: tuple(names[place_of[task, name].place] for name in graph.features[task])
        for task, graph in graphs.items()
    }
    return Graph(steps=steps, features=features)


def _is_same(
    other: _Merged,
    step: Step,
    inputs: tuple[Place, ...],
    task: str,
    same_weights: Callable[[Step, str, str], bool],
) -> bool:
    equal = (other.step.node, other.step.candidate, other.inputs) == (step.node, step.candidate, inputs)
    return equal and same_weights(step, other.tasks[0], task)


def _name(each: _Merged, all_tasks: tuple[str, ...]) -> str:
    node, tasks = each.step.node, tuple(each.tasks)
    return node if tasks == all_tasks else f"{node}_of_{'_'.join(tasks)}"
