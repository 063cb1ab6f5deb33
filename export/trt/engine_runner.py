"""Runs a built TensorRT engine on named arrays, as ``export/runners.py`` runs a torch module or an ONNX graph.

It is what proves that an engine is the same network, and what serves one from Python. For each call the inputs go to
the GPU, the engine runs once, and the outputs come back. The batch may vary from call to call within what the engine
was built for. Threads: one, that which opened it.

Before TensorRT's runtime is touched, the driver and its GPUs are asked for, which is safe anywhere; and it is made once
in a process of its own, since with a driver older than its CUDA it was seen to end the process.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from export.cuda import FoundGpu, open_driver, open_memory
from export.errors import UnavailableError, UserError
from export.runners import Array, TensorSpec
from export.subprocesses import DiedError, call
from export.trt import bindings
from export.trt.builder import EngineLoader, runtime_ready
from export.trt.loaded_engine import EngineTensor, LoadedEngine

_TIMEOUT_S = 120.0


class EngineRunner:
    """An engine on a GPU; ``open_engine`` makes it."""

    def __init__(self, engine: LoadedEngine, *, gpu: str) -> None:
        """Of an engine that is loaded.

        Args:
            engine: nobody else's.
            gpu: the name of what it runs on.
        """
        self.gpu = gpu
        self._engine = engine
        self.inputs = tuple(_spec(tensor) for tensor in engine.engine_inputs)
        self.outputs = tuple(_spec(tensor) for tensor in engine.engine_outputs)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, given all inputs by name; floats are cast to the floats that the engine takes.

        Raises:
            UserError: the inputs are not the engine's, or of shapes that it was not built for.
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
        runtime: tensorrt or tensorrt_rtx, whichever built it, as a manifest says; None for the one that is here.
        index: of the GPU, by the driver's count.
        version_compatible: it was built so, and brings code of its own, which is run: only from a source you trust.

    Raises:
        UserError: the file cannot be read.
        UnavailableError: the driver, the GPU, TensorRT, or what gives GPU memory is missing.
        VerificationError: the engine is of another GPU or TensorRT, does not fit, or is one that cannot be run here.
    """
    content = _content(plan)
    driver = open_driver()
    gpu = _gpu(driver.gpus(), index)
    flavour = bindings.find_flavour() if runtime is None else bindings.load(runtime)
    _check_runtime(flavour.name)
    memory = open_memory(index)
    loader = EngineLoader(flavour, host_code=version_compatible)
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


def _gpu(found: tuple[FoundGpu, ...], index: int) -> FoundGpu:
    if not 0 <= index < len(found):
        raise UnavailableError(
            f"this machine has {len(found)} GPUs, and none of number {index}: engines run where there is one"
        )
    return found[index]


@cache
def _check_runtime(name: str) -> None:
    """Raise UnavailableError where the flavour of that name does not load engines here, or crashes over it."""
    try:
        call(runtime_ready, name, timeout_s=_TIMEOUT_S)
    except DiedError as error:
        raise UnavailableError(
            f"{name} cannot load engines here: it {error}. The NVIDIA driver may be older than its CUDA: fbnetv5 "
            "doctor says which CUDA the driver serves"
        ) from None


def _spec(tensor: EngineTensor) -> TensorSpec:
    shape = tuple("any" if axis < 0 else axis for axis in tensor.shape)
    return TensorSpec(name=tensor.name, shape=shape, dtype=tensor.dtype)
