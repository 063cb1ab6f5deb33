"""Dropout and stochastic depth: random changes of a network's activations that a training adds to it by hooks.

Hooks add no module and no weight, so the files of a network, its costs and its exported graphs are the same with and
without them, and so are copies of the network made before. In eval mode the hooks return None: nothing changes.

All randomness comes from torch's generators, which the loop seeds in each step.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional
from torchvision.ops import stochastic_depth

from fbnetv5.blocks.specs import residual_branch
from fbnetv5.networks.backbone import Network
from fbnetv5.spaces.graph import Graph


def add_dropout(network: Network, rate: float) -> None:
    """Let dropout change the input of the last layers of every head while the network trains.

    Before a linear layer it drops single values, as in FBNetV3's classifier (arXiv 2006.02049); before a convolution
    whole channels of an image, because neighbouring pixels of a channel are alike (Tompson et al., arXiv 1411.4280).

    Args:
        network: of any tasks.
        rate: probability of each value or channel.
    """
    for layer in last_layers(network):
        drop = functional.dropout2d if isinstance(layer, nn.Conv2d) else functional.dropout
        layer.register_forward_pre_hook(partial(_drop_input, drop, rate))


def _drop_input(drop: Callable[..., Tensor], rate: float, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
    return drop(inputs[0], rate) if layer.training else None


def add_stochastic_depth(network: Network, rate: float) -> None:
    """Let residual blocks be skipped at random while the network trains (Huang et al., arXiv 1603.09382).

    The branch of a block that adds its input unchanged is dropped for each image of a batch by itself, as in
    EfficientNet, and else divided by the probability that it is kept, so that its expectation stays the same. The
    probability of dropping rises linearly with depth (equation 4). Other blocks and fusion edges are always kept.

    Args:
        network: of any space.
        rate: probability for a block at the largest depth of the network.
    """
    depths = depths_of(network.backbone.graph)
    deepest = max(depths.values())
    for name, depth in depths.items():
        branch = residual_branch(network.backbone.blocks[name])
        if branch is not None:
            branch.register_forward_hook(partial(_drop_branch, rate * depth / deepest))


def _drop_branch(rate: float, branch: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
    return stochastic_depth(output, rate, "row") if branch.training else None


def depths_of(graph: Graph) -> dict[str, int]:
    """The depth of every step: the number of steps before it on its longest path from the image; 0 for the stem."""
    depths: dict[str, int] = {}
    for step in graph.steps:
        depths[step.name] = max((depths[name] + 1 for name in step.inputs), default=0)
    return depths


def last_layers(network: Network) -> list[nn.Module]:
    """The convolutions and linear layers of heads that no other one follows: they compute the raw outputs.

    A head may have several, such as the classes and boxes of each path of a detector. They are found in the autograd
    graph of one pass in eval mode, so that a new task has nothing to declare.
    """
    producers: dict[Node, nn.Module] = {}

    def remember(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        assert output.grad_fn is not None
        producers[output.grad_fn] = layer

    layers = [module for module in network.heads.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(remember) for layer in layers]
    training = network.training
    with torch.enable_grad():
        raw = network.eval().raw(torch.zeros(1, 3, 64, 64, device=next(network.parameters()).device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    last = {producers[node] for node in _stops(_nodes(raw), producers)}
    return [layer for layer in layers if layer in last]


def _nodes(raw: Any) -> list[Node]:
    """The autograd nodes of the tensors of raw outputs."""
    nodes: list[Node] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.grad_fn is not None:
            nodes.append(tensor.grad_fn)
        return tensor

    recursively_apply(keep, raw)
    return nodes


def _stops(nodes: list[Node], stops: dict[Node, nn.Module]) -> Iterator[Node]:
    """The nodes of ``stops`` that a walk from ``nodes`` towards the inputs meets first on every way."""
    seen: set[Node] = set()
    while nodes:
        node = nodes.pop()
        if node in stops:
            yield node
        elif node not in seen:
            seen.add(node)
            nodes += [earlier for earlier, _ in node.next_functions if earlier is not None]
