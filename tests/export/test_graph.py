import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import UserError, VerificationError
from export.graph import EXPORTERS, Exporter, to_onnx, to_onnx_bytes
from export.runners import OrtRunner


class Net(nn.Module):
    """Two convolutions and a batch norm with random statistics, so that biases differ."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(inplace=True), nn.Conv2d(8, 8, 1)
        )
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
                nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class Pair(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, a - b


class Unused(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * 2


class Inverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.linalg.inv(x)
        return y


IMAGE = (torch.randn(1, 3, 16, 16),)


def test_batch_norm_is_folded_and_the_graph_computes_the_same(tmp_path: Path) -> None:
    net, path = Net(), tmp_path / "net.onnx"
    to_onnx(net, IMAGE, path, input_names=["image"], output_names=["map"], dynamic_size=True)
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Conv", "HardSwish", "Conv"]
    x = torch.randn(3, 3, 24, 20)
    (map_,) = OrtRunner(path)({"image": x.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(map_, net.eval()(x).numpy(), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_equal_weights_are_not_read_through_identity_nodes() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    content = to_onnx_bytes(net, IMAGE, input_names=["image"], output_names=["map"])
    assert [node.op_type for node in onnx.load_from_string(content).graph.node] == ["Conv", "Conv"]
    # Each layer sums 3 channels of ones and adds 1: 3 + 1 = 4, then 12 + 1 = 13.
    assert np.all(OrtRunner(content)({"image": np.ones((1, 3, 16, 16), np.float32)})["map"] == 13)


@pytest.mark.parametrize(
    ("batch", "size", "shape"),
    [
        (False, False, (1, 3, 16, 16)),
        (True, False, ("batch", 3, 16, 16)),
        (True, True, ("batch", 3, "height", "width")),
    ],
)
def test_axes_are_dynamic_as_requested(batch: bool, size: bool, shape: tuple[int | str, ...]) -> None:
    content = to_onnx_bytes(
        Net(), IMAGE, input_names=["image"], output_names=["map"], dynamic_batch=batch, dynamic_size=size
    )
    runner = OrtRunner(content)
    assert runner.inputs[0].shape == shape
    assert runner.outputs[0].shape[0] == shape[0]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_axes_of_different_sizes_have_different_names(exporter: Exporter) -> None:
    class Resized(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return a + c + functional.interpolate(b, scale_factor=(2.0, 1.0))

    inputs = (torch.ones(2, 3, 8, 6), torch.ones(2, 3, 4, 6), torch.ones(2, 3, 8, 6))
    content = to_onnx_bytes(
        Resized(), inputs, input_names="abc", output_names="y", dynamic_size=True, exporter=exporter
    )
    shapes = [spec.shape for spec in OrtRunner(content).inputs]
    assert shapes == [
        ("batch", 3, "height", "width"),
        ("batch", 3, "b_height", "width"),
        ("batch", 3, "height", "width"),
    ]


def test_an_unknown_exporter_is_refused() -> None:
    with pytest.raises(UserError, match="there is no exporter 'jax'; known are torchscript, dynamo"):
        to_onnx_bytes(Net(), IMAGE, input_names=["image"], output_names=["map"], exporter="jax")  # type: ignore[arg-type]


def test_the_graph_has_the_requested_opset() -> None:
    content = to_onnx_bytes(Net(), IMAGE, input_names=["image"], output_names=["map"], opset=18)
    assert [entry.version for entry in onnx.load_from_string(content).opset_import] == [18]


def test_training_flags_are_restored() -> None:
    net = Net().train()
    net.body[1].eval()
    before = [child.training for child in net.modules()]
    to_onnx_bytes(net, IMAGE, input_names=["image"], output_names=["map"])
    assert [child.training for child in net.modules()] == before


def test_export_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_onnx_bytes(Net(), IMAGE, input_names=["image"], output_names=["map"])


@pytest.mark.parametrize(
    ("module", "inputs", "outputs", "message"),
    [
        (Unused(), ["a", "b"], ["y"], r"has inputs \['a'\], not \['a', 'b'\]"),
        (Pair(), ["a", "b"], ["y"], r"has outputs \['y', '\d+'\], not \['y'\]"),
        (Pair(), ["a", "b"], ["y", "z", "extra"], "Pair cannot be exported"),
    ],
    ids=["unused input", "too few outputs named", "too many outputs named"],
)
def test_wrong_numbers_of_names_are_refused(
    module: nn.Module, inputs: list[str], outputs: list[str], message: str
) -> None:
    with pytest.raises(VerificationError, match=message):
        to_onnx_bytes(module, (torch.ones(1, 2), torch.ones(1, 2)), input_names=inputs, output_names=outputs)


def test_a_module_that_cannot_be_exported_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"^Inverse cannot be exported to ONNX: .+$"):
        to_onnx(Inverse(), (torch.eye(2)[None],), tmp_path / "a.onnx", input_names=["x"], output_names=["y"])
    assert list(tmp_path.iterdir()) == []
