"""A TensorRT engine on a GPU, with memory for what goes in and comes out; nothing of timing.

``export/trt/engine_runner.py`` makes of it what runs a network on arrays, and ``latency/gpu.py`` what times one.
Inputs may
have any shape within the engine's optimisation profile, of which the first is used; outputs get the shapes that follow
from it. Left out: outputs whose shape depends on values, such as those of NonMaxSuppression, and engines whose inputs
or outputs are not plain rows in GPU memory. They are refused, since their memory would be of the wrong size.

All of it belongs to the thread that opened the GPU's memory, whose CUDA context it uses.
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
"""By TensorRT's DataType."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTensor:
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]
    """-1 for an axis that may vary."""
    dtype: str
    """numpy's name."""
    smallest: tuple[int, ...] = ()
    """Of an input: the least that its axes may be."""
    largest: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Buffer:
    """Memory of an input or output on the GPU."""

    address: int
    size: int
    """In bytes, of which an array may use less."""
    shape: tuple[int, ...]


class LoadedEngine:
    """An engine on the GPU: ``fill`` it with inputs, ``enqueue`` runs, and take its ``outputs``."""

    def __init__(self, plan: bytes, *, loader: EngineLoader, driver: CudaDriver, memory: DeviceMemory) -> None:
        """Load the engine.

        Args:
            plan: what an engine file holds.
            loader: of the TensorRT that built it.
            driver: for copies.
            memory: for inputs and outputs, and the stream.

        Raises:
            UnavailableError: there is no driver.
            VerificationError: the GPU refuses the engine, or it exchanges what arrays cannot hold.
        """
        engine = loader.load(plan)
        context = engine.create_execution_context()
        if context is None:
            raise VerificationError(f"the engine does not fit on the GPU: {loader.complaint()}")
        # In this order they go again: TensorRT wants a context gone before its engine, and that before its runtime.
        self.enqueue: Callable[[], None] = _enqueuer(context, memory.stream, loader)
        """Put one run into the stream."""
        self._context, self._engine, self._loader = context, engine, loader
        self._driver, self._memory = driver, memory
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        tensors = {name: _tensor(engine, name) for name in names}
        self.engine_inputs = tuple(tensors[name] for name in names if _is_input(engine, name))
        self.engine_outputs = tuple(tensors[name] for name in names if not _is_input(engine, name))
        self._buffers: dict[str, _Buffer] = {}
        self._releases: list[Callable[[], None]] = []
        # The interpreter's end frees all of it anyway, by then in no order.
        weakref.finalize(self, _let_go, self._releases, self._buffers, memory).atexit = False

    def fill(self, inputs: "Mapping[str, Array]") -> None:
        """Copy the inputs to the GPU, cast to the engine's types, and make room for the outputs that follow from them.

        Raises:
            UserError: they are not the engine's, or of shapes outside its optimisation profile.
            VerificationError: the GPU has no memory for them, or the outputs' shapes depend on values.
        """
        wanted = [tensor.name for tensor in self.engine_inputs]
        if sorted(wanted) != sorted(inputs):
            raise UserError(f"the graph has inputs {wanted}, and arrays were given for {list(inputs)}")
        for tensor in self.engine_inputs:
            _check_array(tensor, inputs[tensor.name])
        for tensor in self.engine_inputs:
            self._fill_one(tensor, inputs[tensor.name])
        if unknown := list(self._context.infer_shapes()):
            raise VerificationError(f"TensorRT does not know the outputs' shapes, because of {unknown}")
        for tensor in self.engine_outputs:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if min(shape, default=0) < 0:
                raise VerificationError(
                    f"the shape of output {tensor.name!r} depends on values; only fixed ones can be run"
                )
            self._place(tensor, shape)
        # A copy from ordinary memory may still be under way, in another stream than the engine's.
        self._driver.synchronise()

    def outputs(self) -> "dict[str, Array]":
        """What the last run gave, by name; waits until it has ended."""
        import numpy as np

        self._driver.synchronise()
        arrays = {}
        for tensor in self.engine_outputs:
            buffer = self._buffers[tensor.name]
            arrays[tensor.name] = np.empty(buffer.shape, tensor.dtype)
            self._driver.copy_from_gpu(arrays[tensor.name], buffer.address)
        return arrays

    def at_end(self, release: Callable[[], None]) -> None:
        """Call ``release`` when this is no longer needed, the last one first; it must not refer to this."""
        self._releases.append(release)

    def _fill_one(self, tensor: EngineTensor, array: "Array") -> None:
        import numpy as np

        if -1 in tensor.shape and not self._context.set_input_shape(tensor.name, array.shape):
            raise VerificationError(
                f"TensorRT refuses {list(array.shape)} for input {tensor.name!r}: {self._loader.complaint()}"
            )
        buffer = self._place(tensor, array.shape)
        self._driver.copy_to_gpu(buffer.address, np.ascontiguousarray(array, dtype=tensor.dtype))

    def _place(self, tensor: EngineTensor, shape: tuple[int, ...]) -> _Buffer:
        """Memory for an array of that shape, where the engine looks for it: the same as before if that suffices."""
        size, buffer = _size(shape, tensor.dtype), self._buffers.get(tensor.name)
        if buffer is not None and buffer.size >= size:
            buffer.shape = shape
            return buffer
        if buffer is not None:
            self._memory.free(self._buffers.pop(tensor.name).address)
        placed = _Buffer(address=self._memory.allocate(size), size=size, shape=shape)
        self._buffers[tensor.name] = placed
        if not self._context.set_tensor_address(tensor.name, placed.address):
            raise VerificationError(f"TensorRT refuses the memory of {tensor.name!r}: {self._loader.complaint()}")
        return placed


