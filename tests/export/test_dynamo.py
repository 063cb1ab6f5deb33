"""The export with torch's newer exporter, of small modules and of a detector with few blocks."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import fbnetv5.spaces.fbnetv3
from export.errors import VerificationError
from export.graph import to_onnx, to_onnx_bytes
from export.parity import Gate, compare
from export.parity import check as check_parity
from export.runners import OrtRunner, TorchRunner
from export.trt.check import check
from fbnetv5.networks.backbone import Network, task_network
from fbnetv5.spaces.fbnetv3 import FBNETV3
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from tests.tensorrt_marks import with_tensorrt

CLASSES = {"label": ("a",), "boxes": ("a", "b"), "mask": ("a",)}
IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Exported = tuple[Network, bytes]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """A detector of 16 blocks with dynamic batch and size, whose scores differ enough not to tie."""
    short = replace(FBNETV3["a"], groups=tuple(replace(group, repeats=0) for group in FBNETV3["a"].groups))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fbnetv5.spaces.fbnetv3, "FBNETV3", {"a": short})
        space = FourPathSpace(stages=1, blocks_per_path=1, strict=True)
        torch.manual_seed(0)
        network = task_network(make_tasks(("det",), CLASSES)["det"], space, space.full()).eval()
    for layer in network.heads.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.weight, std=0.5)
    names = network.task.output_names
    example = torch.randn(1, 3, 64, 64)
    return network, to_onnx_bytes(
        network, (example,), input_names=["images"], output_names=names, dynamic_size=True, exporter="dynamo"
    )


def blocks(content: bytes) -> set[str]:
    """The second part of names such as "/backbone/BLOCK/expand/expand.0/Conv"."""
    names = [node.name for node in onnx.load_from_string(content).graph.node]
    assert len(set(names)) == len(names)
    return {name.split("/")[2] for name in names if name.startswith("/backbone/")}


@pytest.mark.slow
def test_a_detector_is_the_same_network_at_other_sizes(exported: Exported) -> None:
    network, content = exported
    inputs = {"images": torch.randn(3, 3, 96, 160, generator=torch.Generator().manual_seed(1)).numpy()}
    reference = TorchRunner(network, ["images"], network.task.output_names)(inputs)
    parities = compare(reference, OrtRunner(content)(inputs), rank_by="scores")
    # The head's large weights amplify rounding, and scores are nearly tied.
    check_parity(parities, Gate(max_error=1e-3, min_agreement=0.98))


def test_names_and_axes_are_as_requested(exported: Exported) -> None:
    runner = OrtRunner(exported[1])
    assert [(spec.name, spec.shape) for spec in (*runner.inputs, *runner.outputs)] == [
        ("images", ("batch", 3, "height", "width")),
        ("boxes", ("batch", 100, 4)),
        ("scores", ("batch", 100)),
        ("labels", ("batch", 100)),
    ]


def test_both_exporters_name_nodes_after_blocks(exported: Exported) -> None:
    network, content = exported
    traced = to_onnx_bytes(
        network, (torch.randn(1, 3, 64, 64),), input_names=["images"], output_names=network.task.output_names
    )
    assert blocks(content) == blocks(traced) == set(network.backbone.blocks)


def test_the_file_contains_no_folder_of_this_machine(exported: Exported) -> None:
    assert str(Path(torch.__file__).parent).encode() not in exported[1]
    assert str(Path(__file__).parents[2]).encode() not in exported[1]


@with_tensorrt
def test_tensorrt_accepts_it(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "det.onnx"
    path.write_bytes(exported[1])
    assert check(path).problems == ()


def test_one_file_is_written_without_messages(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Hardswish(inplace=True)).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_onnx(net, (IMAGE,), tmp_path / "a.onnx", input_names=["x"], output_names=["y"], exporter="dynamo")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    assert [net.training, net[2].inplace] == [True, True]
    model = onnx.load(tmp_path / "a.onnx")
    assert [node.name for node in model.graph.node] == ["/1/Conv", "/2/HardSwish"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


class Sum(nn.Module):
    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return first + sum(others)


def test_positional_arguments_may_have_dynamic_axes() -> None:
    content = to_onnx_bytes(
        Sum(), (torch.ones(2, 3),) * 3, input_names=["a", "b", "c"], output_names=["y"], exporter="dynamo"
    )
    ones = np.ones((5, 3), np.float32)
    assert np.all(OrtRunner(content)({"a": ones, "b": ones, "c": ones})["y"] == 3)


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.ones(2, 1)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fixed(), r"^Fixed cannot be exported to ONNX: .*conflicts.*: .*a static shape of 2.*$"),
        (Branch(), r"^Branch cannot be exported to ONNX: .*data-dependent.*$"),
    ],
)
def test_fixed_sizes_and_branches_are_refused(
    module: nn.Module, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(VerificationError, match=message):
        to_onnx_bytes(module, (torch.ones(2, 4),), input_names=["x"], output_names=["y"], exporter="dynamo")
    assert capfd.readouterr() == ("", "")
