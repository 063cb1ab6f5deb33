"""Times ONNX graphs on an NVIDIA GPU as TensorRT engines, like NVIDIA's trtexec.

Each graph becomes an engine of its own in this process, by one builder for all, with its inputs copied to the GPU
once. First it is enqueued without a CUDA graph, which is when TensorRT initialises; then one run is captured into a
CUDA graph, which takes a single call to launch. ``latency/runtimes/gpu.py`` describes a sample. Where a graph cannot be
captured, its runs are enqueued without a CUDA graph, and the conditions record it, because then the launches of the CPU
may be what is measured.

Not timed: transfers, building and loading. Shapes are fixed, and the precision is that of the ONNX graph
(``export/precision.py``).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from export.cuda import CudaDriver, DeviceMemory, open_memory
from export.errors import UserError, VerificationError
from export.trt.bindings import find_variant, load_variant
from export.trt.builder import EngineBuilder
from export.trt.loaded_engine import LoadedEngine
from export.trt.options import EngineOptions
from export.trt.precision_check import ENGINE_TYPES, check_types
from latency.clocks import ClockWatch
from latency.protocol import Sampler, alternating
from latency.runtimes.gpu import (
    GpuBackend,
    GpuParts,
    GpuSampler,
    GraphRecord,
    fingerprint_of,
    gpu_fingerprint,
    open_parts,
    unlocked_on_error,
)

if TYPE_CHECKING:
    from export.runners import Array

TENSORRT = "tensorrt"


class TensorRTBackend(GpuBackend):
    """A backend that builds an engine of each graph."""

    runtime: ClassVar[str] = TENSORRT
    graph_form: ClassVar[Literal["onnx"]] = "onnx"

    def __init__(self, parts: GpuParts, *, memory: DeviceMemory, builder: EngineBuilder) -> None:
        """Combine parts on one GPU; ``open_tensorrt`` makes them.

        Args:
            parts: of every backend of a GPU.
            memory: provides memory for inputs and outputs, and the stream.
            builder: builds all engines.

        Raises:
            UserError: the precision is unknown.
        """
        if parts.precision not in ENGINE_TYPES:
            raise UserError(f"unknown precision {parts.precision!r}; choose from {', '.join(ENGINE_TYPES)}")
        super().__init__(parts)
        self._memory, self._builder = memory, builder
        self._layers: Counter[str] = Counter()

    def fingerprint(self) -> dict[str, str | int]:
        variant = self._builder.variant
        return fingerprint_of(self._gpu, self._driver, runtime=variant.name, version=variant.version)

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
        record = self._new_record(hashlib.sha256(content).hexdigest()[:12])
        engines = [self._loaded(built.plan, inputs, record) for _ in range(copies)]
        self._layers.update(built.layers)
        return engines

    def open_plan(self, plan: bytes, inputs: "Mapping[str, Array]") -> Sampler:
        """Load a serialised engine, to be timed on ``inputs``.

        Raises:
            UserError: the inputs do not fit the engine.
            VerificationError: the GPU refuses the engine.
        """
        return self._loaded(plan, inputs, self._new_record(hashlib.sha256(plan).hexdigest()[:12]))

    def _loaded(self, plan: bytes, inputs: "Mapping[str, Array]", record: GraphRecord) -> "TimedEngine":
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
        common = super().conditions()
        return {
            "clocks": common.pop("clocks"),
            "memory_provider": self._memory.provider,
            "engines": common.pop("graphs"),
            "layer_types": dict(self._layers),
            **common,
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
        record: GraphRecord,
    ) -> None:
        """Load the engine, copy the inputs, run once, and capture a run if possible.

        Raises:
            UserError: the inputs do not fit the engine.
            VerificationError: the GPU refuses the engine.
        """
        super().__init__(plan, loader=builder, driver=driver, memory=memory)
        self._record = record
        self.fill(inputs)
        self._sampler = GpuSampler(self._prepared(), driver=driver, stream=memory.stream, clocks=clocks, record=record)

    def __call__(self, runs: int) -> float:
        """Run ``runs`` times in a row; returns the mean milliseconds of a run by the GPU's clock."""
        return self._sampler(runs)

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


def open_tensorrt(
    device: str, precision: str, *, index: int = 0, runtime: str | None = None, options: EngineOptions | None = None
) -> TensorRTBackend:
    """Open the GPU of an index through the installed TensorRT.

    Args:
        device: name of the device, such as "a100".
        precision: precision of all graphs.
        index: number of the GPU in the driver's order.
        runtime: tensorrt or tensorrt_rtx; None for the installed one.
        options: how engines are built; ``open_plan`` loads a version-compatible engine only if they say so.

    Raises:
        UserError: the precision is unknown, or TensorRT does not support an option.
        UnavailableError: the driver, the GPU, TensorRT, or a provider of GPU memory is missing.
    """
    with unlocked_on_error(open_parts(device, precision, index)) as parts:
        memory = open_memory(index)
        variant = find_variant() if runtime is None else load_variant(runtime)
        builder = EngineBuilder(variant, compute_capability=parts.gpu.compute_capability, options=options)
        return TensorRTBackend(parts, memory=memory, builder=builder)


def tensorrt_fingerprint(index: int) -> dict[str, str | int]:
    """The fingerprint of the backend of ``open_tensorrt``, without opening it.

    Raises:
        UnavailableError: the driver or TensorRT is missing.
    """
    variant = find_variant()
    return gpu_fingerprint(index, runtime=variant.name, version=variant.version)
