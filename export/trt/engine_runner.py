"""Runs a TensorRT engine on named arrays, as ``export/runners.py`` runs a torch module or an ONNX graph.

The verification of an engine uses it, and so can a service in Python. Each call copies the inputs to the GPU, runs the
engine once and copies the outputs back. The batch size may change from call to call within the engine's range. Only the
thread that opened an engine may run it.

Before TensorRT's runtime is created, the driver is asked for its GPUs, which is safe on any machine. The runtime is
then created once in a subprocess: with a driver older than its CUDA, it was seen to end the process.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from export.cuda import GpuInfo, open_driver, open_memory
from export.errors import UnavailableError, UserError
from export.runners import Array, TensorSpec
from export.subprocesses import SubprocessFailedError, run_in_subprocess
from export.trt import bindings
from export.trt.builder import EngineLoader, probe_runtime
from export.trt.loaded_engine import EngineTensor, LoadedEngine

_TIMEOUT_S = 120.0


class EngineRunner:
    """An engine on a GPU, created by ``open_engine``."""

    def __init__(self, engine: LoadedEngine, *, gpu: str) -> None:
        """Wrap a loaded engine.

        Args:
            engine: the engine, which nothing else may use.
            gpu: name of the GPU.
        """
        self.gpu = gpu
        self._engine = engine
        self.inputs = tuple(_spec(tensor) for tensor in engine.engine_inputs)
        self.outputs = tuple(_spec(tensor) for tensor in engine.engine_outputs)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, given all inputs by name; floats are cast to the engine's float type.

        Raises:
            UserError: the inputs are not the engine's, or their shapes are outside its range.
            VerificationError: TensorRT or the GPU fails to run it.
        """
        self._engine.fill(inputs)
        self._engine.enqueue()
        return self._engine.outputs()


def open_engine(
    plan: Path | bytes, *, runtime: str | None = None, index: int = 0, version_compatible: bool = False
) -> EngineRunner:
    """Load an engine onto a GPU of this machine.

    Args:
        plan: an engine file or its content.
        runtime: tensorrt or tensorrt_rtx, the variant that built it, from its manifest; None for the installed one.
        index: index of the GPU, in the driver's order.
        version_compatible: the engine was built version compatible and contains code, which will run on the CPU: allow
            it only for an engine from a source that you trust.

    Raises:
        UserError: the file cannot be read.
        UnavailableError: the driver, the GPU, TensorRT, or a package that allocates GPU memory is missing.
        VerificationError: the engine was built for another GPU or TensorRT, does not fit, or cannot be run here.
    """
    content = _content(plan)
    driver = open_driver()
    gpu = _gpu(driver.gpus(), index)
    variant = bindings.find_variant() if runtime is None else bindings.load_variant(runtime)
    _check_runtime(variant.name)
    memory = open_memory(index)
    loader = EngineLoader(variant, host_code=version_compatible)
    return EngineRunner(LoadedEngine(content, loader=loader, driver=driver, memory=memory), gpu=gpu.name)


def _content(plan: Path | bytes) -> bytes:
    name = "the engine" if isinstance(plan, bytes) else str(plan)
    try:
        content = plan if isinstance(plan, bytes) else plan.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from None
    if not content:
        raise UserError(f"{name} is empty: build it again")
    return content


def _gpu(gpus: tuple[GpuInfo, ...], index: int) -> GpuInfo:
    if not 0 <= index < len(gpus):
        raise UnavailableError(
            f"this machine has {len(gpus)} GPUs and no GPU number {index}: run the engine on a machine that has one"
        )
    return gpus[index]


@cache
def _check_runtime(name: str) -> None:
    """Raise UnavailableError if the variant of that name cannot load engines here, or crashes."""
    try:
        run_in_subprocess(probe_runtime, name, timeout_s=_TIMEOUT_S)
    except SubprocessFailedError as error:
        raise UnavailableError(
            f"{name} cannot load engines here: it {error}. The NVIDIA driver may be older than its CUDA: fbnetv5 "
            "doctor prints the CUDA version of the driver"
        ) from None


def _spec(tensor: EngineTensor) -> TensorSpec:
    shape = tuple("any" if axis < 0 else axis for axis in tensor.shape)
    return TensorSpec(name=tensor.name, shape=shape, dtype=tensor.dtype)
