import gc
import json
import platform
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pytest

from export.cuda import CudaDriver, GpuInfo, load_driver
from export.errors import UnavailableError, UserError, VerificationError
from export.precision import at_precision
from export.runners import Array, OrtRunner
from latency.clocks import ClockWatch
from latency.runtimes.gpu import GpuParts
from latency.runtimes.tensorrt import TensorRTBackend, open_tensorrt
from tests.export.fake_cuda import FakeCuda, FakeTensorRT, fake_memory
from tests.latency.fake_nvml import FakeNvml
from tests.tensorrt_marks import with_tensorrt

A100 = GpuInfo(name="NVIDIA A100-SXM4-40GB", compute_capability=(8, 0), memory_mb=40960)
X = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def backend(
    cuda: FakeCuda, freed: list[int] | None = None, *, precision: str = "fp32", **tensorrt: Any
) -> TensorRTBackend:
    """An A100 whose engines double their input, in 5 ms plainly and in 2 ms as a graph."""
    builder: Any = FakeTensorRT(cuda, **{"kind": "HALF" if precision == "fp16" else "FLOAT", **tensorrt})
    nvml = FakeNvml(answers={"nvmlDeviceGetHandleByPciBusId": "gpu", "nvmlDeviceGetMaxClockInfo": 1410})
    parts = GpuParts(
        device="a100",
        precision=precision,
        index=0,
        gpu=A100,
        driver=CudaDriver(cuda),
        clocks=ClockWatch(nvml, "0000:3B:00.0"),
    )
    return TensorRTBackend(parts, memory=fake_memory(freed), builder=builder)


def test_the_fingerprint_has_gpu_driver_and_runtime() -> None:
    timer = backend(FakeCuda())
    assert (timer.device, timer.precision, timer.threads) == ("a100", "fp32", 1)
    assert timer.fingerprint() == {
        "device_name": "NVIDIA A100-SXM4-40GB",
        "compute_capability": "8.0",
        "driver_cuda_version": "13.2",
        "runtime": "tensorrt",
        "runtime_version": "10.13",
        "os": platform.system(),
        "arch": platform.machine(),
    }


def test_a_graph_is_run_once_then_captured_then_launched_between_two_events() -> None:
    cuda = FakeCuda()
    (timed,) = backend(cuda).engines(b"graph", {"x": X})
    assert cuda.now_ms == 5  # the first run was a plain one
    assert timed(3) == 2.0
    assert cuda.now_ms == 5 + 3 * 2
    opened = ["cuMemcpyHtoD_v2", "cuCtxSynchronize", "cuCtxSynchronize"]
    captured = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy"]
    captured += ["cuEventCreate", "cuEventCreate"]
    run = ["cuEventRecord", *["cuGraphLaunch"] * 3, "cuEventRecord", "cuEventQuery", "cuEventQuery"]
    assert cuda.calls == [*opened, *captured, *run, "cuEventElapsedTime"]


def test_a_graph_that_cannot_be_captured_runs_without_a_cuda_graph_and_is_reported() -> None:
    timer = backend(FakeCuda(capturable=False))
    (timed,) = timer.engines(b"graph", {"x": X})
    assert timed(2) == 5.0
    (reason,) = timer.conditions()["without_cuda_graph"].values()
    assert reason == "TensorRT cannot enqueue the engine: capture of a forbidden call"


def test_a_graph_that_the_driver_does_not_instantiate_is_reported_too() -> None:
    timer = backend(FakeCuda(refuses={"cuGraphInstantiateWithFlags": 2}))
    assert timer.open(b"graph", {"x": X})(2) == 5.0
    (reason,) = timer.conditions()["without_cuda_graph"].values()
    assert "refuses cuGraphInstantiateWithFlags: CUDA_ERROR_OUT_OF_MEMORY" in reason


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
def test_inputs_are_cast_to_the_types_of_the_graph_and_outputs_are_returned(precision: str, dtype: type) -> None:
    (timed,) = backend(FakeCuda(), precision=precision).engines(b"graph", {"x": X})
    (y,) = timed.outputs().values()
    assert y.dtype == dtype
    assert (y == X.astype(dtype) * dtype(2)).all()


def test_copies_of_a_graph_are_built_once_and_alternate() -> None:
    cuda = FakeCuda()
    timer = backend(cuda)
    timer.open(b"graph", {"x": X}, copies=3)(4)
    assert timer.conditions()["engines"] == 1
    launched = [call for call in cuda.calls if call in ("cuGraphLaunch", "cuEventElapsedTime")]
    assert launched == ["cuGraphLaunch", "cuEventElapsedTime"] * 4
    assert cuda.calls.count("cuStreamBeginCapture_v2") == 3


def test_conditions_contain_every_engine_and_the_clock() -> None:
    timer = backend(FakeCuda())
    for content in (b"one", b"two"):
        timer.open(content, {"x": X})(2)
    conditions = timer.conditions()
    assert json.loads(json.dumps(conditions)) == conditions
    assert conditions["clocks"]["locked_mhz"] == 1410
    assert conditions["memory_provider"] == "fake"
    assert conditions["engines"] == 2
    assert conditions["layer_types"] == {"FLOAT": 6}
    assert conditions["without_cuda_graph"] == {}
    assert conditions["starved_by_cpu"] == []  # the fake's milliseconds pass in microseconds


