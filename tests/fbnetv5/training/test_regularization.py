from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from fbnetv5.architecture import load_architecture
from fbnetv5.blocks.specs import Bottleneck, InvertedResidual, last_norm
from fbnetv5.data.scenes import CLASSES
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.tasks import make_tasks
from fbnetv5.training.regularization import add_dropout, add_stochastic_depth, depths_of, last_layers

SPACE = FourPathSpace(stages=2, blocks_per_path=1)
LAST_LAYERS = {
    "cls": ["pooled.classifier"],
    "det": [f"levels.{level}.{branch}.1" for level in range(3) for branch in ("classify", "locate")],
    "seg": ["classify"],
    "normals": ["classify"],
}


def network_of(task: str, space: Space = SPACE, *, full: bool = False) -> Network:
    torch.manual_seed(0)
    choices = np.array([len(variable.choices) - 1 if full else 0 for variable in space.variables])
    return task_network(make_tasks((task,), CLASSES)[task], space, choices)


@pytest.mark.parametrize("task", LAST_LAYERS)
def test_the_last_layers_are_those_of_the_raw_outputs(task: str) -> None:
    network = network_of(task)
    before = deepcopy(network.state_dict())
    names = {module: name for name, module in network.heads[task].named_modules()}
    assert [names[layer] for layer in last_layers(network)] == LAST_LAYERS[task]
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_the_last_layers_of_a_tree_are_those_of_all_heads(branched: Path) -> None:
    network = load_architecture(branched).build()
    names = {module: name for name, module in network.heads.named_modules()}
    expected = [f"{task}.{layer}" for task in ("cls", "det", "seg") for layer in LAST_LAYERS[task]]
    assert [names[layer] for layer in last_layers(network)] == expected


def test_dropout_keeps_the_expectation_of_the_logits() -> None:
    network = network_of("cls")
    classifier = network.heads["cls"].get_submodule("pooled.classifier")
    x = torch.rand(1, 1984)
    expected = classifier(x)
    add_dropout(network, 0.4)
    torch.manual_seed(1)
    dropped = classifier(x.expand(4000, -1))
    torch.testing.assert_close(dropped.mean(0), expected[0], atol=0.06, rtol=0)
    assert dropped.std(0).min() > 0.1
    assert torch.equal(classifier.eval()(x), expected)


def test_dropout_before_a_convolution_drops_whole_channels() -> None:
    network = network_of("seg")
    layer = network.heads["seg"].get_submodule("classify")
    assert isinstance(layer, nn.Conv2d)
    nn.init.dirac_(layer.weight)
    add_dropout(network, 0.25)
    torch.manual_seed(1)
    kept = layer(torch.ones(500, 64, 3, 3))
    assert layer.bias is not None
    kept = (kept - layer.bias[:, None, None]).flatten(2)
    assert bool((kept.amax(2) == kept.amin(2)).all())
    assert sorted(set(kept[:, :, 0].flatten().tolist())) == pytest.approx([0.0, 1 / 0.75], abs=1e-5)
    assert float((kept[:, :, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)


REGULARIZERS: dict[str, Callable[[Network, float], None]] = {
    "dropout": add_dropout,
    "stochastic depth": add_stochastic_depth,
}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_changes_neither_weights_nor_the_deployed_network(name: str) -> None:
    network, images = network_of("det", BranchingSpace(width=0.25)), torch.randn(2, 3, 32, 32)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    plain = deepcopy(network)
    REGULARIZERS[name](network, 0.5)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert [type(module) for module in network.modules()] == [type(module) for module in plain.modules()]
    assert changes(network, plain, images)
    plain.eval().load_state_dict(network.eval().state_dict())  # batch-norm statistics
    assert not changes(network, plain, images)
    with torch.no_grad():
        assert make_fx(network)(images).code == make_fx(plain)(images).code


def changes(network: Network, other: Network, images: Tensor) -> bool:
    outputs = [model(images) for model in (network, other)]
    return not all(torch.equal(*pair) for pair in zip(*outputs, strict=True))


def hooked(network: Network) -> dict[str, float]:
    """By block, the drop rate of its hook."""
    hooks = {name: block.get_submodule("project")._forward_hooks for name, block in network.backbone.blocks.items()
             if hasattr(block, "project")}  # fmt: skip
    return {
        name: cast("partial[Any]", next(iter(of_block.values()))).args[0]
        for name, of_block in hooks.items()
        if of_block
    }


def test_stochastic_depth_keeps_the_expectation_of_a_block() -> None:
    network = network_of("cls", full=True)
    add_stochastic_depth(network, 0.5)
    name, rate = max(hooked(network).items(), key=lambda item: item[1])
    block = network.backbone.blocks[name].eval()
    norm = last_norm(block)
    nn.init.ones_(norm.weight)
    x = torch.randn(1, norm.num_features, 2, 2)
    with torch.no_grad():
        whole = block(x)
        block.get_submodule("project").training = True  # its batch norm remains in eval mode
        torch.manual_seed(0)
        outputs = block(x.expand(4000, -1, -1, -1))
    skipped = (outputs == x).flatten(1).all(1)
    assert float(skipped.float().mean()) == pytest.approx(rate, abs=0.03)
    torch.testing.assert_close(outputs[~skipped][0], (x + (whole - x) / (1 - rate))[0])
    torch.testing.assert_close(outputs.mean(0), whole[0], atol=0.05 * float((whole - x).abs().max()) + 1e-6, rtol=0)


@pytest.mark.parametrize(
    "space", [SPACE, BranchingSpace(width=0.25), BranchingSpace(encoder="resnet50", width=0.25)], ids=lambda s: s.label
)
def test_only_blocks_that_keep_the_shape_are_dropped(space: Space) -> None:
    network = network_of("cls", space, full=True)
    steps = {step.name: step.block for step in network.backbone.graph.steps}
    add_stochastic_depth(network, 0.4)
    residual = {
        name
        for name, block in steps.items()
        if isinstance(block, InvertedResidual | Bottleneck)
        and block.stride == 1
        and block.in_channels == block.out_channels
    }
    assert hooked(network).keys() == residual != set()


def test_the_rate_rises_linearly_with_the_longest_way_from_the_image() -> None:
    network = network_of("seg", full=True)
    graph = network.backbone.graph
    inputs = {step.name: step.inputs for step in graph.steps}

    def ways(name: str) -> list[int]:
        return [way + 1 for other in inputs[name] for way in ways(other)] or [0]

    depths = {step.name: max(ways(step.name)) for step in graph.steps if step.name in list(inputs)[:12]}
    assert {name: depth for name, depth in depths_of(graph).items() if name in depths} == depths
    add_stochastic_depth(network, 0.3)
    deepest = max(depths_of(graph).values())
    for name, rate in hooked(network).items():
        assert rate == pytest.approx(0.3 * depths_of(graph)[name] / deepest)
