"""Times torch modules on the CPU of this machine or on an NVIDIA GPU, without exporting them.

Modules run in eval mode, in channels_last and in inference mode, at float32 or float16; float32 is without TF32. On a
GPU a run is captured into a CUDA graph (``torch.cuda.graph``), all graphs in one pool of memory, and timed between two
events (``latency/runtimes/gpu.py``); the first runs choose cuDNN's fastest algorithms. On a CPU the clock of the
machine times the calls, Python's part of each operator included. The runtime "torch-compile" compiles every module by
itself with ``torch.compile`` first, which takes seconds to minutes a module.

The protocol, the correction and the table are those of ONNX graphs.
"""

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from export.errors import UnavailableError, UserError, VerificationError
from latency.protocol import Sampler, alternating, host_timed
from latency.runtimes.gpu import (
    GpuBackend,
    GpuParts,
    GpuSampler,
    GraphRecord,
    gpu_fingerprint,
    open_parts,
    unlocked_on_error,
)
from latency.runtimes.onnxruntime import CPU, GPU_PRECISIONS, cpu_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from export.runners import Array

TORCH = "torch"
TORCH_COMPILE = "torch-compile"
MAX_COMPILATIONS = 4096
"""Compiled modules of a process."""
WARM_UP_RUNS = 3
"""Runs before a capture: compilation, choice of algorithms, and allocation."""


