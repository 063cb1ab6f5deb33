from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbnetv5.networks.backbone import Backbone, TaskNetwork, recalibrate, run_graph
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import make_tasks

SPACE = Space(stages=2, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
TASKS = make_tasks(("cls", "det", "seg"), CLASSES)
ANSWERS = {"cls": [(2, 3)], "det": [(2, 100, 4), (2, 100), (2, 100)], "seg": [(2, 4, 64, 96)]}


def drawn(seed: int) -> Choices:
    return np.random.default_rng(seed).integers(0, 2, size=len(SPACE.slots))


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
    backbone = Backbone(SPACE, drawn(1), paths).eval()
    features = backbone(torch.randn(2, 3, 64, 96))
    assert [feature.shape for feature in features] == [(2, SPACE.widths[p], 64 // p, 96 // p) for p in paths]
    assert backbone.channels == tuple(SPACE.widths[path] for path in paths)


def test_only_live_blocks_are_built() -> None:
    backbone = Backbone(SPACE, drawn(2), (16,))
    live = SPACE.live(drawn(2)[None], (16,))[0]
    names = {node.name for node, runs in zip(SPACE.nodes, live, strict=True) if runs}
    assert {key.split(".")[1] for key in backbone.state_dict()} == names
    assert len(names) < len(SPACE.nodes)


def test_a_graph_is_run_in_order_on_the_outputs_it_names() -> None:
    graph = SPACE.graph(SPACE.full(), (8,))
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
    found = run_graph(graph, lambda step: Recorder(step.name), torch.zeros(()))
    assert called == [step.name for step in graph.steps]
    assert {path: int(value) for path, value in found.items()} == {8: expected[graph.outputs[8]]}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_network_gives_the_deployable_outputs(name: str) -> None:
    network = TaskNetwork(TASKS[name], SPACE, drawn(3)).eval()
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
