"""The base of all search spaces: nodes, the variables that set them, and the graphs that choices define.

A concrete space is one file of this folder with one subclass of ``Space``: a frozen record whose fields are its
parameters and whose ``kind`` names it in files. It lists its nodes, its variables and the nodes where features come
out; liveness, graphs and checks follow. Costs, panels and networks work on any space.

Shape legend: B architectures, S variables, V nodes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.document import Document
from export.errors import UserError
from fbnetv5.spaces.graph import SKIPPED, Graph, Node, Step, Variable

SKIP = 0
"""The choice that skips, of a variable that may skip a node."""

Choices = NDArray[np.int64]
"""[S] or [B, S]: one choice per variable."""


class Space(Document, ABC):
    """A search space. Equal parameters give the same variables in the same order."""

    @property
    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """Every position, inputs before their readers."""

    @property
    @abstractmethod
    def variables(self) -> tuple[Variable, ...]:
        """The decisions of a search, in the order of an architecture's choices."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Short name for messages, such as "variant a"."""

    @property
    @abstractmethod
    def ends(self) -> Mapping[int, str]:
        """Stride of a path -> name of the node whose output is its feature."""

    def __eq__(self, other: object) -> bool:
        """Compare parameters; pydantic would compare the cached arrays as well."""
        return type(self) is type(other) and self._parameters() == other._parameters()

    def __hash__(self) -> int:
        return hash((type(self), self._parameters()))

    def _parameters(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in type(self).model_fields)

    @cached_property
    def choice_counts(self) -> tuple[int, ...]:
        """Number of choices of each variable."""
        return tuple(len(variable.choices) for variable in self.variables)

    def channels(self, paths: Iterable[int]) -> tuple[int, ...]:
        """Widths of the features of these paths, the widest where architectures differ, see ``has_fixed_widths``."""
        width = {node.name: node.channels for node in self.nodes}
        return tuple(width[self.ends[path]] for path in paths)

    def possible_widths(self, paths: Iterable[int]) -> list[tuple[int, ...]]:
        """All widths that the features of these paths may have together."""
        nodes = {node.name: node for node in self.nodes}
        ends = [nodes[self.ends[path]] for path in paths]
        return list(product(*(sorted({block.out_channels for block in node.candidates}) for node in ends)))

    @cached_property
    def has_fixed_widths(self) -> bool:
        """Whether a node's output has the same width in every architecture."""
        return all(len({block.out_channels for block in node.candidates}) == 1 for node in self.nodes)

    def feature_widths(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.int64]:
        """[B, P]: widths of the features of P paths in architectures [B, S]."""
        candidates, rows = self.candidates(choices), np.arange(len(choices))
        widths = []
        for end in self.end_columns(paths):
            columns = np.full(len(choices), end)
            while (skipped := candidates[rows, columns] == SKIPPED).any():
                columns = np.where(skipped, self._first_inputs[columns], columns)
            widths.append(self._out_widths[columns, candidates[rows, columns]])
        return np.stack(widths, axis=1)

    @cached_property
    def _first_inputs(self) -> NDArray[np.int64]:
        """[V]: the column of each node's first input; its own where it has none."""
        return np.array([inputs[0] if inputs else column for column, inputs in enumerate(self.input_columns)])

    @cached_property
    def _out_widths(self) -> NDArray[np.int64]:
        """[V, most candidates]: width of each candidate's output."""
        widths = np.zeros((len(self.nodes), max(len(node.candidates) for node in self.nodes)), dtype=np.int64)
        for row, node in zip(widths, self.nodes, strict=True):
            row[: len(node.candidates)] = [block.out_channels for block in node.candidates]
        return widths

    def full(self) -> Choices:
        """The architecture in which every variable has its first choice that skips nothing."""
        full: Choices = self._skips.argmin(axis=1)
        return full

    @cached_property
    def skipping(self) -> NDArray[np.bool_]:
        """Bool [S]: choice 0 of the variable skips a node, whatever the choices of other variables are."""
        return self._skips[:, SKIP]

    @cached_property
    def _skips(self) -> NDArray[np.bool_]:
        """Bool [S, most choices]: the choice skips a node, whatever the choices of other variables are."""
        skips = np.zeros((len(self.variables), max(self.choice_counts)), dtype=np.bool_)
        for node in self.nodes:
            counts = [self.choice_counts[variable] for variable in node.variables]
            skipped = np.array(node.table).reshape(counts) == SKIPPED
            for axis, variable in enumerate(node.variables):
                others = tuple(other for other in range(len(counts)) if other != axis)
                skips[variable, : counts[axis]] |= skipped.all(axis=others)
        return skips

    def empty(self) -> Choices:
        """The architecture in which every variable has choice 0, so that whatever can be skipped is."""
        return np.zeros(len(self.variables), dtype=np.int64)

    def random(self, kept: NDArray[np.bool_], rng: np.random.Generator) -> Choices:
        """Random architectures.

        Args:
            kept: bool [..., S], false where a variable that may skip a node skips it.
            rng: source of randomness.

        Returns:
            [..., S]: uniform among choices 1 and later of a kept variable whose choice 0 skips a node, and among all
            choices of a variable whose choice 0 skips none.
        """
        drawn = rng.integers(self.skipping.astype(np.int64), np.array(self.choice_counts), size=kept.shape)
        return np.where(kept | ~self.skipping, drawn, SKIP)

    def check(self, choices: Sequence[int]) -> Choices:
        """``choices`` as an array, if they fit.

        Raises:
            UserError: wrong number of choices, or one out of range.
        """
        if len(choices) != len(self.variables):
            raise UserError(f"{len(choices)} choices do not fit a space of {len(self.variables)} variables")
        for variable, choice in zip(self.variables, choices, strict=True):
            last = len(variable.choices) - 1
            if not isinstance(choice, (int, np.integer)) or isinstance(choice, bool) or not 0 <= choice <= last:
                raise UserError(f"variable {variable.name}: choice must be 0 to {last}, not {choice!r}")
        return np.asarray(choices, dtype=np.int64)

    def check_tasks(self, choices: Mapping[str, Sequence[int]]) -> None:
        """Check that the choices of several tasks, by task, fit each other.

        Raises:
            UserError: they do not.
        """

    def candidates(self, choices: Choices) -> NDArray[np.int64]:
        """[B, V]: the index of the candidate that each node has in architectures [B, S], or ``SKIPPED``."""
        positions = self._table_positions(choices)
        candidates: NDArray[np.int64] = self._tables[np.arange(len(self.nodes)), positions]
        return candidates

    def _table_positions(self, choices: Choices) -> NDArray[np.int64]:
        """[B, V]: the position in each node's table that architectures [B, S] select."""
        positions: NDArray[np.float32] = choices.astype(np.float32) @ self._table_steps  # whole numbers below 2**24
        return positions.astype(np.int64)

    @cached_property
    def _table_steps(self) -> NDArray[np.float32]:
        """[S, V]: by how much a variable's next choice moves on in a node's table."""
        steps = np.zeros((len(self.variables), len(self.nodes)), dtype=np.float32)
        for column, node in enumerate(self.nodes):
            step = 1
            for variable in reversed(node.variables):
                steps[variable, column] = step
                step *= self.choice_counts[variable]
        return steps

    @cached_property
    def _tables(self) -> NDArray[np.int64]:
        """[V, longest table]: the table of every node."""
        tables = np.full((len(self.nodes), max(len(node.table) for node in self.nodes)), SKIPPED, dtype=np.int64)
        for row, node in zip(tables, self.nodes, strict=True):
            row[: len(node.table)] = node.table
        return tables

    def live(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.bool_]:
        """Which nodes run.

        Args:
            choices: [B, S].
            paths: strides of the features that are read.

        Returns:
            bool [B, V]: the node is not skipped and a feature of ``paths`` depends on it.
        """
        live: NDArray[np.bool_] = self.live_candidates(choices, paths) != SKIPPED
        return live

    def live_candidates(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.int64]:
        """[B, V]: the candidate of each node that runs, ``SKIPPED`` for the others; arguments as in ``live``."""
        return self._read_and_live(choices, paths)[1]

    def needed(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.bool_]:
        """Which variables matter, given the others.

        A variable matters if it sets a node that some of its choices run, and a feature depends on this node or on the
        node's first input. So the kernel of a block that another variable skips does not matter.

        Args:
            choices: [B, S].
            paths: strides of the features that are read.

        Returns:
            bool [B, S]. A variable's own choice has no influence on its entry where it sets a single node.
        """
        read, _ = self._read_and_live(choices, paths)
        positions = self._table_positions(choices)
        needed = np.zeros(choices.shape, dtype=np.bool_)
        for column, (node, runnable) in enumerate(zip(self.nodes, self._runnable, strict=True)):
            for variable, of_variable in zip(node.variables, runnable, strict=True):
                needed[:, variable] |= read[:, column] & of_variable[positions[:, column]]
        return needed

    @cached_property
    def _runnable(self) -> tuple[tuple[NDArray[np.bool_], ...], ...]:
        """By node and variable of it, bool per position of the table: some choice of the variable runs the node."""

        def of_node(node: Node) -> Iterator[NDArray[np.bool_]]:
            runs = (
                np.array(node.table).reshape([self.choice_counts[variable] for variable in node.variables]) != SKIPPED
            )
            for axis in range(len(node.variables)):
                yield np.broadcast_to(runs.any(axis=axis, keepdims=True), runs.shape).ravel()

        return tuple(tuple(of_node(node)) for node in self.nodes)

    def affects(self, choices: Choices, paths: Iterable[int]) -> NDArray[np.bool_]:
        """Bool [B, S]: a node that the variable sets is live; arguments as in ``live``."""
        return self._by_variable(self.live(choices, paths))

    def _by_variable(self, nodes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[B, V] -> [B, S]: whether the value is true of any node that the variable sets."""
        variables = np.zeros((len(nodes), len(self.variables)), dtype=np.bool_)
        for column, node in enumerate(self.nodes):
            for variable in node.variables:
                variables[:, variable] |= nodes[:, column]
        return variables

    def _read_and_live(self, choices: Choices, paths: Iterable[int]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Bool [B, V]: a feature depends on the node's output; [B, V]: candidates of the live nodes."""
        candidates = self.candidates(choices)
        kept = np.ascontiguousarray((candidates != SKIPPED).T)  # by node: the loop below goes through the nodes
        read, live = np.zeros_like(kept), np.zeros_like(kept)
        read[list(self.end_columns(paths))] = True
        for column in reversed(range(len(self.nodes))):
            live[column] = read[column] & kept[column]
            for position, source in enumerate(self.input_columns[column]):
                read[source] |= read[column] if position == 0 else live[column]
        return read.T, np.where(live.T, candidates, SKIPPED)

    def sources(self, choices: Choices) -> NDArray[np.int64]:
        """[B, V]: for each node, the column of the node whose output it passes on; its own unless it is skipped."""
        kept = self.candidates(choices) != SKIPPED
        sources = np.tile(np.arange(len(self.nodes)), (len(choices), 1))
        for column, inputs in enumerate(self.input_columns):
            if inputs:
                sources[:, column] = np.where(kept[:, column], column, sources[:, inputs[0]])
        return sources

    @cached_property
    def input_columns(self) -> tuple[tuple[int, ...], ...]:
        """By column, the columns of a node's inputs."""
        return tuple(tuple(self._index[name] for name in node.inputs) for node in self.nodes)

    def end_columns(self, paths: Iterable[int]) -> tuple[int, ...]:
        """The columns of the nodes whose outputs are the features of these paths."""
        return tuple(self._index[self.ends[path]] for path in paths)

    @cached_property
    def _index(self) -> Mapping[str, int]:
        """Name of a node -> its column."""
        return {node.name: column for column, node in enumerate(self.nodes)}

    def graph(self, choices: Choices, paths: Mapping[str, Sequence[int]]) -> Graph:
        """The live blocks of one architecture.

        Args:
            choices: [S].
            paths: by task, the strides of the features that its head reads, in its order.
        """
        everything = sorted({path for strides in paths.values() for path in strides})
        candidates = self.candidates(choices[None])[0]
        live = self.live(choices[None], everything)[0]
        source: dict[str, str] = {}  # node -> the node whose output replaces its own after skipped nodes are removed
        running: list[tuple[Node, int]] = []
        for node, candidate, runs in zip(self.nodes, candidates.tolist(), live.tolist(), strict=True):
            if candidate == SKIPPED:
                source[node.name] = source[node.inputs[0]]
                continue
            source[node.name] = node.name
            if runs:
                running.append((node, candidate))
        inputs = {node.name: tuple(source[name] for name in node.inputs) for node, _ in running}
        features = {task: tuple(source[self.ends[path]] for path in strides) for task, strides in paths.items()}
        tasks = _tasks_of(inputs, features)
        steps = tuple(
            Step(
                name=node.name,
                node=node.name,
                candidate=candidate,
                block=node.candidates[candidate],
                inputs=inputs[node.name],
                stride=node.stride,
                stage=node.stage,
                tasks=tasks[node.name],
            )
            for node, candidate in running
        )
        return Graph(steps=steps, features=features)


def _tasks_of(inputs: dict[str, tuple[str, ...]], features: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """By step, the tasks whose features depend on it; from every step's inputs, in running order."""
    readers: dict[str, set[str]] = {name: set() for name in inputs}
    for task, names in features.items():
        for name in names:
            readers[name].add(task)
    for name in reversed(inputs):
        for source in inputs[name]:
            readers[source] |= readers[name]
    return {name: tuple(task for task in features if task in dependents) for name, dependents in readers.items()}
