"""Networks without choices: the live blocks of one architecture, alone or with a task's head.

The supernet and the derived networks run the same ``Graph`` with the same ``run_graph``; they differ only in where a
step's module comes from.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from fbnetv5.spaces.space import Choices, Graph, Space, Step
from fbnetv5.tasks.task import Task


def run_graph(graph: Graph, module_of: Callable[[Step], nn.Module], images: Tensor) -> dict[int, Tensor]:
    """Run the steps in order.

    Args:
        graph: what to run.
        module_of: gives each step's module.
        images: [N, 3, H, W], normalised.

    Returns:
        Stride of a path -> its feature [N, C, H/stride, W/stride].
    """
    values = run_steps(graph.steps, module_of, images)
    return {path: values[name] for path, name in graph.outputs.items()}


def run_steps(steps: Iterable[Step], module_of: Callable[[Step], nn.Module], images: Tensor) -> dict[str, Tensor]:
    """Run the steps in order: every step's output by its name. Arguments as in ``run_graph``."""
    values: dict[str, Tensor] = {}
    for step in steps:
        inputs = [values[name] for name in step.inputs] or [images]
        values[step.name] = module_of(step)(*inputs)
    return values


class Backbone(nn.Module):
    """The live blocks of one architecture: [N, 3, H, W] -> one feature per path, finest first."""

    def __init__(self, space: Space, choices: Choices, paths: Sequence[int]) -> None:
        super().__init__()
        self.space = space
        self.graph = space.graph(choices, paths)
        self.paths = tuple(paths)
        self.channels = tuple(space.widths[path] for path in paths)
        self.blocks = nn.ModuleDict({step.name: step.block.build() for step in self.graph.steps})

    def forward(self, images: Tensor) -> list[Tensor]:
        features = run_graph(self.graph, lambda step: self.blocks[step.name], images)
        return [features[path] for path in self.paths]


class TaskNetwork(nn.Module):
    """A derived network as it is deployed: normalised images [N, 3, H, W] -> the task's deployable outputs."""

    def __init__(self, task: Task, space: Space, choices: Choices) -> None:
        super().__init__()
        self.task = task
        self.backbone = Backbone(space, choices, task.paths)
        self.head = task.build_head(self.backbone.channels)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.task.deploy(self.head(self.backbone(images)))


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
