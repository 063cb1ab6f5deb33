"""The supernet of a branching space: a shared stem, every layer once per copy, and a head per task.

A pass runs under a routing. The soft routing mixes the outputs of all copies for every task, T * T runs of a layer, as
BMTAS does in its search (arXiv 2008.10292, section 3). The hard routing gives each task one copy per layer and runs
every distinct pair of input and copy once, at most T runs of a layer.

Shape legend: N images, L layers, T tasks and copies.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from fbnetv5.blocks.specs import initialise, last_norm
from fbnetv5.networks.backbone import Network
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.tasks.task import Task

Routing = Sequence[Sequence[int]]
"""[T][L]: the copy that each task uses in each layer."""


class BranchedSupernet(nn.Module):
    """Shared weights over the copies of all layers. All copies of a layer start with the same weights."""

    def __init__(self, space: BranchingSpace, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.space = space
        self.tasks = dict(tasks)
        self.stem = space.nodes[0].candidates[0].build()
        firsts = nn.ModuleList(node.candidates[0].build() for node in space.layers)
        initialise(self.stem)
        initialise(firsts)
        for layer in firsts:
            fix_last_norm(layer)
        self.layers = nn.ModuleList(nn.ModuleList(deepcopy(first) for _ in range(space.copies)) for first in firsts)
        self.heads = nn.ModuleDict({name: task.build_head(space.channels(task.paths)) for name, task in tasks.items()})
        self.layer_runs = 0
        """Runs of single layers so far."""

    def soft(self, images: Tensor, weights: Tensor) -> dict[str, object]:
        """Raw outputs of every task's head, each layer's output being a mixture of its copies' outputs.

        Args:
            images: normalised, [N, 3, H, W].
            weights: [L, T, T], of each copy for each task.
        """
        stem = self.stem(images)
        raw: dict[str, object] = {}
        for row, (name, task) in enumerate(self.tasks.items()):
            x = stem
            features: dict[int, Tensor] = {}
            for node, copies, of_copies in zip(self.space.layers, self._copies, weights[:, row], strict=True):
                if node.stride > max(task.paths):
                    break
                x = torch.stack([weight * copy(x) for weight, copy in zip(of_copies, copies, strict=True)]).sum(0)
                self.layer_runs += len(copies)
                features[node.stride] = x
            raw[name] = self.heads[name]([features[path] for path in task.paths])
        return raw

    def hard(self, images: Tensor, routing: Routing) -> dict[str, object]:
        """Raw outputs of every task's head when each task uses one copy per layer; equal prefixes run once."""
        outputs: dict[tuple[int, ...], Tensor] = {(): self.stem(images)}
        raw: dict[str, object] = {}
        for row, (name, task) in enumerate(self.tasks.items()):
            features: dict[int, Tensor] = {}
            for number, (node, copies) in enumerate(zip(self.space.layers, self._copies, strict=True), start=1):
                if node.stride > max(task.paths):
                    break
                prefix = tuple(routing[row][:number])
                if prefix not in outputs:
                    outputs[prefix] = copies[prefix[-1]](outputs[prefix[:-1]])
                    self.layer_runs += 1
                features[node.stride] = outputs[prefix]
            raw[name] = self.heads[name]([features[path] for path in task.paths])
        return raw

    def copy_into(self, network: Network, copies: Mapping[str, int]) -> None:
        """Copy weights and statistics into a built tree: per step of its graph, those of a copy of the layer.

        Args:
            network: of an architecture of this space and these tasks.
            copies: step -> the copy; the stem has none.
        """
        layer_of = {node.name: copies_of for node, copies_of in zip(self.space.layers, self._copies, strict=True)}
        for step in network.backbone.graph.steps:
            source = layer_of[step.node][copies[step.name]] if step.node in layer_of else self.stem
            network.backbone.blocks[step.name].load_state_dict(source.state_dict())
        for name, head in self.heads.items():
            network.heads[name].load_state_dict(head.state_dict())

    def load_encoder(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        """Copy the weights of the stem and of all layers, in order; all copies of a layer get the same.

        Scale and shift of the last norms are the same in all copies and stay fixed. BMTAS sets them to 1 and 0, which
        changes the features that the weights compute.
        """
        stem, *layers = weights
        self.stem.load_state_dict(stem)
        for copies, of_layer in zip(self._copies, layers, strict=True):
            for copy in copies:
                copy.load_state_dict(of_layer)

    @property
    def _copies(self) -> list[list[nn.Module]]:
        """By layer, its copies."""
        return [list(copies.children()) for copies in self.layers]


def fix_last_norm(block: nn.Module) -> None:
    """Keep scale 1 and shift 0 in the last batch norm of a block: no copy can hide its share in its own scale."""
    last = last_norm(block)
    nn.init.ones_(last.weight)
    nn.init.zeros_(last.bias)
    last.requires_grad_(False)
