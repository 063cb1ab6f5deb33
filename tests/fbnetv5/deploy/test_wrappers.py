from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.errors import UnavailableError, UserError
from export.graph import EXPORTERS, Exporter, to_onnx, to_onnx_bytes
from export.runners import OrtRunner
from export.trt.bindings import find_variant
from export.trt.check import check
from export.trt.engine import ShapeRange, build_engine
from fbnetv5.costs.tables import Counter
from fbnetv5.data.preprocess import normalise
from fbnetv5.deploy.wrappers import FromPixels, JointNetwork
from fbnetv5.networks.backbone import TaskNetwork
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.tasks import make_tasks

try:
    find_variant()
    HERE = True
except UnavailableError:
    HERE = False
with_tensorrt = pytest.mark.skipif(not HERE, reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")

SPACE = Space(stages=1, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
SIZE = (64, 64)


def pixels(images: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """A supernet in eval mode whose blocks all change their input."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE, make_tasks(("cls", "det", "seg"), CLASSES))
    for norm in supernet.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    return supernet.eval()


def kept(*, first: int) -> Choices:
    """All slots from ``first`` on."""
    return (np.arange(len(SPACE.slots)) >= first).astype(np.int64)


Networks = dict[str, TaskNetwork]


@pytest.fixture
def networks(supernet: Supernet) -> Networks:
    """One architecture for cls and det, and one for seg that keeps two slots more."""
    firsts = {"cls": 3, "det": 3, "seg": 1}
    return {task: supernet.derive(task, kept(first=first)) for task, first in firsts.items()}


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_stored_images_give_the_outputs_of_normalised_images(exporter: Exporter) -> None:
    module = FromPixels(nn.Conv2d(3, 4, 3, 2, 1))
    content = to_onnx_bytes(
        module, (pixels(),), input_names=["images"], output_names=["map"], dynamic_size=True, exporter=exporter
    )
    runner, images = OrtRunner(content), pixels(3, (64, 96))
    assert (runner.inputs[0].dtype, runner.inputs[0].shape) == ("uint8", ("batch", 3, "height", "width"))
    with torch.no_grad():
        expected = module.network(normalise(images)).numpy()
    np.testing.assert_allclose(runner({"images": images.numpy()})["map"], expected, atol=1e-5)


@with_tensorrt
def test_tensorrt_accepts_stored_images(networks: Networks, tmp_path: Path) -> None:
    path = tmp_path / "cls.onnx"
    to_onnx(FromPixels(networks["cls"]), (pixels(),), path, input_names=["images"], output_names=["logits"])
    assert check(path).accepted
    shape = (1, 3, *SIZE)
    shapes = ShapeRange(name="images", smallest=shape, typical=shape, largest=(4, 3, *SIZE))
    assert build_engine(path, tmp_path / "cls.engine", [shapes]).layers["FLOAT"] > 0


@torch.no_grad()
def test_a_joint_network_has_the_outputs_of_its_networks(networks: Networks) -> None:
    images = normalise(pixels())
    joint = JointNetwork(networks)
    expected = [output for network in networks.values() for output in network(images)]
    assert joint.output_names == ("cls_logits", "det_boxes", "det_scores", "det_labels", "seg_logits")
    assert all(torch.equal(*pair) for pair in zip(joint(images), expected, strict=True))


def test_networks_separate_at_the_first_difference(networks: Networks) -> None:
    tasks_of = JointNetwork(networks).backbone.tasks_of
    part = SPACE.nodes.index(SPACE.slots[1])  # stage 0 is a chain, so all later nodes depend on the difference
    shared = {node.name for node in SPACE.nodes[:part] if node.slot is None}
    assert {name for name, tasks in tasks_of.items() if len(tasks) == 3} == shared
    assert {tasks for name, tasks in tasks_of.items() if name not in shared} == {("cls", "det"), ("det",), ("seg",)}
    assert all(name.endswith("_of_" + "_".join(tasks)) for name, tasks in tasks_of.items() if name not in shared)


@torch.no_grad()
def test_each_block_runs_once(networks: Networks) -> None:
    joint = JointNetwork(networks)
    ran: list[str] = []
    for name, block in joint.backbone.blocks.items():
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
    joint(normalise(pixels(1)))
    assert sorted(ran) == sorted(joint.backbone.blocks)
    assert len(ran) < sum(len(network.backbone.blocks) for network in networks.values())


def change_statistics(network: TaskNetwork) -> None:
    next(child for child in network.modules() if isinstance(child, nn.BatchNorm2d)).running_mean.add_(1e-3)  # type: ignore[union-attr]


def change_weight(network: TaskNetwork) -> None:
    next(child for child in network.modules() if isinstance(child, nn.Conv2d)).weight.data[0, 0, 0, 0] += 1e-3


@pytest.mark.parametrize("change", [change_statistics, change_weight])
def test_readers_of_a_different_block_are_not_shared(networks: Networks, change: Callable[[TaskNetwork], None]) -> None:
    change(networks["seg"])
    joint = JointNetwork(networks)
    assert {tasks for tasks in joint.backbone.tasks_of.values() if len(tasks) > 1} == {("cls", "det")}
    change(networks["det"])
    change(networks["det"])
    with pytest.raises(UserError, match=r"the networks of cls, det, seg share no block, .*: export them one by one"):
        JointNetwork(networks)


def test_the_number_of_batches_of_the_statistics_does_not_matter(networks: Networks) -> None:
    shared = JointNetwork(networks).backbone.shared
    for child in networks["seg"].modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.constant_(child.num_batches_tracked, 7)  # type: ignore[arg-type]
    assert JointNetwork(networks).backbone.shared == shared


def test_the_savings_are_the_repeated_blocks(networks: Networks) -> None:
    joint, counter = JointNetwork(networks), Counter(SIZE)
    sharing = joint.sharing(SIZE)
    separate = {
        task: int(counter.table(SPACE, network.task, "macs").one(kept(first=1 if task == "seg" else 3)))
        for task, network in networks.items()
    }
    assert sharing.macs_separate == sum(separate.values())
    saved = sum(
        counter.block(step.block, step.stride).macs * (len(joint.backbone.tasks_of[step.name]) - 1)
        for step in joint.backbone.steps
    )
    assert 0 < saved == sharing.macs_separate - sharing.macs_joint
    assert sharing.saved == pytest.approx(saved / sum(separate.values()))
    assert sharing.blocks_shared == len(joint.backbone.shared)


def test_one_file_is_smaller_than_two_and_has_the_same_outputs(networks: Networks) -> None:
    del networks["seg"]
    images, joint = normalise(pixels()), JointNetwork(networks)
    content = to_onnx_bytes(joint, (images,), input_names=["images"], output_names=joint.output_names)
    separate = [
        to_onnx_bytes(network, (images,), input_names=["images"], output_names=network.task.output_names)
        for network in networks.values()
    ]
    assert len(content) < 0.9 * sum(map(len, separate))
    outputs = OrtRunner(content)({"images": images.numpy()})
    with torch.no_grad():
        for array, expected in zip(outputs.values(), joint(images), strict=True):
            np.testing.assert_allclose(array, expected.numpy(), rtol=1e-4, atol=1e-4)
