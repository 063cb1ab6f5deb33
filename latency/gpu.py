"""Times ONNX graphs on an NVIDIA GPU as TensorRT engines, like NVIDIA's trtexec.

Each graph becomes an engine of its own in this process, by one builder for all, with its inputs copied to the GPU
once. Only the work of the engine is timed: first it is enqueued without a CUDA graph, which is when TensorRT
initialises; then one run is captured into a CUDA graph, which takes a single call to launch. A sample is the GPU's own
time between two events around the launches, and the CPU waits for the second event in a busy loop, since a sleep would
let both clocks fall. Where a graph cannot be captured, its runs are enqueued without a CUDA graph, and the conditions
record it, because then the launches of the CPU may be what is measured.

Not timed: transfers, building and loading. Shapes are fixed, and the precision is that of the ONNX graph
(``export/precision.py``).
"""

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.cuda import CudaDriver, CudaHandle, DeviceMemory, GpuInfo, open_driver, open_memory
from export.errors import UnavailableError, UserError, VerificationError
from export.trt.bindings import TensorRTVariant, find_variant, load_variant
from export.trt.builder import EngineBuilder
from export.trt.loaded_engine import LoadedEngine
from export.trt.precision_check import ENGINE_TYPES, check_types
from latency.clocks import ClockWatch, watch_clocks
from latency.protocol import Sampler, alternating

if TYPE_CHECKING:
    from export.runners import Array

_STARVED = 0.8
"""trtexec's limit: if the CPU needs more than this fraction of the GPU's time, the GPU may have waited for the CPU."""


@dataclass(slots=True, kw_only=True)
class EngineRecord:
    """How one engine ran."""

    graph: str
    """First characters of the sha256 of the ONNX graph."""
    not_captured: str | None = None
    """Why the engine runs without a CUDA graph; None if it runs with one."""
    samples: int = 0
    starved: int = 0
    """Samples in which the GPU may have waited for the CPU."""


