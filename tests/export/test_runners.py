from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from export import cuda
from export.errors import UnavailableError, UserError
from export.graph import to_onnx_bytes
from export.runners import PROVIDERS, Array, OrtRunner, TensorSpec, TorchRunner

LINEAR = nn.Linear(4, 2)
CONTENT = to_onnx_bytes(LINEAR, (torch.ones(1, 4),), input_names=["x"], output_names=["y"])
X = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
EXPECTED = X @ LINEAR.weight.detach().numpy().T + LINEAR.bias.detach().numpy()


def test_torch_and_onnx_runtime_both_compute_the_layer() -> None:
    for runner in (TorchRunner(LINEAR, ["x"], ["y"]), OrtRunner(CONTENT), OrtRunner(CONTENT, threads=2)):
        outputs = runner({"x": X})
        assert list(outputs) == ["y"]
        np.testing.assert_allclose(outputs["y"], EXPECTED, atol=1e-6)


def test_inputs_and_outputs_are_described() -> None:
    runner = OrtRunner(CONTENT)
    assert runner.inputs == (TensorSpec(name="x", shape=("batch", 4), dtype="float32"),)
    assert runner.outputs == (TensorSpec(name="y", shape=("batch", 2), dtype="float32"),)


def test_a_bound_function_runs_repeatedly() -> None:
    run = OrtRunner(CONTENT).bound({"x": X})
    run()
    run()


def test_a_module_that_overwrites_its_input_does_not_change_the_callers_array() -> None:
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


def test_an_unknown_provider_is_refused() -> None:
    assert OrtRunner(CONTENT).provider == "cpu"
    with pytest.raises(UserError, match="no provider 'tpu'; known are cpu, cuda, tensorrt"):
        OrtRunner(CONTENT, provider="tpu")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_onnx_runtime_lacks_is_unavailable(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        UnavailableError, match=r"has no \w+ExecutionProvider here, only CPU.*pip install 'onnxruntime-gpu\["
    ):
        OrtRunner(CONTENT, provider=provider)


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An ONNX Runtime built for GPUs whose providers do not start; the list of requested providers."""
    requested: list[object] = []
    real = onnxruntime.InferenceSession

    def session(content: bytes, options: object, *, providers: list[object], enable_fallback: int) -> object:
        requested.append(providers)
        assert enable_fallback == 0
        return real(content, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    return requested


def test_without_a_gpu_no_session_is_opened_for_one(gpu_build: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "load_driver", lambda: None)
    with pytest.raises(UnavailableError, match="provider 'cuda' needs an NVIDIA GPU"):
        OrtRunner(CONTENT, provider="cuda")
    assert gpu_build == []


def test_a_session_that_fell_back_to_the_cpu_is_refused(
    gpu_build: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "find_gpus", lambda: ("a GPU",))
    with pytest.raises(UnavailableError, match="CUDAExecutionProvider does not start here, only CPUExecutionProvider"):
        OrtRunner(CONTENT, provider="cuda")
    assert gpu_build == [PROVIDERS["cuda"]]
    assert PROVIDERS["cuda"][0][1] == {"use_tf32": "0"}


def test_tensorrts_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:  # the words of onnxruntime-gpu 1.31.1
        raise RuntimeError("RegisterTensorRTPluginsAsCustomOps: Please install TensorRT libraries as mentioned in ...")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(cuda, "find_gpus", lambda: ("a GPU",))
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(UnavailableError, match="TensorRT's libraries are not on this machine: pip"):
        OrtRunner(CONTENT, provider="tensorrt")


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_computes_the_layer_too(provider: str) -> None:
    try:
        runner = OrtRunner(CONTENT, provider=provider)
    except UnavailableError as error:
        pytest.skip(str(error))
    np.testing.assert_allclose(runner({"x": X})["y"], EXPECTED, atol=1e-2 if provider == "tensorrt" else 1e-5)
