"""Opens a device through a runtime: its usual one, or another that ``fbnetv5 profile --runtime`` names.

The measuring bundle has only the usual runtimes (``latency/devices.py``): torch modules do not travel as ONNX files.
"""

from export.errors import UserError
from latency.backend import Backend
from latency.devices import check_gpu, fingerprint, gpu, index_of, resolve, usual_runtime
from latency.runtimes.onnxruntime import CPU, ONNXRUNTIME, onnxruntime_gpu_fingerprint, open_onnxruntime_gpu
from latency.runtimes.tensorrt import TENSORRT
from latency.runtimes.torch import TORCH, TORCH_COMPILE, TorchCpuBackend, open_torch_gpu, torch_gpu_fingerprint

RUNTIMES = (TENSORRT, ONNXRUNTIME, TORCH, TORCH_COMPILE)
"""Names of all runtimes."""
_COMPILED = {TORCH: False, TORCH_COMPILE: True}


def open_backend(device: str, *, runtime: str | None = None, precision: str = "fp32", threads: int = 1) -> Backend:
    """Open the backend of a device.

    Args:
        device: name of the device.
        runtime: one of ``RUNTIMES``; None for the usual runtime of the device.
        precision: precision of all graphs.
        threads: CPU threads that one operator may use.

    Raises:
        UserError: the device or runtime is unknown, or they are not measured together or with these settings.
        UnavailableError: the device or the runtime is not on this machine.
    """
    if runtime in (None, usual_runtime(device)):
        return resolve(device, precision=precision, threads=threads)
    _check(device, runtime)
    if device == CPU:
        return TorchCpuBackend(precision=precision, threads=threads, compiled=_COMPILED[str(runtime)])
    index = index_of(check_gpu(device, precision=precision, threads=threads))
    if runtime == ONNXRUNTIME:
        return open_onnxruntime_gpu(device, precision, index=index)
    return open_torch_gpu(device, precision, index=index, compiled=_COMPILED[str(runtime)])


def runtime_fingerprint(device: str, *, runtime: str, threads: int) -> dict[str, str | int]:
    """The fingerprint of this machine's device and of a runtime, without opening the device; errors as above."""
    if runtime == usual_runtime(device):
        return fingerprint(device, threads=threads)
    _check(device, runtime)
    if device == CPU:
        return TorchCpuBackend(threads=threads, compiled=_COMPILED[runtime]).fingerprint()
    index = index_of(gpu(device))
    if runtime == ONNXRUNTIME:
        return onnxruntime_gpu_fingerprint(index)
    return torch_gpu_fingerprint(index, compiled=_COMPILED[runtime])


def _check(device: str, runtime: str | None) -> None:
    """Raise UserError for an unknown device or runtime, and for a GPU's runtime on the CPU."""
    if runtime not in RUNTIMES:
        raise UserError(f"there is no runtime {runtime!r}; known are {', '.join(RUNTIMES)}")
    if device != CPU:
        gpu(device)
    elif runtime == TENSORRT:
        raise UserError(f"{CPU} is measured through {ONNXRUNTIME}, {TORCH} or {TORCH_COMPILE}, not through {TENSORRT}")
