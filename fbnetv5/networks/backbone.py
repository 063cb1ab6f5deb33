"""Derived networks: the live blocks of a graph, alone or with the heads of its tasks.

The supernet and the derived networks run the same ``Graph`` with the same ``run_graph``; they differ only in the source
of a step's module. A network serves one task or several.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv5.spaces.graph import Graph, Step, merge
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task


def run_graph(graph: Graph, module_of: Callable[[Step], Callable[..., Any]], images: Tensor) -> dict[str, list[Tensor]]:
    """Run the steps in order.

    Args:
        graph: the graph to run.
        module_of: returns each step's module, or a function of the same inputs.
        images: [N, 3, H, W], normalised.

    Returns:
        Task -> its features [N, C, H/stride, W/stride], in the order in which its head reads them.
    """
    values: dict[str, Tensor] = {}
    for step in graph.steps:
        inputs = [values[name] for name in step.inputs] or [images]
        values[step.name] = module_of(step)(*inputs)
    return {task: [values[name] for name in names] for task, names in graph.features.items()}


class Backbone(nn.Module):
    """The live blocks of a graph: [N, 3, H, W] -> by task, its features."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.blocks = nn.ModuleDict({step.name: step.block.build() for step in graph.steps})

    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        return run_graph(self.graph, lambda step: self.blocks[step.name], images)


class Network(nn.Module):
    """A derived network as deployed: normalised images [N, 3, H, W] -> the deployable outputs of all its tasks."""

    def __init__(self, tasks: Mapping[str, Task], graph: Graph) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.backbone = Backbone(graph)
        self.heads = nn.ModuleDict({name: task.build_head(graph.channels(name)) for name, task in tasks.items()})

    @property
    def task(self) -> Task:
        """The only task.

        Raises:
            ValueError: the network has several tasks.
        """
        (task,) = self.tasks.values()
        return task

    def raw(self, images: Tensor) -> dict[str, Any]:
        """Task -> the raw outputs of its head, which its loss reads."""
        return {name: self.heads[name](features) for name, features in self.backbone(images).items()}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.raw(images)
        return tuple(output for name, task in self.tasks.items() for output in task.deploy(raw[name]))


def task_network(task: Task, space: Space, choices: Choices) -> Network:
    """The network of one task for an architecture [S], with fresh weights."""
    return Network({task.name: task}, space.graph(choices, {task.name: task.paths}))


def merge_networks(networks: Mapping[str, Network]) -> Network:
    """Merge several networks of one task each into one network; equal blocks run once.

    Blocks are equal if they are the same block of the same node on the same inputs with the same weights and the same
    batch-norm statistics. The merged network has the modules of the networks, not copies.
    """
    graphs = {task: network.backbone.graph for task, network in networks.items()}

    def same_weights(step: Step, task: str, other: str) -> bool:
        return _equal_weights(*(networks[name].backbone.blocks[step.name] for name in (task, other)))

    graph = merge(graphs, same_weights)
    with torch.device("meta"):  # these modules are replaced below
        merged = Network({task: network.tasks[task] for task, network in networks.items()}, graph)
    for step in graph.steps:
        merged.backbone.blocks[step.name] = networks[step.tasks[0]].backbone.blocks[step.node]
    for task, network in networks.items():
        merged.heads[task] = network.heads[task]
    return merged


def _equal_weights(module: nn.Module, other: nn.Module) -> bool:
    """Whether weights and batch-norm statistics are equal bit for bit; the number of batches is not compared."""
    left, right = (
        {name: value for name, value in each.state_dict().items() if not name.endswith("num_batches_tracked")}
        for each in (module, other)
    )
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]) -> None:
    """Replace batch norm's running statistics by plain averages over ``batches``, and leave the module in eval mode.

    The inputs of a shared layer have other statistics in every architecture, so a derived network needs statistics of
    its own before it is evaluated (one-shot search, arXiv 1904.00420; universally slimmable networks, arXiv
    1903.05134).

    Args:
        module: whose batch norms are reset; a batch norm that ``forward`` does not run keeps its initial values.
        batches: normalised images [N, 3, H, W].
        forward: runs the network on them.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # in torch, None stands for a plain average
    module.train()
    try:
        for images in batches:
            forward(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