def test_a_gpu_that_waits_for_the_cpu_is_reported() -> None:
    cuda = FakeCuda()
    timer = backend(cuda)
    (timed,) = timer.engines(b"graph", {"x": X})
    cuda.refuses["cuGraphLaunch"] = 0  # a success that takes the GPU no time
    timed(1)
    assert len(timer.conditions()["starved_by_cpu"]) == 1


REFUSED: dict[str, tuple[bytes, dict[str, Array], dict[str, Any], type[Exception], str]] = {
    "a graph": (b"refused", {"x": X}, {}, VerificationError, "tensorrt's parser refuses the ONNX graph: Conv 'c': why"),
    "a name": (b"graph", {"z": X}, {}, UserError, r"has inputs \['x'\], and arrays were given for \['z'\]"),
    "a shape": (b"graph", {"x": X[:1]}, {}, UserError, r"'x' accepts \[2, 3\], and the array is \[1, 3\]"),
    "a kind": (b"graph", {"x": X.astype(complex)}, {}, UserError, "'x' accepts float32, and the array is complex128"),
}


@pytest.mark.parametrize(("content", "inputs", "tensorrt", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_graphs_and_inputs_that_cannot_be_timed_are_refused(
    content: bytes, inputs: dict[str, Array], tensorrt: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        backend(FakeCuda(), **tensorrt).open(content, inputs)


def test_an_engine_releases_everything_when_it_is_deleted() -> None:
    freed: list[int] = []
    cuda = FakeCuda()
    timer = backend(cuda, freed)
    (timed,) = timer.engines(b"graph", {"x": X})
    gc.disable()
    try:
        del timed
    finally:
        gc.enable()
    assert len(freed) == 2
    assert cuda.calls.count("cuEventDestroy_v2") == 2
    assert cuda.calls.count("cuGraphExecDestroy") == 1
    assert timer.conditions()["engines"] == 1


def test_the_clock_is_released_at_the_end_of_a_with() -> None:
    with backend(FakeCuda()) as timer:
        nvml: Any = timer._clocks._nvml
        assert not nvml.called("nvmlDeviceResetGpuLockedClocks")
    assert nvml.called("nvmlDeviceResetGpuLockedClocks") == [["gpu"]]


@pytest.mark.parametrize(("precision", "kind", "right"), [("int8", "FLOAT", True), ("fp32", "HALF", False)])
def test_engines_must_be_of_the_precision_but_a_block_may_lack_int8(precision: str, kind: str, right: bool) -> None:
    timer = backend(FakeCuda(), precision=precision, kind=kind)
    if right:
        assert timer.open(b"graph", {"x": X})(1) == 2.0
    else:
        with pytest.raises(VerificationError, match=r"should be fp32, and the outputs of its layers are \{'HALF': 3\}"):
            timer.open(b"graph", {"x": X})


def test_an_unknown_precision_is_wrong_usage() -> None:
    with pytest.raises(UserError, match="unknown precision 'fp8'; choose from fp32, fp16, int8"):
        backend(FakeCuda(), precision="fp8")


@pytest.mark.skipif(load_driver() is not None, reason="there is a driver here")
def test_without_a_driver_there_is_no_backend() -> None:
    with pytest.raises(UnavailableError, match="no NVIDIA driver was found on this machine"):
        open_tensorrt("a100", "fp32")


def test_an_error_while_a_backend_is_opened_releases_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook keeps the error, and with it all that the function held."""
    released: list[ClockWatch] = []
    monkeypatch.setattr(ClockWatch, "unlock", lambda clocks: released.append(clocks))
    clocks, driver = ClockWatch(None, ""), CudaDriver(FakeCuda())
    parts = GpuParts(device="a100", precision="fp32", index=0, gpu=A100, driver=driver, clocks=clocks)
    monkeypatch.setattr("latency.runtimes.tensorrt.open_parts", lambda *_: parts)
    monkeypatch.setattr("latency.runtimes.tensorrt.open_memory", lambda _: fake_memory())

    def missing() -> NoReturn:
        raise UnavailableError("TensorRT is not installed")

    monkeypatch.setattr("latency.runtimes.tensorrt.find_variant", missing)
    with pytest.raises(UnavailableError, match="not installed"):
        open_tensorrt("a100", "fp32")
    assert released == [clocks]


@with_tensorrt
@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 5e-3)])
def test_a_real_gpu_equals_onnx_runtime_and_its_times_are_positive(
    blocks: Mapping[str, tuple[bytes, dict[str, Array]]], precision: str, tolerance: float
) -> None:
    content, inputs = blocks["ir_k5_c24-40_e5_s2_se@56x56"]
    with open_tensorrt("this", precision) as timer:
        (timed,) = timer.engines(at_precision(content, precision, inputs), inputs)
        timed(3)  # as a graph, where it could be captured
        expected, got = OrtRunner(content)(inputs)["output"], timed.outputs()["output"]
        assert np.abs(expected - got).max() < tolerance * np.ptp(expected)
        timed(1000)
        few, many = (min(timed(runs) * runs for _ in range(5)) for runs in (500, 1000))
        assert 1.6 < many / few < 2.5
        assert 1e-4 < many / 1000 < 10
        assert timer.conditions()["engines"] == 1
