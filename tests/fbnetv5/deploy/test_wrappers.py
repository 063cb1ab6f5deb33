from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.graph import EXPORTERS, Exporter, to_onnx, to_onnx_bytes
from export.runners import OrtRunner
from export.trt.check import check
from export.trt.engine import ShapeRange, build_engine
from fbnetv5.costs.tables import Counter
from fbnetv5.data.preprocess import normalise
from fbnetv5.deploy.wrappers import FromPixels, measure_sharing
from fbnetv5.networks.backbone import Network, merge_networks
from fbnetv5.networks.supernet import Supernet
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices
from fbnetv5.tasks import make_tasks
from tests.tensorrt_marks import with_tensorrt

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
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
    """Every variable from ``first`` on keeps its block."""
    return (np.arange(len(SPACE.variables)) >= first).astype(np.int64)


Networks = dict[str, Network]


@pytest.fixture
def networks(supernet: Supernet) -> Networks:
    """One architecture for cls and det, and one for seg that keeps two blocks more."""
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


def test_what_is_saved_is_the_repeated_blocks(networks: Networks) -> None:
    graph, counter = merge_networks(networks).backbone.graph, Counter(SIZE)
    sharing = measure_sharing(merge_networks(networks), SIZE)
    alone = {
        task: int(counter.table(SPACE, one.task, "macs").cost_of(kept(first=1 if task == "seg" else 3)))
        for task, one in networks.items()
    }
    assert sharing.macs_separate == sum(alone.values())
    saved = sum(counter.block(step.block, step.stride).macs * (len(step.tasks) - 1) for step in graph.steps)
    assert 0 < saved == sharing.macs_separate - sharing.macs_joint
    assert sharing.saved == pytest.approx(saved / sum(alone.values()))
    assert sharing.blocks_shared == len(graph.shared)


def test_one_file_is_smaller_than_two_and_has_the_same_outputs(networks: Networks) -> None:
    del networks["seg"]
    images, joint = normalise(pixels()), merge_networks(networks)
    content = to_onnx_bytes(joint, (images,), input_names=["images"], output_names=["cls", "boxes", "scores", "labels"])
    separate = [
        to_onnx_bytes(one, (images,), input_names=["images"], output_names=one.task.output_names)
        for one in networks.values()
    ]
    assert len(content) < 0.9 * sum(map(len, separate))
    outputs = OrtRunner(content)({"images": images.numpy()})
    with torch.no_grad():
        expected = dict(zip(outputs, (output.numpy() for output in joint(images)), strict=True))
    for name in ("cls", "scores"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-4)
    # Boxes are in the order of their scores, and rounding may exchange two of nearly the same score.
    ours, theirs = (np.dstack([each["boxes"], each["labels"]]) for each in (outputs, expected))
    distances = np.abs(ours[:, :, None] - theirs[:, None]).max(-1)
    assert max(distances.min(1).max(), distances.min(2).max()) < 1e-2
