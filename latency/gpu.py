"""Times ONNX graphs on an NVIDIA GPU as TensorRT engines, the way NVIDIA's trtexec does.

Each graph becomes an engine of its own in this process, by one builder for all, with its inputs copied to the GPU
once. What is timed is the engine's work alone: first it is enqueued plainly, which is where TensorRT sets itself up;
then one run is captured into a CUDA graph, which takes a single call to launch. A sample is the GPU's own time
between two events around as many launches as are asked for, and the processor waits for the second one awake, since a
sleep would let both clocks fall. Where a graph cannot be captured its runs are enqueued plainly, and the conditions
tell, because then the processor may be what is measured.

Not timed: transfers, building and loading. Shapes are fixed, and the precision is what the ONNX graph says
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
from latency.protocol import Sampler, in_turns

if TYPE_CHECKING:
    from export.runners import Array

_STARVED = 0.8
"""trtexec's limit: where the processor needs more than this part of the GPU's time, it may be what is measured."""


@dataclass(slots=True, kw_only=True)
class EngineRecord:
    """What there is to tell of one engine afterwards."""

    graph: str
    """The beginning of the sha256 of the ONNX graph."""
    not_captured: str | None = None
    """Why it runs without a CUDA graph."""
    samples: int = 0
    starved: int = 0
    """Samples in which the GPU may have waited for the processor."""


class GpuBackend:
    """One GPU at one precision, as something that times ONNX graphs. Close it, or use it in a ``with``."""

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
        """Of its parts, all on one GPU; ``open_gpu_backend`` makes them.

        Args:
            device: its name here, such as "a100".
            precision: of all graphs.
            gpu: what the driver says of it.
            driver: for events and captures.
            memory: for inputs and outputs, and the stream.
            builder: for all engines.
            clocks: sampled while the GPU works.
        """
        if precision not in ENGINE_TYPES:
            raise UserError(f"there is no precision {precision!r}; known are {', '.join(ENGINE_TYPES)}")
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
        """Let the GPU's clock go; the conditions can still be read."""
        self._clocks.unlock()

    def fingerprint(self) -> dict[str, str | int]:
        return _fingerprint_of(self._gpu, self._driver, self._builder.variant)

    def open(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> Sampler:
        """Engines of an ONNX graph, ready to be timed in turns; ``engines`` has the arguments and errors."""
        return in_turns(self.engines(content, inputs, copies=copies))

    def engines(self, content: bytes, inputs: "Mapping[str, Array]", *, copies: int = 1) -> "list[TimedEngine]":
        """An engine of an ONNX graph, built once and loaded so many times.

        Args:
            content: the graph, of fixed shapes and of the backend's precision.
            inputs: by name; they are cast to the types that the graph takes.
            copies: of the engine, each with weights of its own on the GPU.

        Raises:
            UserError: the inputs are not the graph's.
            VerificationError: the parser or the builder refuses the graph, the engine computes in other types than its
                precision's, or the GPU refuses it.
        """
        built = self._builder.build(content)
        check_types(built.layers, self.precision, may_lack_int8=True)
        record = EngineRecord(graph=hashlib.sha256(content).hexdigest()[:12])
        engines = [self._loaded(built.plan, inputs, record) for _ in range(copies)]
        self._layers.update(built.layers)
        self._records.append(record)
        return engines

    def open_plan(self, plan: bytes, inputs: "Mapping[str, Array]") -> Sampler:
        """An engine that was built before, ready to be timed on ``inputs``.

        Raises:
            UserError: the inputs are not the engine's.
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
        """What the GPU went through so far, as JSON."""
        return {
            "clocks": self._clocks.summary(),
            "memory_provider": self._memory.provider,
            "engines": len(self._records),
            "layer_types": dict(self._layers),
            "without_cuda_graph": {one.graph: one.not_captured for one in self._records if one.not_captured},
            # More often than not, as the median over samples would have it.
            "starved_by_processor": [one.graph for one in self._records if 2 * one.starved > one.samples],
        }


class TimedEngine(LoadedEngine):
    """An engine with its inputs and outputs on the GPU; calling it runs it so many times in a row."""

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
        """Load the engine, copy the inputs, run once, and capture a run if that can be.

        Raises:
            UserError: the inputs are not the engine's.
            VerificationError: the GPU refuses the engine.
        """
        super().__init__(plan, loader=builder, driver=driver, memory=memory)
        self._clocks, self._record = clocks, record
        self.fill(inputs)
        self._start, self._end = self._new_event(), self._new_event()
        self._launch = self._prepared()

    def __call__(self, runs: int) -> float:
        """Milliseconds a run, over ``runs`` of them in a row, by the GPU's clock."""
        driver, stream, launch, end = self._driver, self._memory.stream, self._launch, self._end
        began = time.perf_counter_ns()
        driver.record(self._start, stream)
        for _ in range(runs):
            launch()
        driver.record(end, stream)
        enqueued_ms = (time.perf_counter_ns() - began) / 1e6
        self._clocks.sample()  # here the processor is idle and the GPU is not
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
        """Run once; then what a run takes: a captured graph's launch, or a plain one where it cannot be captured."""
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
    """The GPU of that index, by the driver's count, through the TensorRT installed.

    Args:
        device: its name here, such as "a100".
        precision: of all graphs.
        index: by the driver's count.
        runtime: tensorrt or tensorrt_rtx; None for the one that is here.

    Raises:
        UserError: there is no such precision.
        UnavailableError: the driver, the GPU, TensorRT, or what gives memory is missing.
    """
    driver = open_driver()
    gpus = driver.gpus()
    if not 0 <= index < len(gpus):
        raise UnavailableError(f"this machine has {len(gpus)} GPUs, and none of number {index}")
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
    """That of the backend which ``open_gpu_backend`` would open, without opening it.

    Raises:
        UnavailableError: the driver or TensorRT is missing.
    """
    driver = open_driver()
    return _fingerprint_of(driver.gpus()[index], driver, find_variant())


def _fingerprint_of(gpu: GpuInfo, driver: CudaDriver, variant: TensorRTVariant) -> dict[str, str | int]:
    return {
        "processor": gpu.name,
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        # Not the driver's own version: only NVML tells that, which is not everywhere. The conditions have it.
        "driver_cuda_version": driver.cuda_version(),
        "runtime": variant.name,
        "runtime_version": variant.version,
        "os": platform.system(),
        "arch": platform.machine(),
    }
