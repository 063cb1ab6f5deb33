from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from export.runners import Array, OrtRunner, TensorSpec, TorchRunner

LINEAR = nn.Linear(4, 2)
CONTENT = to_onnx_bytes(LINEAR, (torch.ones(1, 4),), input_names=["x"], output_names=["y"])
X = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
WANTED = X @ LINEAR.weight.detach().numpy().T + LINEAR.bias.detach().numpy()


def test_torch_and_onnx_runtime_both_compute_the_layer() -> None:
    for runner in (TorchRunner(LINEAR, ["x"], ["y"]), OrtRunner(CONTENT), OrtRunner(CONTENT, threads=2)):
        outputs = runner({"x": X})
        assert list(outputs) == ["y"]
        np.testing.assert_allclose(outputs["y"], WANTED, atol=1e-6)


def test_inputs_and_outputs_are_described() -> None:
    runner = OrtRunner(CONTENT)
    assert runner.inputs == (TensorSpec(name="x", shape=("batch", 4), dtype="float32"),)
    assert runner.outputs == (TensorSpec(name="y", shape=("batch", 2), dtype="float32"),)


def test_a_bound_call_runs_again_and_again() -> None:
    run = OrtRunner(CONTENT).bound({"x": X})
    run()
    run()


def test_a_module_that_overwrites_its_input_does_not_reach_the_caller() -> None:
    x = np.full((1, 2), -1.0, dtype=np.float32)
    assert TorchRunner(nn.ReLU(inplace=True), ["x"], ["y"])({"x": x})["y"].max() == 0.0
    assert x.max() == -1.0


def test_a_torch_module_runs_in_eval_mode() -> None:
    ones = np.ones((1, 100), dtype=np.float32)
    assert TorchRunner(nn.Dropout(0.5), ["x"], ["y"])({"x": ones})["y"].min() == 1.0


@pytest.mark.parametrize("content", [b"", b"not a graph", CONTENT[: len(CONTENT) // 2]])
def test_a_damaged_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"ONNX Runtime refuses .*model\.onnx"):
        OrtRunner(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.onnx: No such file"):
        OrtRunner(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "inputs", [{}, {"z": X}, {"x": X[:, :3]}, {"x": X.astype(np.float64)}], ids=["none", "name", "shape", "type"]
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Array]) -> None:
    runner = OrtRunner(CONTENT)
    with pytest.raises(UserError, match="refuses these inputs"):
        runner(inputs)
    with pytest.raises(UserError, match="refuses these inputs"):
        runner.bound(inputs)
