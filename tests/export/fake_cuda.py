"""A simulated CUDA driver and TensorRT with simulated time; they record calls, and calls can be made to fail."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np

from export.cuda import DeviceMemory
from export.errors import VerificationError
from export.runners import Array
from export.trt.builder import BuiltEngine

STREAM = 0x7F00_0000_0008
"""Longer than 32 bits, like real handles."""
NOT_READY = 600
STATUS_TEXTS = {
    2: (b"CUDA_ERROR_OUT_OF_MEMORY", b"out of memory"),
    901: (b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", b"operation failed due to a previous error during capture"),
}


@dataclass
class FakeCuda:
    """The driver library as ctypes loads it: every function returns a status."""

    names: tuple[str, ...] = ("NVIDIA A100-SXM4-40GB", "Tesla T4")
    refuses: dict[str, int] = field(default_factory=dict)
    """By function: its status, if other than 0."""
    capturable: bool = True
    calls: list[str] = field(default_factory=list)
    memory: dict[int, bytes] = field(default_factory=dict)
    now_ms: float = 0.0
    """The GPU's time, which advances with every run."""
    capturing: bool = False

    def __post_init__(self) -> None:
        self._handles = count(0x7F00_0000_1000)
        self._events: dict[int, float] = {}
        self._queried: set[int] = set()

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def function(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.refuses:
                return self.refuses[name]
            do = getattr(type(self), f"_{name}", None)
            return 0 if do is None else do(self, *arguments) or 0

        return function

    def _cuDeviceGetCount(self, number: Any) -> None:
        number._obj.value = len(self.names)

    def _cuDeviceGet(self, device: Any, index: int) -> None:
        device._obj.value = index

    def _cuDeviceGetName(self, text: Any, _: int, device: Any) -> None:
        text.value = self.names[device.value].encode()

    def _cuDeviceTotalMem_v2(self, size: Any, _: Any) -> None:
        size._obj.value = 40 * 2**30

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> None:
        value._obj.value = {75: (8, 7), 76: (0, 5)}[attribute][device.value]

    def _cuDeviceGetPCIBusId(self, text: Any, _: int, device: Any) -> None:
        text.value = b"0000:3B:00.%d" % device.value

    def _cuDriverGetVersion(self, number: Any) -> None:
        number._obj.value = 13020

    def _cuMemcpyHtoD_v2(self, address: Any, source: Any, size: Any) -> None:
        self.memory[address.value] = ctypes.string_at(source.value, size.value)

    def _cuMemcpyDtoH_v2(self, target: Any, address: Any, size: Any) -> None:
        ctypes.memmove(target.value, self.memory[address.value], size.value)

    def _cuEventCreate(self, event: Any, _: Any) -> None:
        event._obj.value = next(self._handles)

    def _cuEventRecord(self, event: Any, stream: Any) -> None:
        assert stream.value == STREAM
        self._events[event.value] = self.now_ms
        self._queried.discard(event.value)

    def _cuEventQuery(self, event: Any) -> int:
        """Not ready at the first query, so that a caller that queries once does not wait."""
        if event.value in self._queried:
            return 0
        self._queried.add(event.value)
        return NOT_READY

    def _cuEventElapsedTime(self, elapsed: Any, start: Any, end: Any) -> None:
        elapsed._obj.value = self._events[end.value] - self._events[start.value]

    def _cuStreamBeginCapture_v2(self, stream: Any, _: Any) -> None:
        assert stream.value == STREAM
        self.capturing = True

    def _cuStreamEndCapture(self, _: Any, graph: Any) -> int:
        self.capturing = False
        if not self.capturable:
            return 901
        graph._obj.value = next(self._handles)
        return 0

    def _cuGraphInstantiateWithFlags(self, executable: Any, _: Any, __: Any) -> None:
        executable._obj.value = next(self._handles)

    def _cuGraphLaunch(self, _: Any, stream: Any) -> None:
        assert stream.value == STREAM
        self.now_ms += 2.0

    def _cuGetErrorName(self, status: int, text: Any) -> None:
        text._obj.value = STATUS_TEXTS[status][0]

    def _cuGetErrorString(self, status: int, text: Any) -> None:
        text._obj.value = STATUS_TEXTS[status][1]


def fake_memory(freed: list[int] | None = None) -> DeviceMemory:
    """Addresses without memory; freed addresses are added to ``freed``."""
    addresses = count(0x7F00_0010_0000, 0x1000)
    freed_addresses: list[int] = [] if freed is None else freed

    def new(size: int) -> tuple[int, Callable[[], object]]:
        if size > 2**30:
            raise MemoryError(f"{size} bytes are too many")
        address = next(addresses)
        return address, lambda: freed_addresses.append(address)

    return DeviceMemory(provider="fake", stream=STREAM, new=new, error_type=MemoryError, keep_alive=None)


@dataclass
class FakeTensorRT:
    """A builder and loader whose engines have an input "x" and an output "y" = 2 x."""

    cuda: FakeCuda
    kind: str = "FLOAT"
    shape: tuple[int, ...] = (2, 3)
    """Shape of both; -1 for a dynamic axis, from 1 to 4."""
    location: str = "DEVICE"
    layout: str = "LINEAR"
    fits: bool = True
    """The engine fits on the GPU."""
    depends_on_values: bool = False
    """The shape of "y" depends on the values of "x"."""
    variant: Any = field(default_factory=lambda: SimpleNamespace(name="tensorrt", version="10.13"))
    num_io_tensors: int = 2

    def build(self, content: bytes) -> BuiltEngine:
        if content == b"refused":
            raise VerificationError("tensorrt's parser refuses the ONNX graph: Conv 'c': why")
        return BuiltEngine(plan=content, layers={self.kind: 3}, warnings=())

    def load(self, _: bytes) -> "FakeTensorRT":
        return self

    def logged_errors(self) -> str:
        return "capture of a forbidden call"

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name == "x" else "OUTPUT")

    def get_tensor_dtype(self, _: str) -> Any:
        return SimpleNamespace(name=self.kind)

    def get_tensor_shape(self, _: str) -> tuple[int, ...]:
        return self.shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("x", 0)
        return [tuple(bound if side < 0 else side for side in self.shape) for bound in (1, 2, 4)]

    def get_tensor_location(self, _: str) -> Any:
        return SimpleNamespace(name=self.location)

    def get_tensor_format(self, _: str) -> Any:
        return SimpleNamespace(name=self.layout)

    def create_execution_context(self) -> "FakeContext | None":
        return FakeContext(self) if self.fits else None


@dataclass
class FakeContext:
    """The execution context of an engine."""

    engine: FakeTensorRT
    shape: tuple[int, ...] = ()
    addresses: dict[str, int] = field(default_factory=dict)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert (name, len(shape)) == ("x", len(self.engine.shape))
        self.shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape or min(self.engine.shape) > 0 else ["x"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.shape or self.engine.shape
        return (-1, *shape[1:]) if self.engine.depends_on_values and name == "y" else shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        cuda = self.engine.cuda
        if cuda.capturing:
            return cuda.capturable
        dtype = {"FLOAT": np.float32, "HALF": np.float16}[self.engine.kind]
        doubled: Array = np.frombuffer(cuda.memory[self.addresses["x"]], dtype) * dtype(2)
        cuda.memory[self.addresses["y"]] = doubled.tobytes()
        cuda.now_ms += 5.0
        return True