class TorchCpuBackend:
    """A backend for the CPU of this machine at float32."""

    graph_form: ClassVar[Literal["torch"]] = "torch"
    device = CPU

    def __init__(self, *, precision: str = "fp32", threads: int = 1, compiled: bool = False) -> None:
        """Store the settings.

        Args:
            precision: fp32.
            threads: CPU threads that one operator may use.
            compiled: compile every module.

        Raises:
            UserError: another precision, or no thread.
        """
        if precision != "fp32":
            raise UserError(f"torch measures a CPU at fp32, not at {precision}")
        if threads < 1:
            raise UserError(f"a CPU needs at least 1 thread, not {threads}")
        self.precision, self.threads, self._compiled = precision, threads, compiled
        self.runtime = TORCH_COMPILE if compiled else TORCH

    def fingerprint(self) -> dict[str, str | int]:
        import torch

        return {
            "device_name": cpu_name(),
            "cores": os.cpu_count() or 1,
            "threads": self.threads,
            "runtime": self.runtime,
            "runtime_version": torch.__version__,
            "os": platform.system(),
            "arch": platform.machine(),
        }

    def open(self, content: "nn.Module", inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Make a sampler that alternates between copies of a module, each with weights of its own."""
        return alternating([self._sampler(content, inputs) for _ in range(copies)])

    def _sampler(self, module: "nn.Module", inputs: "Mapping[str, Array]") -> Sampler:
        import torch

        from export.runners import torch_threads  # loads numpy

        call = prepare_call(module, inputs, torch.device("cpu"), torch.float32, compiled=self._compiled)
        timed = host_timed(call)

        def sample(runs: int) -> float:
            with torch.inference_mode(), torch_threads(self.threads):
                return timed(runs)

        with _compilation() if self._compiled else nullcontext():
            sample(1)
        return sample

    def close(self) -> None:
        """Nothing is held of a CPU."""

    def conditions(self) -> dict[str, Any]:
        """The mean number of processes that wanted a CPU in the last minute, this one included."""
        return {"load_average_1min": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}


class TorchGpuBackend(GpuBackend):
    """A backend that captures a run of each module."""

    graph_form: ClassVar[Literal["torch"]] = "torch"

    def __init__(self, parts: GpuParts, *, compiled: bool) -> None:
        """Combine parts on one GPU; ``open_torch_gpu`` makes them.

        Args:
            parts: of every backend of a GPU.
            compiled: compile every module.

        Raises:
            UserError: another precision than fp32 and fp16.
        """
        if parts.precision not in GPU_PRECISIONS:
            raise UserError(
                f"torch measures GPUs at {' or '.join(GPU_PRECISIONS)}, not at {parts.precision}: "
                "use --runtime tensorrt"
            )
        super().__init__(parts)
        self.runtime = TORCH_COMPILE if compiled else TORCH
        self._compiled = compiled
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def fingerprint(self) -> dict[str, str | int]:
        return torch_gpu_fingerprint(self._index, compiled=self._compiled)

    def open(self, content: "nn.Module", inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Make a sampler that alternates between copies of a module, each with weights and a CUDA graph of its own."""
        record = self._new_record(f"{type(content).__name__}-{len(self._records)}")
        return alternating([self._sampler(content, inputs, record) for _ in range(copies)])

    def _sampler(self, module: "nn.Module", inputs: "Mapping[str, Array]", record: GraphRecord) -> Sampler:
        """Copy a module to the GPU, run it, capture a run where that is possible, and time its launches."""
        import torch

        device = torch.device("cuda", self._index)
        if self._stream is None:
            torch.cuda.set_device(device)
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        stream, dtype = self._stream, torch.float16 if self.precision == "fp16" else torch.float32
        call = prepare_call(module, inputs, device, dtype, compiled=self._compiled)
        with torch.inference_mode(), _fastest_algorithms():
            with torch.cuda.stream(stream), _compilation() if self._compiled else nullcontext():
                for _ in range(WARM_UP_RUNS):
                    call()
            stream.synchronize()
            launch = self._captured(call, stream, record)
        timed = GpuSampler(launch, driver=self._driver, stream=stream.cuda_stream, clocks=self._clocks, record=record)

        def sample(runs: int) -> float:
            with torch.inference_mode(), _fastest_algorithms(), torch.cuda.stream(stream):
                return timed(runs)

        return sample

    def _captured(
        self, call: Callable[[], None], stream: "torch.cuda.Stream", record: GraphRecord
    ) -> Callable[[], None]:
        """The replay of a captured run, or the call itself where it cannot be captured."""
        import torch

        graph = torch.cuda.CUDAGraph()
        try:
            with _empty_graphs_allowed(), torch.cuda.graph(graph, pool=self._pool, stream=stream):
                call()
        except RuntimeError as error:
            record.not_captured = str(error).strip().splitlines()[0]
            stream.synchronize()
            return call
        return CapturedCall(graph=graph, call=call)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedCall:
    """Replays a captured call, and keeps its weights and inputs alive: the graph contains only their addresses."""

    graph: "torch.cuda.CUDAGraph"
    call: Callable[[], None]

    def __call__(self) -> None:
        self.graph.replay()


def open_torch_gpu(device: str, precision: str, *, index: int, compiled: bool) -> TorchGpuBackend:
    """Open the GPU of an index through torch; arguments and errors as in ``TorchGpuBackend``.

    Raises:
        UnavailableError: the driver is missing, or this torch has no CUDA.
    """
    import torch

    if not torch.cuda.is_available():
        raise UnavailableError(
            f"torch {torch.__version__} finds no GPU: it is built without CUDA, or for another driver. "
            "Install a CUDA build of torch (pytorch.org lists the commands)"
        )
    with unlocked_on_error(open_parts(device, precision, index)) as parts:
        return TorchGpuBackend(parts, compiled=compiled)


def torch_gpu_fingerprint(index: int, *, compiled: bool) -> dict[str, str | int]:
    """The fingerprint of the backend of ``open_torch_gpu``, without opening it.

    Raises:
        UnavailableError: the driver is missing.
    """
    import torch

    runtime = TORCH_COMPILE if compiled else TORCH
    common = gpu_fingerprint(index, runtime=runtime, version=torch.__version__)
    return {**common, "cudnn": torch.backends.cudnn.version() or 0}  # type: ignore[no-untyped-call]


def prepare_call(
    module: "nn.Module", inputs: "Mapping[str, Array]", device: "torch.device", dtype: "torch.dtype", *, compiled: bool
) -> Callable[[], None]:
    """A function that runs a copy of the module on the inputs, in channels_last, and drops the outputs.

    Args:
        module: is copied, so that it keeps its device and type.
        inputs: arrays [N, C, H, W], in the order of the module's arguments.
        device: where the copy runs.
        dtype: of the weights and inputs.
        compiled: compile the copy; it is compiled in its first run.
    """
    import torch

    copied = deepcopy(module).eval().to(device, dtype).to(memory_format=torch.channels_last)
    if compiled:
        copied.compile(dynamic=False)
    tensors = [_on(device, dtype, array) for array in inputs.values()]

    def call() -> None:
        copied(*tensors)

    return call


def _on(device: "torch.device", dtype: "torch.dtype", array: "Array") -> "Tensor":
    import torch

    return torch.from_numpy(array).to(device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)


@contextmanager
def _compilation() -> Iterator[None]:
    """Let torch compile any number of modules inside the block: it would run those after its limit of 8 uncompiled.

    Raises:
        VerificationError: a module cannot be compiled.
    """
    import torch
    from torch._dynamo.exc import FailOnRecompileLimitHit

    settings: dict[str, Any] = {
        "recompile_limit": MAX_COMPILATIONS,
        "accumulated_recompile_limit": MAX_COMPILATIONS,
        "fail_on_recompile_limit_hit": True,
    }
    try:
        with torch._dynamo.config.patch(settings):
            yield
    except FailOnRecompileLimitHit as error:
        raise VerificationError(f"torch.compile refuses a module: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def _empty_graphs_allowed() -> Iterator[None]:
    """Hide torch's warning about a graph without a kernel, which the graph that does nothing is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The CUDA Graph is empty", category=UserWarning)
        yield


def _fastest_algorithms() -> Any:
    """A block in which cuDNN times its algorithms and takes the fastest, without TF32."""
    from torch.backends import cudnn

    return cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
