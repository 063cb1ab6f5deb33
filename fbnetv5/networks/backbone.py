"""Networks without choices: the live blocks of a graph, alone or with the heads of its tasks.

The supernet and the derived networks run the same ``Graph`` with the same ``run_graph``; they differ only in where a
step's module comes from. A network serves one task or several.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv5.spaces.graph import Graph, Step, merge
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task


def run_graph(graph: Graph, module_of: Callable[[Step], nn.Module], images: Tensor) -> dict[str, list[Tensor]]:
    """Run the steps in order.

    Args:
        graph: what to run.
        module_of: returns each step's module.
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
            ValueError: there are several.
        """
        (task,) = self.tasks.values()
        return task

    def raw(self, images: Tensor) -> dict[str, Any]:
        """By task, the raw outputs of its head, as its loss reads them."""
        return {name: self.heads[name](features) for name, features in self.backbone(images).items()}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.raw(images)
        return tuple(output for name, task in self.tasks.items() for output in task.deploy(raw[name]))


def task_network(task: Task, space: Space, choices: Choices) -> Network:
    """The network of one task for an architecture [S], with fresh weights."""
    return Network({task.name: task}, space.graph(choices, {task.name: task.paths}))


def merge_networks(networks: Mapping[str, Network]) -> Network:
    """One network for the tasks of several, each of one task; blocks that are alike run once.

    Blocks are alike if they are the same block of the same node on the same inputs with the same weights and the same
    batch-norm statistics. The modules are those of the given networks, not copies.
    """
    graphs = {task: network.backbone.graph for task, network in networks.items()}

    def same_weights(step: Step, task: str, other: str) -> bool:
        return _equal_weights(*(networks[name].backbone.blocks[step.name] for name in (task, other)))

    graph = merge(graphs, same_weights)
    with torch.device("meta"):  # the modules made here are replaced at once
        merged = Network({task: network.tasks[task] for task, network in networks.items()}, graph)
    for step in graph.steps:
        merged.backbone.blocks[step.name] = networks[step.tasks[0]].backbone.blocks[step.node]
    for task, network in networks.items():
        merged.heads[task] = network.heads[task]
    return merged


def _equal_weights(module: nn.Module, other: nn.Module) -> bool:
    """Bit for bit, batch-norm statistics included; the number of batches behind these statistics does not count."""
    ours, theirs = (
        {name: value for name, value in each.state_dict().items() if not name.endswith("num_batches_tracked")}
        for each in (module, other)
    )
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]) -> None:
    """Replace batch norm's running statistics by plain averages over ``batches``, and leave the module in eval mode.

    Shared weights see other statistics in every architecture, so a derived network needs its own before it is measured.

    Args:
        module: whose batch norms are reset; those that ``forward`` does not reach are left at their initial values.
        batches: normalised images [N, 3, H, W].
        forward: runs the network on them.
    """
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a plain average
    module.train()
    try:
        for images in batches:
            forward(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
