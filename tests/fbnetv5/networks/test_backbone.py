from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbnetv5.networks.backbone import Backbone, Network, merge_networks, recalibrate, run_graph, task_network
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks import make_tasks

SPACE = FourPathSpace(stages=2, blocks_per_path=1)
FIRSTS = {"cls": 3, "det": 3, "seg": 1}
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
TASKS = make_tasks(("cls", "det", "seg"), CLASSES)
ANSWERS = {"cls": [(2, 3)], "det": [(2, 100, 4), (2, 100), (2, 100)], "seg": [(2, 4, 64, 96)]}


def drawn(seed: int) -> Choices:
    return np.random.default_rng(seed).integers(0, 2, size=len(SPACE.variables))


class Calibrated(nn.Module):
    """A batch norm that runs, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.BatchNorm2d(3, momentum=0.3)
        self.idle = nn.BatchNorm2d(2, momentum=0.7)
        for norm in (self.used, self.idle):
            assert norm.running_mean is not None
            norm.running_mean.fill_(100.0)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.used(images)
        return out


def norm_images(sizes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(size, 3, 4, 5) * size + size for size in sizes]


@pytest.mark.parametrize("paths", [(4, 8, 16, 32), (8, 16, 32), (32,)])
def test_features_halve_exactly_and_come_in_the_order_asked(paths: tuple[int, ...]) -> None:
    backbone = Backbone(SPACE.graph(drawn(1), {"t": paths})).eval()
    features, channels = backbone(torch.randn(2, 3, 64, 96))["t"], SPACE.channels(paths)
    assert [feature.shape for feature in features] == [
        (2, count, 64 // path, 96 // path) for count, path in zip(channels, paths, strict=True)
    ]
    assert backbone.graph.channels("t") == channels


def test_only_live_blocks_are_built() -> None:
    backbone = Backbone(SPACE.graph(drawn(2), {"t": (16,)}))
    live = SPACE.live(drawn(2)[None], (16,))[0]
    names = {node.name for node, runs in zip(SPACE.nodes, live, strict=True) if runs}
    assert {key.split(".")[1] for key in backbone.state_dict()} == names
    assert len(names) < len(SPACE.nodes)


def test_a_graph_runs_in_order_on_the_outputs_of_its_steps() -> None:
    graph = SPACE.graph(SPACE.full(), {"t": (8,)})
    called: list[str] = []

    class Recorder(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, *inputs: Tensor) -> Tensor:
            called.append(self.name)
            return torch.stack(inputs).sum(0) + 1

    expected: dict[str, int] = {}
    for step in graph.steps:
        expected[step.name] = sum(expected[name] for name in step.inputs) + 1
    features = run_graph(graph, lambda step: Recorder(step.name), torch.zeros(()))
    assert called == [step.name for step in graph.steps]
    assert [int(value) for value in features["t"]] == [expected[name] for name in graph.features["t"]]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_network_returns_the_deployable_outputs(name: str) -> None:
    network = task_network(TASKS[name], SPACE, drawn(3)).eval()
    outputs = network(torch.randn(2, 3, 64, 96))
    assert [tuple(output.shape) for output in outputs] == ANSWERS[name]
    assert len(outputs) == len(TASKS[name].output_names)


@pytest.mark.parametrize("sizes", [(4,), (4, 4, 4), (2, 7, 3)])
def test_recalibration_is_the_plain_average_of_batches(sizes: tuple[int, ...]) -> None:
    module, batches = Calibrated(), norm_images(sizes)
    recalibrate(module, batches, module)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1, unbiased=True) for batch in batches]).mean(0)
    torch.testing.assert_close(module.used.running_mean, means, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.used.running_var, variances, rtol=1e-5, atol=1e-5)


def test_recalibration_restores_momenta_and_ends_in_eval_mode() -> None:
    module = Calibrated()
    recalibrate(module, norm_images((2, 2)), module)
    assert (module.used.momentum, module.idle.momentum) == (0.3, 0.7)
    assert not any(child.training for child in module.modules())
    assert module.idle.running_mean is not None
    assert not module.idle.running_mean.any()
    assert module.used.weight.grad is None


def test_an_interrupted_recalibration_restores_momenta() -> None:
    def interrupted() -> Iterator[Tensor]:
        yield norm_images((2,))[0]
        raise KeyboardInterrupt

    module = Calibrated()
    with pytest.raises(KeyboardInterrupt):
        recalibrate(module, interrupted(), module)
    assert (module.used.momentum, module.idle.momentum) == (0.3, 0.7)


Networks = dict[str, Network]


@pytest.fixture
def networks() -> Networks:
    """One architecture for cls and det, and one for seg that keeps two blocks more; every block matters."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE, TASKS).eval()
    for norm in supernet.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    index = np.arange(len(SPACE.variables))
    return {task: supernet.derive(task, (index >= first).astype(np.int64)) for task, first in FIRSTS.items()}


@torch.no_grad()
def test_a_merged_network_returns_the_outputs_of_its_networks(networks: Networks) -> None:
    images = torch.randn(2, 3, 64, 64)
    joint = merge_networks(networks)
    expected = [output for network in networks.values() for output in network(images)]
    assert all(torch.equal(*pair) for pair in zip(joint(images), expected, strict=True))


@torch.no_grad()
def test_each_block_runs_once(networks: Networks) -> None:
    joint = merge_networks(networks)
    ran: list[str] = []
    for name, block in joint.backbone.blocks.items():
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
    joint(torch.randn(1, 3, 64, 64))
    assert sorted(ran) == sorted(joint.backbone.blocks)
    assert len(ran) < sum(len(network.backbone.blocks) for network in networks.values())


def change_statistics(network: Network) -> None:
    next(child for child in network.modules() if isinstance(child, nn.BatchNorm2d)).running_mean.add_(1e-3)  # type: ignore[union-attr]


def change_weight(network: Network) -> None:
    next(child for child in network.modules() if isinstance(child, nn.Conv2d)).weight.data[0, 0, 0, 0] += 1e-3


@pytest.mark.parametrize("change", [change_statistics, change_weight])
def test_blocks_after_an_unequal_block_are_not_shared(networks: Networks, change: Callable[[Network], None]) -> None:
    change(networks["seg"])
    joint = merge_networks(networks)
    assert {step.tasks for step in joint.backbone.graph.shared} == {("cls", "det")}
    change(networks["det"])
    change(networks["det"])
    assert not merge_networks(networks).backbone.graph.shared


def test_the_number_of_batches_does_not_make_blocks_unequal(networks: Networks) -> None:
    shared = merge_networks(networks).backbone.graph.shared
    for child in networks["seg"].modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.constant_(child.num_batches_tracked, 7)  # type: ignore[arg-type]
    assert merge_networks(networks).backbone.graph.shared == shared
