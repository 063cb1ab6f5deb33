"""Peak activation memory of architectures: the bytes of all live tensors of a network, at the operator with the most.

It is that of the exported float32 graph for one image at the deploy resolution, head included, with its operators in
order and none in place (``latency/liveness.py``). It is no sum over blocks, so it has no price in a search: it is a
limit that candidates meet or not.

A step of a network has two kinds of live tensors. Those inside of its block, with its inputs and output, follow from
the block's own graph and from which inputs a later step reads; they are counted once per block. Those of other steps
are the outputs that a later step still reads. So the peak of thousands of architectures is a few array operations.

Shape legend: B architectures, S variables, V nodes, K most candidates of any node, P most inputs of any node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fbnetv5.blocks.specs import Block, InvertedResidual
from fbnetv5.costs.budgets import MEMORY, Budget, format_cost, format_distinct, unit_words
from fbnetv5.costs.graphs import block_graph, head_graph
from fbnetv5.costs.ranges import uniform_draws
from fbnetv5.costs.tables import CostTable
from fbnetv5.data.resolution import Resolution
from fbnetv5.spaces.graph import SKIPPED
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task
from latency.liveness import Liveness, liveness_of
from latency.profile import Graph, onnx_of

Bytes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """The peak activation memory of a task's networks, in bytes."""

    space: Space
    task: Task
    resolution: Resolution
    inside: Bytes
    """[V, K, 2^P]: peak while a node's candidate runs, without those of its inputs that a later step reads; by the set
    of these inputs, input p being bit p."""
    outputs: Bytes
    """[V, K]: of the output of a node's candidate."""

    def __call__(self, choices: Choices) -> Bytes:
        """Peak bytes of each architecture: [B, S] -> [B]."""
        peaks: Bytes = np.maximum(self.of_nodes(choices).max(axis=1), self._heads(choices))
        return peaks

    def of_nodes(self, choices: Choices) -> Bytes:
        """Peak bytes while each node runs, 0 for a node that does not: [B, S] -> [B, V]."""
        live = self.space.live_candidates(choices, self.task.paths)
        runs, columns, rows = live != SKIPPED, np.arange(live.shape[1]), np.arange(len(live))[:, None]
        read = self.space.sources(choices)
        last_read = self._last_reads(runs, read)
        outputs = np.where(runs, self.outputs[columns, np.maximum(live, 0)], 0)
        freed = np.zeros((len(live), live.shape[1] + 1), dtype=np.int64)
        np.add.at(freed, (rows, last_read), outputs)
        others = outputs.cumsum(axis=1) - outputs - freed[:, :-1].cumsum(axis=1)
        kept = np.zeros_like(live)
        for column, inputs in enumerate(self.space.input_columns):
            for position, source in enumerate(inputs):
                kept[:, column] |= (last_read[rows[:, 0], read[:, source]] > column).astype(np.int64) << position
        inside = self.inside[columns, np.maximum(live, 0), kept]
        return np.where(runs, others + inside, 0)

    def _last_reads(self, runs: NDArray[np.bool_], sources: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B, V]: the last column that reads each node's output, V for the head; arguments [B, V]."""
        last_read = np.zeros(runs.shape, dtype=np.int64)
        for column, inputs in enumerate(self.space.input_columns):
            (rows,) = np.nonzero(runs[:, column])
            for source in inputs:
                last_read[rows, sources[rows, source]] = column
        for end in self.space.end_columns(self.task.paths):
            last_read[np.arange(len(runs)), sources[:, end]] = runs.shape[1]
        return last_read

    def _heads(self, choices: Choices) -> Bytes:
        """[B]: peaks while the head runs; nothing else is live then."""
        widths, rows = np.unique(self.space.feature_widths(choices, self.task.paths), axis=0, return_inverse=True)
        graphs = [head_graph(self.task, row, self.resolution) for row in widths.tolist()]
        peaks = [_liveness(type(self.task), graph).peak_bytes() for graph in graphs]
        return np.array(peaks, dtype=np.int64)[rows.ravel()]

    def lowest(self) -> Choices:
        """[S]: the architecture of the lowest peak that a local search finds."""
        sums = CostTable(
            space=self.space, paths=self.task.paths, unit="bytes", blocks=self.inside[:, :, 0].astype(float), head=0.0
        )
        starts = np.stack([self.space.empty(), sums.min_cost_architecture()])
        best: Choices = starts[self(starts).argmin()]
        while True:
            near = _changed(best, self.space.choice_counts)
            peaks = self(near)
            if peaks.min() >= self(best[None])[0]:
                return best
            best = near[peaks.argmin()]


