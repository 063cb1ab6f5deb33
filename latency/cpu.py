"""Times ONNX graphs on the CPU of this machine through ONNX Runtime."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError
from latency.protocol import Sampler, alternating, host_timed

if TYPE_CHECKING:
    from export.runners import Array

CPU = "cpu"
CPU_PRECISIONS = ("fp32", "int8")
"""Without fp16, which ONNX Runtime computes on CPUs by casting to float32 and back."""


@dataclass(frozen=True, kw_only=True)
class CpuBackend:
    """A backend that runs one graph after the other, each operator on ``threads`` threads.

    All graphs share their working memory. With memory of its own each graph would find it outside the cache in its
    turn, while a network that is deployed alone finds it in the cache: sums of standalone blocks then predicted whole
    networks of other blocks 6 % too low.
    """

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
        import onnxruntime

        return {
            "device_name": cpu_name(),
            "cores": os.cpu_count() or 1,
            "threads": self.threads,
            "runtime": "onnxruntime",
            "runtime_version": onnxruntime.__version__,
            "os": platform.system(),
            "arch": platform.machine(),
        }

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        from export.runners import OrtRunner

        runners = [OrtRunner(content, threads=self.threads, shares_memory=True) for _ in range(copies)]
        return alternating([host_timed(runner.bound(inputs)) for runner in runners])

    def conditions(self) -> dict[str, Any]:
        """The mean number of processes that wanted a CPU in the last minute, this one included."""
        return {"load_average_1min": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}


def cpu_name() -> str:
    """The model name of the CPU; on Linux only /proc/cpuinfo has it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()