def _tensor(engine: CudaEngine, name: str) -> EngineTensor:
    """Raise VerificationError where plain memory on the GPU does not hold it."""
    shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
    location, layout = engine.get_tensor_location(name).name, engine.get_tensor_format(name).name
    if kind not in NUMPY_TYPES or location != "DEVICE" or layout != "LINEAR":
        raise VerificationError(
            f"{name!r} is {kind} {list(shape)}, {layout} on {location}: LINEAR on DEVICE and one of "
            f"{', '.join(NUMPY_TYPES)} is needed"
        )
    smallest, largest = shape, shape
    if -1 in shape and _is_input(engine, name):
        smallest, _, largest = (tuple(one) for one in engine.get_tensor_profile_shape(name, 0))
    return EngineTensor(name=name, shape=shape, dtype=NUMPY_TYPES[kind], smallest=smallest, largest=largest)


def _is_input(engine: CudaEngine, name: str) -> bool:
    return bool(engine.get_tensor_mode(name).name == "INPUT")


def _check_array(tensor: EngineTensor, array: "Array") -> None:
    """Raise UserError where the array is not of a shape and kind that the input takes."""
    import numpy as np

    fits = len(array.shape) == len(tensor.shape) and all(
        low <= side <= high for low, side, high in zip(tensor.smallest, array.shape, tensor.largest, strict=True)
    )
    if not fits:
        fixed = tensor.smallest == tensor.largest
        takes = f"{list(tensor.smallest)}" if fixed else f"{list(tensor.smallest)} to {list(tensor.largest)}"
        raise UserError(f"input {tensor.name!r} takes {takes}, and the array is {list(array.shape)}")
    if not np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        raise UserError(f"input {tensor.name!r} takes {tensor.dtype}, and the array is {array.dtype}")


def _enqueuer(context: ExecutionContext, stream: int, loader: EngineLoader) -> Callable[[], None]:
    """A call that puts one run into the stream, with as little Python about it as can be."""
    enqueue = context.execute_async_v3

    def run() -> None:
        if not enqueue(stream):
            raise VerificationError(f"TensorRT does not enqueue the engine: {loader.complaint()}")

    return run


def _size(shape: Sequence[int], dtype: str) -> int:
    """In bytes; 1 at least, since nothing cannot be allocated."""
    import numpy as np

    return max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)


def _let_go(releases: list[Callable[[], None]], buffers: dict[str, _Buffer], memory: DeviceMemory) -> None:
    while releases:
        releases.pop()()
    while buffers:
        memory.free(buffers.popitem()[1].address)