def _changed(architecture: Choices, counts: Sequence[int]) -> Choices:
    """[B, S]: the architecture with every other choice of each variable."""
    rows = [
        np.where(np.arange(len(counts)) == variable, choice, architecture)
        for variable, count in enumerate(counts)
        for choice in range(count)
    ]
    return np.stack(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimit:
    """The limit of the peak activation memory of a task's networks."""

    budget: Budget
    peak: PeakMemory

    def ratio(self, choices: Choices) -> NDArray[np.float64]:
        """Peak as a share of the limit: [B, S] -> [B]."""
        ratio: NDArray[np.float64] = self.peak(choices) / self.budget.limit
        return ratio

    @property
    def text(self) -> str:
        """The limit in words, such as "8.00 MB of activations"."""
        return f"{format_cost(self.budget.limit, MEMORY)}{unit_words(MEMORY)}"

    @property
    def range_text(self) -> str:
        """The peaks of the space's networks in words: the lowest that is found, and the highest of random ones."""
        drawn = uniform_draws(self.peak.space)
        low = int(self.peak(self.peak.lowest()[None])[0])
        high = max(int(self.peak(drawn).max()), int(self.peak(self.peak.space.full()[None])[0]))
        if low == high:
            every = f"every network of this space that was tried has a peak of {format_cost(low, MEMORY)}"
            return f"{every}{unit_words(MEMORY)}: --memory does not choose between them"
        low_text, high_text = format_distinct((low, high), MEMORY)
        return f"networks of this space have a peak of {low_text} to {high_text}{unit_words(MEMORY)}"


def memory_limit(space: Space, task: Task, budgets: Sequence[Budget]) -> MemoryLimit | None:
    """The limit of memory among the budgets of a task; None if there is none.

    Raises:
        VerificationError: a block cannot be exported.
    """
    for budget in budgets:
        if budget.unit == MEMORY:
            return MemoryLimit(budget=budget, peak=peak_memory(space, task, budget.resolution))
    return None


_LIVENESS: dict[tuple[type, str], Liveness] = {}
"""By class of the block or task and by table key, each counted once in a process."""


def _liveness(kind: type, graph: Graph) -> Liveness:
    if (key := (kind, graph.key)) not in _LIVENESS:
        _LIVENESS[key] = liveness_of(onnx_of(graph)[0])
    return _LIVENESS[key]


def peak_memory(space: Space, task: Task, resolution: Resolution) -> PeakMemory:
    """The peak activation memory of a task's networks in a space at a resolution.

    Raises:
        VerificationError: a block cannot be exported.
    """
    candidates = max(len(node.candidates) for node in space.nodes)
    sets = 2 ** max(len(node.inputs) for node in space.nodes)
    inside = np.zeros((len(space.nodes), candidates, sets), dtype=np.int64)
    outputs = np.zeros((len(space.nodes), candidates), dtype=np.int64)
    for row, node in enumerate(space.nodes):
        for column, block in enumerate(node.candidates):
            liveness = _liveness(type(block), block_graph(_small(block), node.stride, resolution))
            outputs[row, column] = sum(liveness.activations[name].bytes for name in liveness.outputs)
            for number in range(2 ** len(node.inputs)):
                kept = [f"input{position}" for position in range(len(node.inputs)) if number >> position & 1]
                counted_elsewhere = sum(liveness.activations[name].bytes for name in kept)
                inside[row, column, number] = liveness.peak_bytes(kept) - counted_elsewhere
    return PeakMemory(space=space, task=task, resolution=resolution, inside=inside, outputs=outputs)


def _small(block: Block) -> Block:
    """A block with activations of the same sizes and fewer weights: a kernel changes no size."""
    if isinstance(block, InvertedResidual) and block.padding is None:
        return replace(block, kernel=3)
    return block
