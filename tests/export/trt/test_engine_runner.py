import json
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export import cuda
from export.cuda import CudaDriver
from export.errors import UnavailableError, UserError, VerificationError
from export.precision import at_precision
from export.runners import Array, OrtRunner, Runner, TensorSpec
from export.subprocesses import SubprocessFailedError
from export.trt import bindings
from export.trt import engine_runner as module
from export.trt.engine import ShapeRange, build_engine
from export.trt.engine_runner import EngineRunner, open_engine
from export.trt.loaded_engine import LoadedEngine
from tests.export.fake_cuda import FakeCuda, FakeTensorRT, fake_memory
from tests.export.trt.test_engine import SHAPES, graph
from tests.tensorrt_marks import with_tensorrt

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """This machine, with two GPUs, TensorRT, and engines that double a batch of 1 to 4."""
    library = FakeCuda()
    monkeypatch.setattr(cuda, "load_driver", lambda: library)
    monkeypatch.setattr(bindings, "find_variant", lambda: SimpleNamespace(name="tensorrt", version="10.13"))
    monkeypatch.setattr(module, "run_in_subprocess", lambda *_, **__: "10.13")
    monkeypatch.setattr(module, "open_memory", lambda _: fake_memory())
    monkeypatch.setattr(module, "EngineLoader", lambda *_, **__: FakeTensorRT(library, shape=(-1, 3)))
    module._check_runtime.cache_clear()
    return library


def test_an_engine_runs_as_a_runner_does(machine: FakeCuda) -> None:
    runner: Runner = open_engine(b"plan", index=1)
    assert isinstance(runner, EngineRunner)
    assert runner.gpu == "Tesla T4"
    assert runner.inputs == (TensorSpec(name="x", shape=("any", 3), dtype="float32"),)
    assert runner.outputs == (TensorSpec(name="y", shape=("any", 3), dtype="float32"),)
    for batch in (1, 4, 3):
        assert (runner({"x": X[:batch]})["y"] == X[:batch] * 2).all()


def test_half_precision_inputs_and_outputs() -> None:
    fake = FakeCuda()
    loader: Any = FakeTensorRT(fake, kind="HALF", shape=(4, 3))
    runner = EngineRunner(
        LoadedEngine(b"plan", loader=loader, driver=CudaDriver(fake), memory=fake_memory()), gpu="fake"
    )
    y = runner({"x": X})["y"]
    assert y.dtype == np.float16
    assert (y == X.astype(np.float16) * np.float16(2)).all()


def test_outputs_of_a_run_are_not_changed_by_the_next(machine: FakeCuda) -> None:
    runner = open_engine(b"plan")
    first = runner({"x": X})["y"]
    runner({"x": X + 1})
    assert (first == X * 2).all()


def test_without_a_driver_there_is_no_engine_and_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "load_driver", lambda: None)
    with pytest.raises(UnavailableError, match="no NVIDIA driver was found on this machine"):
        open_engine(b"plan")


def test_without_a_gpu_there_is_no_engine(machine: FakeCuda) -> None:
    machine.refuses["cuInit"] = 100
    with pytest.raises(UnavailableError, match="has 0 GPUs and no GPU number 0"):
        open_engine(b"plan")


def test_a_variant_that_is_not_installed_is_named(machine: FakeCuda, without_tensorrt_rtx: None) -> None:
    with pytest.raises(UnavailableError, match="tensorrt_rtx is not installed"):
        open_engine(b"plan", runtime="tensorrt_rtx")


@pytest.fixture
def without_tensorrt_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(bindings, "import_module", absent)


def test_a_runtime_that_crashes_is_an_error_and_never_created_here(
    machine: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise SubprocessFailedError(f"was ended by {signal.SIGSEGV.name}")

    monkeypatch.setattr(module, "run_in_subprocess", crash)
    with pytest.raises(UnavailableError, match="tensorrt cannot load engines here: it was ended by SIGSEGV"):
        open_engine(b"plan")


@pytest.mark.parametrize(("content", "message"), [(b"", r"e\.engine is empty"), (None, r"cannot read .*e\.engine: No")])
def test_a_file_that_is_missing_or_empty_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "e.engine"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_engine(path)


Blocks = Mapping[str, tuple[bytes, dict[str, Array]]]
KEY = "ir_k5_c24-40_e5_s2_se@56x56"


@with_tensorrt
@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "of_range"), [("fp32", 1e-4), ("fp16", 5e-3), ("int8", 5e-2)])
def test_a_built_engine_on_a_gpu_has_the_outputs_of_onnx_runtime(
    blocks: Blocks, precision: str, of_range: float, tmp_path: Path
) -> None:
    content, inputs = blocks[KEY]
    path = tmp_path / "m.onnx"
    path.write_bytes(at_precision(content, precision, inputs))
    shapes = [ShapeRange(name=name, smallest=a.shape, typical=a.shape, largest=a.shape) for name, a in inputs.items()]
    built = build_engine(path, tmp_path / "m.engine", shapes, precision=precision)
    runner = open_engine(tmp_path / "m.engine", runtime=built.runtime)
    assert built.gpu == runner.gpu
    assert json.loads(json.dumps(built.layers))
    expected = OrtRunner(content)(inputs)
    for name, output in runner(inputs).items():
        assert np.abs(expected[name] - output).max() < of_range * np.ptp(expected[name])


@with_tensorrt
@pytest.mark.gpu
def test_other_content_is_refused_with_tensorrts_reason() -> None:
    with pytest.raises(VerificationError, match="does not load the engine: "):
        open_engine(b"no engine at all" * 100)


@with_tensorrt
@pytest.mark.gpu
def test_a_built_engine_accepts_its_batch_sizes_only(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx")
    built = build_engine(path, tmp_path / "m.engine", [SHAPES])
    runner, reference = open_engine(tmp_path / "m.engine", runtime=built.runtime), OrtRunner(path)
    for batch, side in ((1, 8), (4, 32), (2, 16)):
        x = np.random.default_rng(batch).normal(size=(batch, 3, side, side)).astype(np.float32)
        np.testing.assert_allclose(runner({"x": x})["y"], reference({"x": x})["y"], atol=1e-4)
    with pytest.raises(UserError, match=r"accepts \[1, 3, 8, 8\] to \[4, 3, 32, 32\]"):
        runner({"x": np.ones((5, 3, 8, 8), np.float32)})
