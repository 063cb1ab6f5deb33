"""Times ONNX graphs through ONNX Runtime, on the CPU of this machine or on an NVIDIA GPU.

On a GPU the graph runs in the CUDA execution provider, with inputs and outputs bound to GPU memory (IO binding) and
with the provider's own CUDA graph (its option ``enable_cuda_graph``), on the stream whose events time it
(``latency/runtimes/gpu.py``). ONNX Runtime 1.31 and earlier wait for every replay of such a graph, so the launch of
each run is part of its time. float32 is without TF32, as in the engines of TensorRT here.
"""

import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from export.cuda import DeviceMemory, open_memory
from export.errors import UserError
from latency.protocol import Sampler, alternating, host_timed
from latency.runtimes.gpu import (
    GpuBackend,
    GpuParts,
    GpuSampler,
    GraphRecord,
    board_name,
    fingerprint_of,
    gpu_fingerprint,
    open_parts,
    unlocked_on_error,
)

if TYPE_CHECKING:
    from export.runners import Array

ONNXRUNTIME = "onnxruntime"
CPU = "cpu"
CPU_PRECISIONS = ("fp32", "int8")
"""Without fp16, which ONNX Runtime computes on CPUs by casting to float32 and back."""

GPU_PRECISIONS = ("fp32", "fp16")
"""Without int8, which the CUDA execution provider computes by casting to float and back."""

_CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the CPU."""


@dataclass(frozen=True, kw_only=True)
class CpuBackend:
    """A backend that runs one graph after the other, each operator on ``threads`` threads.

    All graphs share their working memory. With memory of its own each graph would find it outside the cache in its
    turn, while a network that is deployed alone finds it in the cache: sums of standalone blocks then predicted whole
    networks of other blocks 6 % too low.
    """

    runtime: ClassVar[str] = ONNXRUNTIME
    graph_form: ClassVar[Literal["onnx"]] = "onnx"
    precision: str = "fp32"
    threads: int = 1
    device: str = CPU

    def __post_init__(self) -> None:
        if self.precision not in CPU_PRECISIONS:
            raise UserError(
                f"a CPU is measured at {' or '.join(CPU_PRECISIONS)}, not {self.precision}: "
                "ONNX Runtime would cast every operator to float32 and back"
            )
        if self.threads < 1:
            raise UserError(f"a CPU needs at least 1 thread, not {self.threads}")

    def fingerprint(self) -> dict[str, str | int]:
        return {
            "device_name": cpu_name(),
            "cores": os.cpu_count() or 1,
            "threads": self.threads,
            "runtime": self.runtime,
            "runtime_version": _version(),
            "os": platform.system(),
            "arch": platform.machine(),
        }

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        from export.runners import OrtRunner

        runners = [OrtRunner(content, threads=self.threads, shares_memory=True) for _ in range(copies)]
        return alternating([host_timed(runner.bound(inputs)) for runner in runners])

    def close(self) -> None:
        """Nothing is held of a CPU."""

    def conditions(self) -> dict[str, Any]:
        """The mean number of processes that wanted a CPU in the last minute, this one included."""
        return {"load_average_1min": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}


def cpu_name() -> str:
    """The model name of the CPU.

    Linux knows no such name on Arm. There it is the designer and part number of each kind of core, and the board, whose
    memory and clock belong to it: "Arm 0x41-0xd0b, Raspberry Pi 5 Model B Rev 1.0".
    """
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    cores = re.findall(r"^CPU implementer\s*:\s*(\w+)$.*?^CPU part\s*:\s*(\w+)$", text, flags=re.MULTILINE | re.DOTALL)
    if cores:
        kinds = " ".join(dict.fromkeys("-".join(core) for core in cores))
        return ", ".join(filter(None, (f"Arm {kinds}", board_name())))
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match.group(1).strip() if match else _mac_cpu_name() or platform.processor() or platform.machine()


def _mac_cpu_name() -> str:
    """The model name of the CPU of a Mac, such as "Apple M2 Pro"; "" on other systems."""
    if platform.system() != "Darwin":
        return ""
    try:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class OrtGpuBackend(GpuBackend):
    """A backend that runs each graph in the CUDA execution provider."""

    runtime: ClassVar[str] = ONNXRUNTIME
    graph_form: ClassVar[Literal["onnx"]] = "onnx"

    def __init__(self, parts: GpuParts, *, memory: DeviceMemory, provider: str = "cuda") -> None:
        """Combine parts on one GPU; ``open_onnxruntime_gpu`` makes them.

        Args:
            parts: of every backend of a GPU.
            memory: provides the stream.
            provider: cuda, or cpu for a test of the arithmetic without a GPU.

        Raises:
            UserError: another precision than fp32 and fp16.
        """
        if parts.precision not in GPU_PRECISIONS:
            raise UserError(
                f"ONNX Runtime measures GPUs at {' or '.join(GPU_PRECISIONS)}, not at {parts.precision}: "
                "use --runtime tensorrt"
            )
        super().__init__(parts)
        self._memory, self._provider = memory, provider

    def fingerprint(self) -> dict[str, str | int]:
        return fingerprint_of(self._gpu, self._driver, runtime=ONNXRUNTIME, version=_version())

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        record = self._new_record(hashlib.sha256(content).hexdigest()[:12])
        return alternating([self._sampler(content, inputs, record) for _ in range(copies)])

    def _sampler(self, content: bytes, inputs: "Mapping[str, Array]", record: GraphRecord) -> GpuSampler:
        """Load the graph with a CUDA graph, or without one where ONNX Runtime refuses it."""
        try:
            launch = self._loaded(content, inputs, captured=record.not_captured is None)
        except UserError as error:
            if record.not_captured is not None:
                raise
            record.not_captured = str(error)
            launch = self._loaded(content, inputs, captured=False)
        return GpuSampler(launch, driver=self._driver, stream=self._memory.stream, clocks=self._clocks, record=record)

    def _loaded(self, content: bytes, inputs: "Mapping[str, Array]", *, captured: bool) -> Callable[[], None]:
        """A function that starts a run; with ``captured``, ONNX Runtime has captured it when this returns."""
        from export.runners import OrtRunner

        options = {
            "device_id": str(self._index),
            "user_compute_stream": str(self._memory.stream),
            "arena_extend_strategy": "kSameAsRequested",  # many sessions share the memory of the GPU
            "enable_cuda_graph": "1" if captured else "0",
        }
        on_gpu = self._provider != CPU
        runner = OrtRunner(content, provider=self._provider, provider_options=options if on_gpu else None)
        launch = runner.bound_on(inputs, self._provider, self._index)
        launch()  # ONNX Runtime captures in the first or second run
        self._driver.synchronise()
        return launch


def open_onnxruntime_gpu(device: str, precision: str, *, index: int) -> OrtGpuBackend:
    """Open the GPU of an index through the installed ONNX Runtime.

    Raises:
        UserError: the precision is not measured by ONNX Runtime.
        UnavailableError: the driver, a provider of GPU memory, or ONNX Runtime's CUDA execution provider is missing.
    """
    from export.runners import check_provider

    check_provider("cuda")
    with unlocked_on_error(open_parts(device, precision, index)) as parts:
        return OrtGpuBackend(parts, memory=open_memory(index))


def onnxruntime_gpu_fingerprint(index: int) -> dict[str, str | int]:
    """The fingerprint of the backend of ``open_onnxruntime_gpu``, without opening it.

    Raises:
        UnavailableError: the driver is missing.
    """
    return gpu_fingerprint(index, runtime=ONNXRUNTIME, version=_version())


def _version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)
