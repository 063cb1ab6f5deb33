"""The supernet: every candidate of every node with one shared set of weights, and a head per task.

One call runs exactly the blocks that the features of any task need under the sampled architecture, each once, whatever
the number of tasks (weight sharing as in one-shot search, arXiv 1904.00420).
"""

from collections.abc import Mapping

from torch import Tensor, nn

from fbnetv5.blocks.specs import initialise
from fbnetv5.networks.backbone import Network, run_graph, task_network
from fbnetv5.spaces.graph import Graph, Step
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks.task import Task


class Supernet(nn.Module):
    """Shared weights over a space, and one head per task."""

    def __init__(self, space: Space, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.space = space
        self.tasks = dict(tasks)
        self.blocks = nn.ModuleDict(
            {node.name: nn.ModuleList(block.build() for block in node.candidates) for node in space.nodes}
        )
        initialise(self.blocks)
        self.heads = nn.ModuleDict({name: task.build_head(space.channels(task.paths)) for name, task in tasks.items()})
        self.trunk_passes = 0
        """Number of passes of the trunk; a search step adds one."""

    def graph(self, choices: Choices) -> Graph:
        """The graph of all tasks under one architecture [S]."""
        return self.space.graph(choices, {name: task.paths for name, task in self.tasks.items()})

    def trunk(self, images: Tensor, choices: Choices) -> dict[str, list[Tensor]]:
        """Normalised images [N, 3, H, W] -> by task, its features [N, C, H/stride, W/stride]."""
        self.trunk_passes += 1
        return run_graph(self.graph(choices), self.module_of, images)

    def forward(self, images: Tensor, choices: Choices) -> dict[str, object]:
        """Raw outputs of every task's head under one architecture [S]."""
        return {name: self.heads[name](features) for name, features in self.trunk(images, choices).items()}

    def module_of(self, step: Step) -> nn.Module:
        """The shared module that runs a step."""
        candidates = self.blocks[step.node]
        assert isinstance(candidates, nn.ModuleList)
        return candidates[step.candidate]

    def derive(self, task: str, choices: Choices) -> Network:
        """The network of one task for ``choices``, with its own copy of the weights, on torch's default device."""
        network = task_network(self.tasks[task], self.space, choices)
        for step in network.backbone.graph.steps:
            network.backbone.blocks[step.name].load_state_dict(self.module_of(step).state_dict())
        network.heads[task].load_state_dict(self.heads[task].state_dict())
        return network.train(self.training)
