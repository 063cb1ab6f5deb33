"""NVIDIA's CUDA driver: the list of GPUs, memory and a stream on a GPU, events, and captured graphs.

The driver is called through ctypes, because no package offers all of these functions. Memory and the stream come from
the package that is installed: pycuda, cuda-python or torch. All three use the GPU's primary context, as TensorRT does.
Every call's status is checked, and errors have the driver's own text.

Listing the GPUs is safe on any machine. Signatures and numbers: cuda.h of CUDA 13, whose exported names (with ``_v2``)
have been the same since CUDA 11.4.
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
"""CUDA_ERROR_STUB_LIBRARY, which the stub library for linking returns, and CUDA_ERROR_NO_DEVICE."""
_NOT_READY = 600
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: calls of other threads do not end the capture."""

CudaHandle = ctypes.c_void_p
"""Handle of an event or a graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """The driver's description of one GPU of this machine."""

    name: str
    compute_capability: tuple[int, int]
    memory_mb: int
    """Total memory in MiB (2**20 bytes)."""


def load_driver() -> ctypes.CDLL | None:
    """NVIDIA's driver library; None if there is none. Safe on any machine, unlike TensorRT."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def find_gpus() -> tuple[GpuInfo, ...]:
    """The NVIDIA GPUs of this machine, in the driver's order; none without a driver.

    Raises:
        UnavailableError: the driver is installed and does not start.
    """
    library = load_driver()
    return () if library is None else CudaDriver(library).gpus()


def open_driver() -> "CudaDriver":
    """Open the driver of this machine.

    Raises:
        UnavailableError: there is no driver.
    """
    library = load_driver()
    if library is None:
        raise UnavailableError("no NVIDIA driver was found on this machine: install it, or use one that has a GPU")
    return CudaDriver(library)


class CudaDriver:
    """The driver's functions that this project uses, with every status checked."""

    def __init__(self, library: Any) -> None:
        """Store the library; no function is called yet.

        Args:
            library: result of ``load_driver``.
        """
        self._library = library

    def gpus(self) -> tuple[GpuInfo, ...]:
        """All GPUs.

        Raises:
            UnavailableError: the driver does not start.
        """
        status = self._library.cuInit(0)
        if status in _NO_GPU:
            return ()
        if status != 0:
            raise UnavailableError(f"the NVIDIA driver on this machine does not start: {self._describe_status(status)}")
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return tuple(self._gpu(index) for index in range(count.value))

    def cuda_version(self) -> str:
        """The latest CUDA version that the driver supports, such as "13.0"."""
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def bus_id(self, index: int) -> str:
        """PCI bus id of a GPU, by which NVML finds it: NVML's indices have another order."""
        text = ctypes.create_string_buffer(32)
        self._call("cuDeviceGetPCIBusId", text, len(text), self._device(index))
        return text.value.decode()

    def synchronise(self) -> None:
        """Wait until the GPU has finished all work."""
        self._call("cuCtxSynchronize")

    def copy_to_gpu(self, address: int, array: "np.ndarray[Any, np.dtype[Any]]") -> None:
        """Copy a contiguous array; from pageable memory it may still be running on return."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), size)

    def copy_from_gpu(self, array: "np.ndarray[Any, np.dtype[Any]]", address: int) -> None:
        """Copy GPU memory to a contiguous array."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), size)

    def new_event(self) -> CudaHandle:
        """Create an event, which records the time when the GPU reaches it."""
        event = CudaHandle()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def record(self, event: CudaHandle, stream: int) -> None:
        """Add the event to the end of the stream."""
        self._call("cuEventRecord", event, CudaHandle(stream))

    def reached(self, event: CudaHandle) -> bool:
        """Whether the GPU has reached the event."""
        status = self._library.cuEventQuery(event)
        if status not in (0, _NOT_READY):
            raise self._error("cuEventQuery", status)
        return bool(status == 0)

    def elapsed_ms(self, start: CudaHandle, end: CudaHandle) -> float:
        """Milliseconds between two events that the GPU has reached, by its clock."""
        elapsed = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
        return elapsed.value

    def capture(self, stream: int, enqueue: Callable[[], None]) -> CudaHandle:
        """Capture the work that ``enqueue`` adds to the stream as a graph, without running it.

        Raises:
            VerificationError: something in it cannot be captured; the stream is as it was before.
        """
        self._call("cuStreamBeginCapture_v2", CudaHandle(stream), ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        graph, executable = CudaHandle(), CudaHandle()
        try:
            try:
                enqueue()
            finally:  # the stream must leave the capture even after an error
                status = self._library.cuStreamEndCapture(CudaHandle(stream), ctypes.byref(graph))
            if status != 0:
                raise self._error("cuStreamEndCapture", status)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_uint64(0))
        finally:
            if graph:
                self._call("cuGraphDestroy", graph)
        return executable

    def launcher(self, graph: CudaHandle, stream: int) -> Callable[[], None]:
        """A function that launches a captured graph in the stream, with as little Python overhead as possible."""
        launch, stream_handle = self._library.cuGraphLaunch, CudaHandle(stream)

        def run() -> None:
            status = launch(graph, stream_handle)
            if status != 0:
                raise self._error("cuGraphLaunch", status)

        return run

    def destroy_event(self, event: CudaHandle) -> None:
        """Destroy an event of ``new_event``."""
        self._call("cuEventDestroy_v2", event)

    def destroy_graph(self, graph: CudaHandle) -> None:
        """Destroy a graph of ``capture``."""
        self._call("cuGraphExecDestroy", graph)

    def _gpu(self, index: int) -> GpuInfo:
        device, name = self._device(index), ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, len(name), device)
        memory = ctypes.c_size_t()
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        major, minor = (
            self._attribute(attribute, device) for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
        )
        return GpuInfo(name=name.value.decode(), compute_capability=(major, minor), memory_mb=memory.value // 2**20)

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
            raise self._error(name, status)

    def _error(self, name: str, status: int) -> VerificationError:
        return VerificationError(f"the CUDA driver refuses {name}: {self._describe_status(status)}")

    def _describe_status(self, status: int) -> str:
        """Name and text of a status, such as "CUDA_ERROR_OUT_OF_MEMORY (out of memory), status 2"."""
        texts = []
        for function in (self._library.cuGetErrorName, self._library.cuGetErrorString):
            text = ctypes.c_char_p()
            function(status, ctypes.byref(text))
            texts.append((text.value or b"unknown").decode())
        return f"{texts[0]} ({texts[1]}), status {status}"


class DeviceMemory:
    """Memory on one GPU and a stream, from one package."""

    def __init__(
        self,
        *,
        provider: str,
        stream: int,
        new: Callable[[int], tuple[int, Callable[[], object]]],
        error_type: type[Exception],
        keep_alive: object,
    ) -> None:
        """Store the package's functions.

        Args:
            provider: name of the package.
            stream: handle of a stream other than the default stream, for which TensorRT would synchronise at every
                step.
            new: allocates a number of bytes; returns the address and a function that frees it.
            error_type: exception that ``new`` raises without free memory.
            keep_alive: object that must live as long as this object.
        """
        self.provider = provider
        self.stream = stream
        self._new = new
        self._error_type = error_type
        self._frees: dict[int, Callable[[], object]] = {}
        self._keep_alive = keep_alive

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes and return their address.

        Raises:
            VerificationError: the GPU has too little free memory.
        """
        try:
            address, free = self._new(size)
        except self._error_type as error:
            raise VerificationError(f"{self.provider} cannot allocate {size} bytes of GPU memory: {error}") from error
        self._frees[address] = free
        return address

    def free(self, address: int) -> None:
        """Free memory of ``allocate``."""
        self._frees.pop(address)()


def open_memory(index: int) -> DeviceMemory:
    """Open memory on the GPU of that index, whose primary context becomes this thread's.

    Raises:
        UnavailableError: there is no driver, or no package that allocates memory.
    """
    open_driver()
    reasons = []
    for name, provide in (("pycuda", _pycuda_memory), ("cuda-python", _cuda_python_memory), ("torch", _torch_memory)):
        try:
            return provide(index)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {str(error).strip() or type(error).__name__}")
    raise UnavailableError(
        f"no installed package allocates GPU memory ({'; '.join(reasons)}): "
        "pip install cuda-python, or pip install pycuda"
    )


def _pycuda_memory(index: int) -> DeviceMemory:
    from pycuda import driver

    # autoprimaryctx reads this variable on import. autoinit would create a second context, which TensorRT does not use.
    os.environ["CUDA_DEVICE"] = str(index)
    from pycuda import autoprimaryctx

    if autoprimaryctx.device.pci_bus_id() != driver.Device(index).pci_bus_id():
        raise UnavailableError(
            f"pycuda already uses another GPU than number {index} in this process: measure in a new process"
        )
    stream = driver.Stream()

    def new(size: int) -> tuple[int, Callable[[], object]]:
        allocation = driver.mem_alloc(size)
        return int(allocation), allocation.free

    return DeviceMemory(provider="pycuda", stream=stream.handle, new=new, error_type=driver.Error, keep_alive=stream)


def _cuda_python_memory(index: int) -> DeviceMemory:
    from cuda.bindings import driver

    def checked(result: tuple[Any, ...]) -> Any:
        status, *values = result
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"the CUDA driver returns {status.name}")
        return values[0] if values else None

    checked(driver.cuInit(0))
    context = checked(driver.cuDevicePrimaryCtxRetain(checked(driver.cuDeviceGet(index))))
    checked(driver.cuCtxSetCurrent(context))
    stream = checked(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value))

    def new(size: int) -> tuple[int, Callable[[], object]]:
        pointer = checked(driver.cuMemAlloc(size))
        return int(pointer), partial(driver.cuMemFree, pointer)

    return DeviceMemory(provider="cuda-python", stream=int(stream), new=new, error_type=RuntimeError, keep_alive=stream)


def _torch_memory(index: int) -> DeviceMemory:
    import torch

    if not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} finds no GPU: it is built without CUDA, or for another driver")
    torch.cuda.set_device(index)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def new(size: int) -> tuple[int, Callable[[], object]]:
        storage = torch.empty(size, dtype=torch.uint8, device="cuda").untyped_storage()
        return storage.data_ptr(), partial(storage.resize_, 0)

    return DeviceMemory(
        provider="torch", stream=stream.cuda_stream, new=new, error_type=RuntimeError, keep_alive=stream
    )
