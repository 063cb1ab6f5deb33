"""NVIDIA's CUDA driver: which GPUs there are, memory and a stream on one of them, events, and captured graphs.

The driver is called through ctypes for what no package gives alike. Memory and the stream come from whichever package
is there: pycuda, cuda-python or torch. All three work in the GPU's primary context, which TensorRT uses too. Every
call's status is checked; what the driver refuses is raised with the driver's own words.

Asking which GPUs there are is safe on any machine. Signatures and numbers: cuda.h of CUDA 13, whose exported names
(the ``_v2`` ones) have been the same since CUDA 11.4.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from export.errors import UnavailableError, VerificationError

if TYPE_CHECKING:
    import numpy as np

_NO_GPU = (34, 100)
"""CUDA_ERROR_STUB_LIBRARY, as of the library that programs are linked with, and CUDA_ERROR_NO_DEVICE."""
_NOT_READY = 600
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
_CAPTURE_THREAD_LOCAL = 1
"""What other threads do meanwhile does not end the capture."""

CudaHandle = ctypes.c_void_p
"""Of an event or a graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGpu:
    """What the driver says of one device on this machine."""

    name: str
    compute_capability: tuple[int, int]
    memory_mb: int
    """All that it has, in units of 2**20 bytes."""


def load_driver() -> ctypes.CDLL | None:
    """NVIDIA's driver library, None where there is none: safe to ask anywhere, unlike TensorRT itself."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def found_gpus() -> tuple[FoundGpu, ...]:
    """The NVIDIA devices that the driver gives, in its order; none where there is no driver.

    Raises:
        UnavailableError: the driver is there and does not start, and why.
    """
    library = load_driver()
    return () if library is None else CudaDriver(library).gpus()


def open_driver() -> "CudaDriver":
    """The driver of this machine.

    Raises:
        UnavailableError: there is none.
    """
    library = load_driver()
    if library is None:
        raise UnavailableError("no NVIDIA driver was found on this machine: install it, or use one that has a GPU")
    return CudaDriver(library)


class CudaDriver:
    """The driver's functions that are needed here, each with its status checked."""

    def __init__(self, library: Any) -> None:
        """Nothing is called yet.

        Args:
            library: what ``load_driver`` gives.
        """
        self._library = library

    def gpus(self) -> tuple[FoundGpu, ...]:
        """All GPUs.

        Raises:
            UnavailableError: the driver does not start.
        """
        status = self._library.cuInit(0)
        if status in _NO_GPU:
            return ()
        if status != 0:
            raise UnavailableError(f"the NVIDIA driver on this machine does not start: {self._words(status)}")
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return tuple(self._gpu(index) for index in range(count.value))

    def cuda_version(self) -> str:
        """The newest CUDA that the driver serves, such as "13.0"."""
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def bus_id(self, index: int) -> str:
        """Where a GPU sits: NVML counts GPUs in another order, and knows this name."""
        text = ctypes.create_string_buffer(32)
        self._call("cuDeviceGetPCIBusId", text, len(text), self._device(index))
        return text.value.decode()

    def synchronise(self) -> None:
        """Wait until all that was asked of the GPU is done."""
        self._call("cuCtxSynchronize")

    def copy_to_gpu(self, address: int, array: "np.ndarray[Any, np.dtype[Any]]") -> None:
        """Copy a contiguous array; from ordinary memory this may still be under way when it returns."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), size)

    def copy_from_gpu(self, array: "np.ndarray[Any, np.dtype[Any]]", address: int) -> None:
        """Fill a contiguous array."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), size)

    def new_event(self) -> CudaHandle:
        """One that keeps the time when the GPU comes to it."""
        event = CudaHandle()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def record(self, event: CudaHandle, stream: int) -> None:
        """Put the event behind all that is in the stream."""
        self._call("cuEventRecord", event, CudaHandle(stream))

    def reached(self, event: CudaHandle) -> bool:
        """Whether the GPU has come to the event."""
        status = self._library.cuEventQuery(event)
        if status not in (0, _NOT_READY):
            raise self._refusal("cuEventQuery", status)
        return bool(status == 0)

    def elapsed_ms(self, start: CudaHandle, end: CudaHandle) -> float:
        """By the GPU's clock, between two events that it has come to."""
        elapsed = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
        return elapsed.value

    def capture(self, stream: int, enqueue: Callable[[], None]) -> CudaHandle:
        """What ``enqueue`` puts into the stream, as a graph that one call launches; nothing of it runs now.

        Raises:
            VerificationError: something in it cannot be captured; the stream is as it was before.
        """
        self._call("cuStreamBeginCapture_v2", CudaHandle(stream), ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        graph, executable = CudaHandle(), CudaHandle()
        try:
            try:
                enqueue()
            finally:  # whatever happened, the stream must leave the capture
                status = self._library.cuStreamEndCapture(CudaHandle(stream), ctypes.byref(graph))
            if status != 0:
                raise self._refusal("cuStreamEndCapture", status)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_uint64(0))
        finally:
            if graph:
                self._call("cuGraphDestroy", graph)
        return executable

    def launcher(self, graph: CudaHandle, stream: int) -> Callable[[], None]:
        """A call that puts a captured graph into the stream, with as little Python about it as can be."""
        launch, where = self._library.cuGraphLaunch, CudaHandle(stream)

        def run() -> None:
            status = launch(graph, where)
            if status != 0:
                raise self._refusal("cuGraphLaunch", status)

        return run

    def forget_event(self, event: CudaHandle) -> None:
        """Give it back."""
        self._call("cuEventDestroy_v2", event)

    def forget_graph(self, graph: CudaHandle) -> None:
        """Give back what ``capture`` gave."""
        self._call("cuGraphExecDestroy", graph)

    def _gpu(self, index: int) -> FoundGpu:
        device, name = self._device(index), ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), device)
        memory = ctypes.c_size_t()
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        major, minor = (
            self._attribute(attribute, device) for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
        )
        return FoundGpu(name=name.value.decode(), compute_capability=(major, minor), memory_mb=memory.value // 2**20)

    def _device(self, index: int) -> ctypes.c_int:
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        return device

    def _attribute(self, attribute: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise self._refusal(name, status)

    def _refusal(self, name: str, status: int) -> VerificationError:
        return VerificationError(f"the CUDA driver refuses {name}: {self._words(status)}")

    def _words(self, status: int) -> str:
        """Such as "CUDA_ERROR_OUT_OF_MEMORY (out of memory)"."""
        words = []
        for function in (self._library.cuGetErrorName, self._library.cuGetErrorString):
            text = ctypes.c_char_p()
            function(status, ctypes.byref(text))
            words.append((text.value or b"unknown").decode())
        return f"{words[0]} ({words[1]}), status {status}"


class DeviceMemory:
    """Memory on one GPU, and a stream of its own there."""

    def __init__(
        self,
        *,
        provider: str,
        stream: int,
        new: Callable[[int], tuple[int, Callable[[], object]]],
        refusal: type[Exception],
        keeps: object,
    ) -> None:
        """Of one package.

        Args:
            provider: its name.
            stream: handle of a stream other than the default one, which TensorRT would wait for at every step.
            new: allocates so many bytes; gives the address, and a call that frees it.
            refusal: what it raises where there is no memory left.
            keeps: what must live as long as this.
        """
        self.provider = provider
        self.stream = stream
        self._new = new
        self._refusal = refusal
        self._frees: dict[int, Callable[[], object]] = {}
        self._keeps = keeps

    def allocate(self, size: int) -> int:
        """The address of ``size`` bytes.

        Raises:
            VerificationError: the GPU has no such memory left.
        """
        try:
            address, free = self._new(size)
        except self._refusal as error:
            raise VerificationError(f"{self.provider} gives no {size} bytes of GPU memory: {error}") from error
        self._frees[address] = free
        return address

    def free(self, address: int) -> None:
        """Give back what ``allocate`` gave."""
        self._frees.pop(address)()


def open_memory(index: int) -> DeviceMemory:
    """Memory on the GPU of that index, whose primary context becomes this thread's.

    Raises:
        UnavailableError: there is no driver, or no package that gives memory.
    """
    open_driver()
    reasons = []
    for name, provide in (("pycuda", _pycuda_memory), ("cuda-python", _cuda_python_memory), ("torch", _torch_memory)):
        try:
            return provide(index)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {str(error).strip() or type(error).__name__}")
    raise UnavailableError(
        f"no package here gives GPU memory ({'; '.join(reasons)}): pip install cuda-python, or pip install pycuda"
    )


def _pycuda_memory(index: int) -> DeviceMemory:
    from pycuda import driver

    # What this module goes by when it is imported. Not autoinit, which makes a second context that TensorRT is not in.
    os.environ["CUDA_DEVICE"] = str(index)
    from pycuda import autoprimaryctx

    if autoprimaryctx.device.pci_bus_id() != driver.Device(index).pci_bus_id():
        raise UnavailableError(f"pycuda uses another GPU than number {index} in this process: measure in a fresh one")
    stream = driver.Stream()

    def new(size: int) -> tuple[int, Callable[[], object]]:
        allocation = driver.mem_alloc(size)
        return int(allocation), allocation.free

    return DeviceMemory(provider="pycuda", stream=stream.handle, new=new, refusal=driver.Error, keeps=stream)


def _cuda_python_memory(index: int) -> DeviceMemory:
    from cuda.bindings import driver

    def checked(answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"the CUDA driver answers {status.name}")
        return values[0] if values else None

    checked(driver.cuInit(0))
    context = checked(driver.cuDevicePrimaryCtxRetain(checked(driver.cuDeviceGet(index))))
    checked(driver.cuCtxSetCurrent(context))
    stream = checked(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value))

    def new(size: int) -> tuple[int, Callable[[], object]]:
        pointer = checked(driver.cuMemAlloc(size))
        return int(pointer), partial(driver.cuMemFree, pointer)

    return DeviceMemory(provider="cuda-python", stream=int(stream), new=new, refusal=RuntimeError, keeps=stream)


def _torch_memory(index: int) -> DeviceMemory:
    import torch

    if not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} sees no GPU: it is built without CUDA, or for another driver")
    torch.cuda.set_device(index)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def new(size: int) -> tuple[int, Callable[[], object]]:
        storage = torch.empty(size, dtype=torch.uint8, device="cuda").untyped_storage()
        return storage.data_ptr(), partial(storage.resize_, 0)

    return DeviceMemory(provider="torch", stream=stream.cuda_stream, new=new, refusal=RuntimeError, keeps=stream)
