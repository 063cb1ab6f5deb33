"""The supernet: every candidate of every node with one shared set of weights, and a head per task.

One call runs exactly the blocks that the features of any task need under the sampled architecture, each once, whatever
the number of tasks (weight sharing as in one-shot search, arXiv 1904.00420). At a node with a whole block, all
candidates use slices of its weights. So does a head on features that are narrower than the widest of the space.

Blocks can be compiled one by one (regional compilation,
https://docs.pytorch.org/tutorials/recipes/regional_compilation.html). The trunk as a whole runs another graph in every
step, but its blocks have few distinct structures, and blocks of one structure and size share their compiled code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from fbnetv5.blocks.slicing import SlicedModule, sliced
from fbnetv5.blocks.specs import Block, initialise
from fbnetv5.networks.backbone import Network, run_graph, task_network
from fbnetv5.networks.shared_blocks import SharedBlocks
from fbnetv5.spaces.graph import Graph, Step
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task

Widths = tuple[int, ...]
"""Of the features that a head reads."""

MAX_COMPILATIONS = 256
"""Compiled versions of blocks: one per structure, image size and batch size; torch's own limit of 8 is too low."""


class Supernet(nn.Module):
    """Shared weights over a space, and one head per task."""

    def __init__(self, space: Space, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.space = space
        self.tasks = dict(tasks)
        self.blocks = nn.ModuleDict(
            {node.name: nn.ModuleList(block.build() for block in node.stored) for node in space.nodes}
        )
        initialise(self.blocks)
        self._whole = frozenset(node.name for node in space.nodes if node.whole is not None)
        self._slices: dict[Block | tuple[str, Widths], SlicedModule] = {}
        self._head_widths = {name: space.channels(task.paths) for name, task in tasks.items()}
        self.heads = nn.ModuleDict({name: task.build_head(self._head_widths[name]) for name, task in tasks.items()})
        self.trunk_passes = 0
        """Number of passes of the trunk; a search step adds one."""
        self._has_compiled_blocks = False

    def compile_blocks(self) -> None:
        """Compile each block by itself when it first runs with gradients; names of weights do not change.

        Passes without gradients use the blocks as they are: they would need compiled versions of their own.
        """
        self._has_compiled_blocks = True
        for candidates in self.blocks.values():
            for block in candidates.children():
                block.compile(dynamic=False)  # block by block, sizes differ: torch would take them for dynamic

    def copy(self) -> Self:
        """A supernet with the same weights and batch-norm statistics of its own, which runs its blocks as they are."""
        weights = {id(weight): weight for weight in self.parameters()}  # a deep copy takes them for copied
        copied = deepcopy(self, weights)
        copied._has_compiled_blocks = False
        return copied

    def graph(self, choices: Choices, tasks: Iterable[str] | None = None) -> Graph:
        """The graph of all tasks, or of these alone, under one architecture [S]."""
        names = self.tasks if tasks is None else tasks
        return self.space.graph(choices, {name: self.tasks[name].paths for name in names})

    def trunk(
        self,
        images: Tensor,
        choices: Choices,
        tasks: Iterable[str] | None = None,
        shared: SharedBlocks | None = None,
    ) -> dict[str, list[Tensor]]:
        """Normalised images [N, 3, H, W] -> by task, its features [N, C, H/stride, W/stride].

        ``shared`` runs the blocks if it is given.
        """
        self.trunk_passes += 1
        module_of = self.module_of if shared is None else shared.module_of
        with _compilation() if self._has_compiled_blocks else nullcontext():
            return run_graph(self.graph(choices, tasks), module_of, images)

    def forward(
        self,
        images: Tensor,
        choices: Choices,
        tasks: Iterable[str] | None = None,
        shared: SharedBlocks | None = None,
    ) -> dict[str, object]:
        """Raw outputs of every task's head, or of the heads of these tasks alone, under one architecture [S]."""
        by_task = self.trunk(images, choices, tasks, shared)
        return {name: self.head(name, features) for name, features in by_task.items()}

    def head(self, task: str, features: Sequence[Tensor]) -> object:
        """Raw outputs of a task's head."""
        head, widths = self.heads[task], tuple(feature.shape[1] for feature in features)
        return (head if widths == self._head_widths[task] else self._head_slice(task, widths).bound(head))(features)

    def module_of(self, step: Step) -> Callable[..., Any]:
        """The shared module that runs a step, or its slice."""
        module = self._stored(step)
        return self._block_slice(step.block).bound(module) if step.node in self._whole else module

    def state_of(self, step: Step) -> Mapping[str, Tensor]:
        """The state dict of a step's block, which shares memory with that of the supernet."""
        module = self._stored(step)
        return self._block_slice(step.block).state(module) if step.node in self._whole else module.state_dict()

    def load_blocks(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy state dicts of blocks by node, where a larger block is stored into the slice that they have of it."""
        for node, state in weights.items():
            stored = self.blocks[node]
            assert isinstance(stored, nn.ModuleList)
            shapes = {name: tensor.shape for name, tensor in state.items()}
            for name, own in sliced(stored[0].state_dict(), shapes).items():
                own.copy_(state[name])

    def _stored(self, step: Step) -> nn.Module:
        stored = self.blocks[step.node]
        assert isinstance(stored, nn.ModuleList)
        return stored[0 if step.node in self._whole else step.candidate]

    def _block_slice(self, block: Block) -> SlicedModule:
        """The runner of a sliced block, made once."""
        if block not in self._slices:
            self._slices[block] = SlicedModule(block.build)
        return self._slices[block]

    def _head_slice(self, task: str, widths: Widths) -> SlicedModule:
        """The runner of a task's head on features of these widths, made once."""
        if (task, widths) not in self._slices:
            self._slices[task, widths] = SlicedModule(lambda: self.tasks[task].build_head(widths))
        return self._slices[task, widths]

    def _head_state(self, task: str, widths: Widths) -> Mapping[str, Tensor]:
        """The state dict of a task's head on features of these widths, which shares memory with the supernet's."""
        head = self.heads[task]
        return head.state_dict() if widths == self._head_widths[task] else self._head_slice(task, widths).state(head)

    def derive(self, task: str, choices: Choices) -> Network:
        """The network of one task for ``choices``, with its own copy of the weights, on torch's default device."""
        network = task_network(self.tasks[task], self.space, choices)
        graph = network.backbone.graph
        for step in graph.steps:
            network.backbone.blocks[step.name].load_state_dict(self.state_of(step))
        network.heads[task].load_state_dict(self._head_state(task, graph.channels(task)))
        return network.train(self.training)


@contextmanager
def _compilation() -> Iterator[None]:
    """Run compiled blocks in a pass with gradients, and the blocks as they are in a pass without."""
    if torch.is_grad_enabled():
        with torch._dynamo.config.patch(recompile_limit=MAX_COMPILATIONS):
            yield
    else:
        with torch.compiler.set_stance("force_eager"):
            yield
