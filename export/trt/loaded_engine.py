"""A TensorRT engine loaded on a GPU, with buffers for its inputs and outputs; no timing.

``export/trt/engine_runner.py`` runs it on arrays, and ``latency/runtimes/tensorrt.py`` times it. Inputs may have any
shape within the engine's first optimisation profile; the shapes of outputs follow from it. Left out are outputs whose
shape depends on values, such as those of NonMaxSuppression, and engines whose inputs or outputs are not linear in GPU
memory: they are refused, because their buffers would have the wrong size.

An engine belongs to the thread that opened the GPU's memory, because it uses that thread's CUDA context.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from export.cuda import CudaDriver, DeviceMemory
from export.errors import UserError, VerificationError
from export.trt.bindings import CudaEngine, ExecutionContext
from export.trt.builder import EngineLoader

if TYPE_CHECKING:
    from export.runners import Array

NUMPY_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""numpy's type name by TensorRT's DataType."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTensor:
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]
    """-1 for a dynamic axis."""
    dtype: str
    """numpy's name."""
    smallest: tuple[int, ...] = ()
    """Smallest shape of an input; empty for an output."""
    largest: tuple[int, ...] = ()
    """Largest shape of an input; empty for an output."""


@dataclass(slots=True, kw_only=True)
class _Buffer:
    """GPU memory of an input or output."""

    address: int
    size: int
    """In bytes; an array may use less."""
    shape: tuple[int, ...]


class LoadedEngine:
    """An engine on the GPU: ``fill`` copies inputs, ``enqueue`` starts a run, ``outputs`` copies the results."""

    def __init__(self, plan: bytes, *, loader: EngineLoader, driver: CudaDriver, memory: DeviceMemory) -> None:
        """Load the engine.

        Args:
            plan: content of an engine file.
            loader: loader of the TensorRT that built it.
            driver: driver for copies.
            memory: memory for inputs and outputs, and the stream.

        Raises:
            UnavailableError: there is no driver.
            VerificationError: the GPU refuses the engine, or an input or output has no numpy type or is not linear
                memory.
        """
        engine = loader.load(plan)
        context = engine.create_execution_context()
        if context is None:
            raise VerificationError(f"the engine does not fit on the GPU: {loader.logged_errors()}")
        # Attributes are freed in this order: TensorRT needs a context freed before its engine, then the runtime.
        self.enqueue: Callable[[], None] = _enqueuer(context, memory.stream, loader)
        """Enqueue one run in the stream."""
        self._context, self._engine, self._loader = context, engine, loader
        self._driver, self._memory = driver, memory
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        tensors = {name: _tensor(engine, name) for name in names}
        self.engine_inputs = tuple(tensors[name] for name in names if _is_input(engine, name))
        self.engine_outputs = tuple(tensors[name] for name in names if not _is_input(engine, name))
        self._buffers: dict[str, _Buffer] = {}
        self._releases: list[Callable[[], None]] = []
        # At exit the interpreter frees everything anyway, in no defined order.
        weakref.finalize(self, _release, self._releases, self._buffers, memory).atexit = False

    def fill(self, inputs: "Mapping[str, Array]") -> None:
        """Copy the inputs to the GPU, cast to the engine's types, and allocate the outputs.

        Raises:
            UserError: the inputs are not the engine's, or their shapes are outside its optimisation profile.
            VerificationError: the GPU has no memory for them, or the outputs' shapes depend on values.
        """
        names = [tensor.name for tensor in self.engine_inputs]
        if sorted(names) != sorted(inputs):
            raise UserError(f"the graph has inputs {names}, and arrays were given for {list(inputs)}")
        for tensor in self.engine_inputs:
            _check_array(tensor, inputs[tensor.name])
        for tensor in self.engine_inputs:
            self._fill_input(tensor, inputs[tensor.name])
        if unknown := list(self._context.infer_shapes()):
            raise VerificationError(f"TensorRT cannot infer the outputs' shapes, because of {unknown}")
        for tensor in self.engine_outputs:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if min(shape, default=0) < 0:
                raise VerificationError(
                    f"the shape of output {tensor.name!r} depends on values; only fixed shapes can be run"
                )
            self._place(tensor, shape)
        # A copy from pageable memory may still be running, in another stream than the engine's.
        self._driver.synchronise()

    def outputs(self) -> "dict[str, Array]":
        """The outputs of the last run by name; waits until the run has ended."""
        import numpy as np

        self._driver.synchronise()
        arrays = {}
        for tensor in self.engine_outputs:
            buffer = self._buffers[tensor.name]
            arrays[tensor.name] = np.empty(buffer.shape, tensor.dtype)
            self._driver.copy_from_gpu(arrays[tensor.name], buffer.address)
        return arrays

    def at_end(self, release: Callable[[], None]) -> None:
        """Call ``release`` when this object is freed, in reverse order; it must not refer to this object."""
        self._releases.append(release)

    def _fill_input(self, tensor: EngineTensor, array: "Array") -> None:
        import numpy as np

        if -1 in tensor.shape and not self._context.set_input_shape(tensor.name, array.shape):
            raise VerificationError(
                f"TensorRT refuses {list(array.shape)} for input {tensor.name!r}: {self._loader.logged_errors()}"
            )
        buffer = self._place(tensor, array.shape)
        self._driver.copy_to_gpu(buffer.address, np.ascontiguousarray(array, dtype=tensor.dtype))

    def _place(self, tensor: EngineTensor, shape: tuple[int, ...]) -> _Buffer:
        """The buffer for an array of that shape, bound to the engine; the old buffer if it is large enough."""
        size, buffer = _size(shape, tensor.dtype), self._buffers.get(tensor.name)
        if buffer is not None and buffer.size >= size:
            buffer.shape = shape
            return buffer
        if buffer is not None:
            self._memory.free(self._buffers.pop(tensor.name).address)
        placed = _Buffer(address=self._memory.allocate(size), size=size, shape=shape)
        self._buffers[tensor.name] = placed
        if not self._context.set_tensor_address(tensor.name, placed.address):
            raise VerificationError(f"TensorRT refuses the memory of {tensor.name!r}: {self._loader.logged_errors()}")
        return placed


