"""Times ONNX graphs on this machine's processor through ONNX Runtime."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UserError
from latency.protocol import Sampler, in_turns, timed_here

if TYPE_CHECKING:
    from export.runners import Array

CPU = "cpu"
PROCESSOR_PRECISIONS = ("fp32", "int8")
"""Not fp16, which ONNX Runtime computes on processors by casting to float32 and back."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A backend: graphs one after the other, each operator on ``threads`` threads.

    All graphs share their working memory. With memory of its own each would find it cold in its turn, while a network
    that is deployed alone finds it warm: blocks alone then foretold networks of other blocks 6 % too low.
    """

    precision: str = "fp32"
    threads: int = 1
    device: str = CPU

    def __post_init__(self) -> None:
        if self.precision not in PROCESSOR_PRECISIONS:
            raise UserError(
                f"a processor is timed at {' or '.join(PROCESSOR_PRECISIONS)}, not {self.precision}: "
                "ONNX Runtime would cast every operator to float32 and back"
            )
        if self.threads < 1:
            raise UserError(f"a processor needs at least 1 thread, not {self.threads}")

    def fingerprint(self) -> dict[str, str | int]:
        import onnxruntime

        return {
            "processor": processor_name(),
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
        return in_turns([timed_here(runner.bound(inputs)) for runner in runners])

    def conditions(self) -> dict[str, Any]:
        """How many processes wanted a processor of this machine, ours among them."""
        return {"load_average_1min": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}


def processor_name() -> str:
    """The processor's model name: Linux tells it in /proc/cpuinfo only."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()