class GpuBackend:
    """A backend for one GPU at one precision. Close it, or use it in a ``with``."""

    threads = 1

    def __init__(
        self,
        *,
        device: str,
        precision: str,
        gpu: GpuInfo,
        driver: CudaDriver,
        memory: DeviceMemory,
        builder: EngineBuilder,
        clocks: ClockWatch,
    ) -> None:
        """Combine parts on one GPU; ``open_gpu_backend`` makes them.

        Args:
            device: name of the device, such as "a100".
            precision: precision of all graphs.
            gpu: the GPU as the driver reports it.
            driver: makes events and captures.
            memory: provides memory for inputs and outputs, and the stream.
            builder: builds all engines.
            clocks: sampled while the GPU works.
        """
        if precision not in ENGINE_TYPES:
            raise UserError(f"unknown precision {precision!r}; choose from {', '.join(ENGINE_TYPES)}")
        self.device = device
        self.precision = precision
        self._gpu, self._driver, self._memory, self._builder, self._clocks = gpu, driver, memory, builder, clocks
        self._records: list[EngineRecord] = []
        self._layers: Counter[str] = Counter()

    def __enter__(self) -> "GpuBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the GPU's clock; the conditions can still be read."""
        self._clocks.unlock()

    def fingerprint(self) -> dict[str, str | int]:
        return _fingerprint_of(self._gpu, self._driver, self._builder.variant)

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Make a sampler that alternates between engines of an ONNX graph; arguments and errors as in ``engines``."""
        return alternating(self.engines(content, inputs, copies=copies))

    def engines(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> "list[TimedEngine]":
        """Build an engine of an ONNX graph once and load it ``copies`` times.

        Args:
            content: the graph, of fixed shapes and of the backend's precision.
            inputs: inputs by name; they are cast to the input types of the graph.
            copies: number of loaded engines, each with weights of its own on the GPU.

        Raises:
            UserError: the inputs do not fit the graph.
            VerificationError: the parser or the builder refuses the graph, the engine computes in other types than
                those of its precision, or the GPU refuses it.
        """
        built = self._builder.build(content)
        check_types(built.layers, self.precision, may_lack_int8=True)
        record = EngineRecord(graph=hashlib.sha256(content).hexdigest()[:12])
        engines = [self._loaded(built.plan, inputs, record) for _ in range(copies)]
        self._layers.update(built.layers)
        self._records.append(record)
        return engines

    def open_plan(self, plan: bytes, inputs: "Mapping[str, Array]") -> Sampler:
        """Load a serialised engine, to be timed on ``inputs``.

        Raises:
            UserError: the inputs do not fit the engine.
            VerificationError: the GPU refuses the engine.
        """
        record = EngineRecord(graph=hashlib.sha256(plan).hexdigest()[:12])
        self._records.append(record)
        return self._loaded(plan, inputs, record)

    def _loaded(self, plan: bytes, inputs: "Mapping[str, Array]", record: EngineRecord) -> "TimedEngine":
        return TimedEngine(
            plan,
            inputs,
            builder=self._builder,
            driver=self._driver,
            memory=self._memory,
            clocks=self._clocks,
            record=record,
        )

    def conditions(self) -> dict[str, Any]:
        """Clocks, memory provider and engines so far, as JSON."""
        return {
            "clocks": self._clocks.summary(),
            "memory_provider": self._memory.provider,
            "engines": len(self._records),
            "layer_types": dict(self._layers),
            "without_cuda_graph": {
                record.graph: record.not_captured for record in self._records if record.not_captured
            },
            # In more than half of the samples, so that the median is affected.
            "starved_by_cpu": [record.graph for record in self._records if 2 * record.starved > record.samples],
        }


class TimedEngine(LoadedEngine):
    """A sampler: an engine with its inputs and outputs on the GPU."""

    def __init__(
        self,
        plan: bytes,
        inputs: "Mapping[str, Array]",
        *,
        builder: EngineBuilder,
        driver: CudaDriver,
        memory: DeviceMemory,
        clocks: ClockWatch,
        record: EngineRecord,
    ) -> None:
        """Load the engine, copy the inputs, run once, and capture a run if possible.

        Raises:
            UserError: the inputs do not fit the engine.
            VerificationError: the GPU refuses the engine.
        """
        super().__init__(plan, loader=builder, driver=driver, memory=memory)
        self._clocks, self._record = clocks, record
        self.fill(inputs)
        self._start, self._end = self._new_event(), self._new_event()
        self._launch = self._prepared()

    def __call__(self, runs: int) -> float:
        """Run ``runs`` times in a row; returns the mean milliseconds of a run by the GPU's clock."""
        driver, stream, launch, end = self._driver, self._memory.stream, self._launch, self._end
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

    def _new_event(self) -> CudaHandle:
        driver = self._driver
        event = driver.new_event()
        self.at_end(lambda: driver.destroy_event(event))
        return event

    def _prepared(self) -> Callable[[], None]:
        """Run once, then return the launch of a captured CUDA graph, or of a plain run where it cannot be captured."""
        driver, stream = self._driver, self._memory.stream
        self.enqueue()
        driver.synchronise()
        try:
            graph = driver.capture(stream, self.enqueue)
        except VerificationError as error:
            self._record.not_captured = str(error)
            return self.enqueue
        self.at_end(lambda: driver.destroy_graph(graph))
        return driver.launcher(graph, stream)


def open_gpu_backend(device: str, precision: str, *, index: int = 0, runtime: str | None = None) -> GpuBackend:
    """Open the GPU of an index through the installed TensorRT.

    Args:
        device: name of the device, such as "a100".
        precision: precision of all graphs.
        index: number of the GPU in the driver's order.
        runtime: tensorrt or tensorrt_rtx; None for the installed one.

    Raises:
        UserError: the precision is unknown.
        UnavailableError: the driver, the GPU, TensorRT, or a provider of GPU memory is missing.
    """
    driver = open_driver()
    gpus = driver.gpus()
    if not 0 <= index < len(gpus):
        raise UnavailableError(f"this machine has {len(gpus)} GPUs, and no GPU of number {index}")
    memory = open_memory(index)
    return GpuBackend(
        device=device,
        precision=precision,
        gpu=gpus[index],
        driver=driver,
        memory=memory,
        builder=EngineBuilder(
            find_variant() if runtime is None else load_variant(runtime),
            compute_capability=gpus[index].compute_capability,
        ),
        clocks=watch_clocks(driver.bus_id(index)),
    )


def gpu_fingerprint(index: int) -> dict[str, str | int]:
    """The fingerprint of the backend of ``open_gpu_backend``, without opening it.

    Raises:
        UnavailableError: the driver or TensorRT is missing.
    """
    driver = open_driver()
    return _fingerprint_of(driver.gpus()[index], driver, find_variant())


def _fingerprint_of(gpu: GpuInfo, driver: CudaDriver, variant: TensorRTVariant) -> dict[str, str | int]:
    return {
        "device_name": gpu.name,
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        # Not the version of the driver itself: only NVML reports it, and it may be missing. The conditions have it.
        "driver_cuda_version": driver.cuda_version(),
        "runtime": variant.name,
        "runtime_version": variant.version,
        "os": platform.system(),
        "arch": platform.machine(),
    }
