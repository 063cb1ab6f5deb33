import pytest

from export.cuda import find_gpus
from export.errors import UnavailableError, UserError
from latency.backends import RUNTIMES, open_backend, runtime_fingerprint
from latency.devices import GPUS, usual_runtime

OF_THE_CPU = [None, "onnxruntime", "torch", "torch-compile"]


@pytest.mark.parametrize("runtime", OF_THE_CPU)
def test_the_cpu_has_these_runtimes(runtime: str | None) -> None:
    backend = open_backend("cpu", runtime=runtime, threads=2)
    assert backend.runtime == (runtime or "onnxruntime")
    assert (backend.device, backend.threads) == ("cpu", 2)
    assert backend.fingerprint() == runtime_fingerprint("cpu", runtime=backend.runtime, threads=2)


def test_gpus_are_usually_measured_with_tensorrt_and_the_cpu_with_onnx_runtime() -> None:
    assert {usual_runtime(name) for name in GPUS} == {"tensorrt"}
    assert usual_runtime("cpu") == "onnxruntime"


WRONG = {
    "an unknown runtime": ("cpu", "tvm", "no runtime 'tvm'; known are tensorrt, onnxruntime, torch, torch-compile"),
    "TensorRT on the CPU": ("cpu", "tensorrt", "cpu is measured through onnxruntime, torch or torch-compile"),
    "an unknown device": ("h1000", "torch", "no device 'h1000'; known are cpu, a10"),
}


@pytest.mark.parametrize(("device", "runtime", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_go_together_is_wrong_usage(device: str, runtime: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_backend(device, runtime=runtime)
    with pytest.raises(UserError, match=message):
        runtime_fingerprint(device, runtime=runtime, threads=1)


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_gpu_that_is_not_here_is_unavailable_through_any_runtime(runtime: str) -> None:
    with pytest.raises(UnavailableError, match="device 'h100' is not here: no NVIDIA device or driver was found"):
        open_backend("h100", runtime=runtime, precision="fp16")
