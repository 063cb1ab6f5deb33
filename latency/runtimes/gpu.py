"""What the runtimes of NVIDIA GPUs share: the base of their backends, a sampler by the GPU's clock, the fingerprint.

Only the work of the graph is timed: a sample is the GPU's own time between two events around the launches, and the CPU
waits for the second event in a busy loop, since a sleep would let both clocks fall.
"""

import platform
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from export.cuda import CudaDriver, CudaHandle, GpuInfo, open_driver
from export.errors import UnavailableError, VerificationError
from latency.clocks import ClockWatch, watch_clocks

B = TypeVar("B", bound="GpuBackend")  # Self is of Python 3.11, and devices have older ones

_BOARD = Path("/proc/device-tree/model")
"""Where Linux names the board of an Arm computer, such as "NVIDIA Jetson Orin Nano Developer Kit"."""
_STARVED = 0.8
"""trtexec's limit: if the CPU needs more than this fraction of the GPU's time, the GPU may have waited for the CPU."""


@dataclass(slots=True, kw_only=True)
class GraphRecord:
    """How one graph ran."""

    graph: str
    """First characters of a sha256 that identifies the graph."""
    not_captured: str | None = None
    """Why the graph runs without a CUDA graph; None if it runs with one."""
    samples: int = 0
    starved: int = 0
    """Samples in which the GPU may have waited for the CPU."""


class GpuSampler:
    """A sampler of launches on one stream, by the GPU's clock."""

    def __init__(
        self, launch: Callable[[], object], *, driver: CudaDriver, stream: int, clocks: ClockWatch, record: GraphRecord
    ) -> None:
        """Create the two events.

        Args:
            launch: adds one run of the graph to the stream.
            driver: of the GPU.
            stream: handle of the stream.
            clocks: sampled while the GPU works.
            record: counts the samples.
        """
        self._launch, self._driver, self._stream = launch, driver, stream
        self._clocks, self._record = clocks, record
        self._start, self._end = driver.new_event(), driver.new_event()
        for event in (self._start, self._end):
            weakref.finalize(self, _destroy, driver, event)

    def __call__(self, runs: int) -> float:
        """Run ``runs`` times in a row; returns the mean milliseconds of a run by the GPU's clock."""
        driver, stream, launch, end = self._driver, self._stream, self._launch, self._end
        start_ns = time.perf_counter_ns()
        driver.record(self._start, stream)
        for _ in range(runs):
            launch()
        driver.record(end, stream)
        enqueued_ms = (time.perf_counter_ns() - start_ns) / 1e6
        self._clocks.sample()  # at this point the CPU is idle and the GPU is not
        while not driver.reached(end):
            pass
        elapsed_ms = driver.elapsed_ms(self._start, end)
        self._record.samples += 1
        self._record.starved += enqueued_ms > _STARVED * elapsed_ms
        return elapsed_ms / runs


def _destroy(driver: CudaDriver, event: CudaHandle) -> None:
    """Destroy an event, if the GPU still works: after a fault every call fails, and the fault was already reported."""
    with suppress(VerificationError):
        driver.destroy_event(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuParts:
    """What every backend of a GPU needs."""

    device: str
    """Name of the device, such as "a100"."""
    precision: str
    """Precision of all graphs."""
    index: int
    """Number of the GPU in the driver's order."""
    gpu: GpuInfo
    """The GPU as the driver reports it."""
    driver: CudaDriver
    """Makes events and captures."""
    clocks: ClockWatch
    """Sampled while the GPU works."""


def open_parts(device: str, precision: str, index: int) -> GpuParts:
    """Open the driver and lock the clock of the GPU of an index.

    Raises:
        UnavailableError: there is no driver, or no GPU of that index.
    """
    driver = open_driver()
    gpus = driver.gpus()
    if not 0 <= index < len(gpus):
        raise UnavailableError(f"this machine has {len(gpus)} GPUs, and no GPU of number {index}")
    clocks = watch_clocks(driver.bus_id(index))
    return GpuParts(device=device, precision=precision, index=index, gpu=gpus[index], driver=driver, clocks=clocks)


@contextmanager
def unlocked_on_error(parts: GpuParts) -> Iterator[GpuParts]:
    """A context that opens a backend of the parts, whose clock an error releases: no backend could be closed."""
    try:
        yield parts
    except BaseException:
        parts.clocks.unlock()
        raise


class GpuBackend:
    """The base of the backends of one GPU at one precision. Close it, or use it in a ``with``."""

    threads = 1

    def __init__(self, parts: GpuParts) -> None:
        self.device, self.precision = parts.device, parts.precision
        self._index, self._gpu, self._driver, self._clocks = parts.index, parts.gpu, parts.driver, parts.clocks
        self._records: list[GraphRecord] = []

    def __enter__(self: B) -> B:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the GPU's clock; the conditions can still be read."""
        self._clocks.unlock()

    def _new_record(self, graph: str) -> GraphRecord:
        record = GraphRecord(graph=graph)
        self._records.append(record)
        return record

    def conditions(self) -> dict[str, Any]:
        """Clocks, number of graphs, and those that ran without a CUDA graph or waited for the CPU, as JSON."""
        return {
            "clocks": self._clocks.summary(),
            "graphs": len(self._records),
            "without_cuda_graph": {
                record.graph: record.not_captured for record in self._records if record.not_captured
            },
            # In more than half of the samples, so that the median is affected.
            "starved_by_cpu": [record.graph for record in self._records if 2 * record.starved > record.samples],
        }


def gpu_fingerprint(index: int, *, runtime: str, version: str) -> dict[str, str | int]:
    """What must be equal for two measurements on the GPU of an index to be comparable, read without opening the GPU.

    Raises:
        UnavailableError: there is no driver.
    """
    driver = open_driver()
    return fingerprint_of(driver.gpus()[index], driver, runtime=runtime, version=version)


def fingerprint_of(gpu: GpuInfo, driver: CudaDriver, *, runtime: str, version: str) -> dict[str, str | int]:
    """What must be equal for two measurements on a GPU to be comparable.

    The version of the driver itself is not part of it: only NVML reports it, and it may be missing. The conditions of a
    table have it.
    """
    return {
        "device_name": gpu.name,
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        "driver_cuda_version": driver.cuda_version(),
        "runtime": runtime,
        "runtime_version": version,
        "os": platform.system(),
        "arch": platform.machine(),
        **({"board": board} if (board := board_name()) else {}),
    }


def board_name() -> str:
    """The name of the board; "" where the system has none. The driver calls every Orin the same, from Nano to AGX."""
    try:
        return _BOARD.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