def _tensor(engine: CudaEngine, name: str) -> EngineTensor:
    """Describe a tensor; raise VerificationError unless it is linear GPU memory of a numpy type."""
    shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
    location, layout = engine.get_tensor_location(name).name, engine.get_tensor_format(name).name
    if kind not in NUMPY_TYPES or location != "DEVICE" or layout != "LINEAR":
        raise VerificationError(
            f"{name!r} is {kind} {list(shape)}, {layout} on {location}: LINEAR on DEVICE and one of "
            f"{', '.join(NUMPY_TYPES)} is needed"
        )
    smallest, largest = shape, shape
    if -1 in shape and _is_input(engine, name):
        smallest, _, largest = (tuple(bound) for bound in engine.get_tensor_profile_shape(name, 0))
    return EngineTensor(name=name, shape=shape, dtype=NUMPY_TYPES[kind], smallest=smallest, largest=largest)


def _is_input(engine: CudaEngine, name: str) -> bool:
    return bool(engine.get_tensor_mode(name).name == "INPUT")


def _check_array(tensor: EngineTensor, array: "Array") -> None:
    """Raise UserError unless the input accepts the array's shape and type."""
    import numpy as np

    fits = len(array.shape) == len(tensor.shape) and all(
        low <= side <= high for low, side, high in zip(tensor.smallest, array.shape, tensor.largest, strict=True)
    )
    if not fits:
        fixed = tensor.smallest == tensor.largest
        accepted = f"{list(tensor.smallest)}" if fixed else f"{list(tensor.smallest)} to {list(tensor.largest)}"
        raise UserError(f"input {tensor.name!r} accepts {accepted}, and the array is {list(array.shape)}")
    if not np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        raise UserError(f"input {tensor.name!r} accepts {tensor.dtype}, and the array is {array.dtype}")


def _enqueuer(context: ExecutionContext, stream: int, loader: EngineLoader) -> Callable[[], None]:
    """A function that enqueues one run in the stream, with as little Python overhead as possible."""
    enqueue = context.execute_async_v3

    def run() -> None:
        if not enqueue(stream):
            raise VerificationError(f"TensorRT cannot enqueue the engine: {loader.logged_errors()}")

    return run


def _size(shape: Sequence[int], dtype: str) -> int:
    """Size in bytes; at least 1, because 0 bytes cannot be allocated."""
    import numpy as np

    return max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)


def _release(releases: list[Callable[[], None]], buffers: dict[str, _Buffer], memory: DeviceMemory) -> None:
    while releases:
        releases.pop()()
    while buffers:
        memory.free(buffers.popitem()[1].address)
