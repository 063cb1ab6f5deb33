import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export import cuda as module
from export.cuda import CudaDriver, GpuInfo, find_gpus, open_driver, open_memory
from export.errors import UnavailableError, VerificationError
from tests.export.fake_cuda import STREAM, FakeCuda, fake_memory

OUT_OF_MEMORY = r"CUDA_ERROR_OUT_OF_MEMORY \(out of memory\), status 2"


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_driver", lambda: None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """The driver of this machine."""
    library = FakeCuda()
    monkeypatch.setattr(module, "load_driver", lambda: library)
    return library


def test_without_a_driver_there_are_no_gpus_and_nothing_opens(no_driver: None) -> None:
    assert find_gpus() == ()
    for refused in (open_driver, lambda: open_memory(0)):
        with pytest.raises(UnavailableError, match="no NVIDIA driver was found on this machine"):
            refused()


def test_gpus_are_listed_in_the_drivers_order(fake: FakeCuda) -> None:
    assert find_gpus() == (
        GpuInfo(name="NVIDIA A100-SXM4-40GB", compute_capability=(8, 0), memory_mb=40960),
        GpuInfo(name="Tesla T4", compute_capability=(7, 5), memory_mb=40960),
    )
    assert open_driver().bus_id(1) == "0000:3B:00.1"
    assert open_driver().cuda_version() == "13.2"


@pytest.mark.parametrize("status", [34, 100])
def test_a_driver_without_a_gpu_has_none(fake: FakeCuda, status: int) -> None:
    fake.refuses["cuInit"] = status
    assert find_gpus() == ()


def test_a_driver_that_does_not_start_is_an_error_with_its_reason(fake: FakeCuda) -> None:
    fake.refuses["cuInit"] = 2
    with pytest.raises(UnavailableError, match=f"does not start: {OUT_OF_MEMORY}"):
        find_gpus()


CALLS = {
    "cuDeviceGetCount": lambda driver: driver.gpus(),
    "cuDriverGetVersion": lambda driver: driver.cuda_version(),
    "cuDeviceGetPCIBusId": lambda driver: driver.bus_id(0),
    "cuCtxSynchronize": lambda driver: driver.synchronise(),
    "cuMemcpyHtoD_v2": lambda driver: driver.copy_to_gpu(1, np.zeros(1)),
    "cuMemcpyDtoH_v2": lambda driver: driver.copy_from_gpu(np.zeros(1), 1),
    "cuEventCreate": lambda driver: driver.new_event(),
    "cuEventRecord": lambda driver: driver.record(driver.new_event(), STREAM),
    "cuEventQuery": lambda driver: driver.reached(driver.new_event()),
    "cuEventElapsedTime": lambda driver: driver.elapsed_ms(driver.new_event(), driver.new_event()),
    "cuEventDestroy_v2": lambda driver: driver.destroy_event(driver.new_event()),
    "cuStreamBeginCapture_v2": lambda driver: driver.capture(STREAM, lambda: None),
    "cuStreamEndCapture": lambda driver: driver.capture(STREAM, lambda: None),
    "cuGraphInstantiateWithFlags": lambda driver: driver.capture(STREAM, lambda: None),
    "cuGraphLaunch": lambda driver: driver.launcher(driver.capture(STREAM, lambda: None), STREAM)(),
    "cuGraphExecDestroy": lambda driver: driver.destroy_graph(driver.capture(STREAM, lambda: None)),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_error_names_the_function_and_the_reason(name: str) -> None:
    with pytest.raises(VerificationError, match=f"the CUDA driver refuses {name}: {OUT_OF_MEMORY}"):
        CALLS[name](CudaDriver(FakeCuda(refuses={name: 2})))


def test_events_measure_the_gpus_time() -> None:
    fake = FakeCuda()
    driver = CudaDriver(fake)
    start, end = driver.new_event(), driver.new_event()
    driver.record(start, STREAM)
    fake.now_ms += 3.5
    driver.record(end, STREAM)
    assert not driver.reached(end)
    assert driver.reached(end)
    assert driver.elapsed_ms(start, end) == 3.5


def test_enqueued_work_is_captured_and_launched_as_one_graph() -> None:
    fake = FakeCuda()
    driver = CudaDriver(fake)
    graph = driver.capture(STREAM, lambda: fake.calls.append("enqueue"))
    driver.launcher(graph, STREAM)()
    assert fake.calls == [
        "cuStreamBeginCapture_v2",
        "enqueue",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
    ]


def test_a_capture_that_fails_leaves_the_stream_usable() -> None:
    def enqueue() -> None:
        raise VerificationError("not while capturing")

    fake = FakeCuda()
    with pytest.raises(VerificationError, match="not while capturing"):
        CudaDriver(fake).capture(STREAM, enqueue)
    assert not fake.capturing
    assert fake.calls == ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphDestroy"]


def test_arrays_are_copied_to_the_gpu_and_back() -> None:
    driver = CudaDriver(FakeCuda())
    sent = np.arange(6, dtype=np.float16).reshape(2, 3)
    received = np.empty_like(sent)
    driver.copy_to_gpu(0x7F00_0000_0000, sent)
    driver.copy_from_gpu(received, 0x7F00_0000_0000)
    assert (sent == received).all()


def test_memory_is_freed_and_too_little_memory_is_an_error() -> None:
    freed: list[int] = []
    memory = fake_memory(freed)
    address = memory.allocate(8)
    memory.free(address)
    assert freed == [address]
    with pytest.raises(
        VerificationError, match="fake cannot allocate 2147483648 bytes of GPU memory: 2147483648 bytes are too many"
    ):
        memory.allocate(2**31)


def fake_pycuda(bus_id: str) -> dict[str, ModuleType]:
    """The modules of pycuda, whose context is on the GPU at ``bus_id``."""
    driver = SimpleNamespace(
        Device=lambda index: SimpleNamespace(pci_bus_id=lambda: f"0000:3B:00.{index}"),
        Stream=lambda: SimpleNamespace(handle=STREAM),
        mem_alloc=lambda size: np.int64(size),
        Error=OSError,
    )
    package: Any = ModuleType("pycuda")
    package.driver, package.autoprimaryctx = driver, SimpleNamespace(device=SimpleNamespace(pci_bus_id=lambda: bus_id))
    return {"pycuda": package, "pycuda.driver": package.driver, "pycuda.autoprimaryctx": package.autoprimaryctx}


def test_pycuda_allocates_in_the_primary_context_of_the_requested_gpu(
    fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, part in fake_pycuda("0000:3B:00.1").items():
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setenv("CUDA_DEVICE", "9")
    memory = open_memory(1)
    assert (memory.provider, memory.stream) == ("pycuda", STREAM)
    assert os.environ["CUDA_DEVICE"] == "1"
    with pytest.raises(UnavailableError, match="pycuda already uses another GPU than number 0"):
        open_memory(0)


def test_without_any_package_the_error_names_all(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycuda", "cuda.bindings", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnavailableError, match=r"pycuda: .*cuda-python: .*torch: .*pip install cuda-python"):
        open_memory(0)


def test_cuda_python_has_every_used_name() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="no cuda-python: pip install cuda-python")
    for name in ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuStreamCreate"):
        assert callable(getattr(driver, name))
    assert callable(driver.cuMemAlloc)
    assert callable(driver.cuMemFree)
    assert int(driver.CUdeviceptr(5)) == int(driver.CUstream(5)) == 5
    assert driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value == 1
    assert driver.CUresult.CUDA_SUCCESS.value == 0


@pytest.mark.gpu
def test_a_real_gpu_stores_bytes_and_measures_time() -> None:
    driver, memory = open_driver(), open_memory(0)
    sent, received = np.arange(1000, dtype=np.float32), np.empty(1000, np.float32)
    address = memory.allocate(sent.nbytes)
    driver.copy_to_gpu(address, sent)
    driver.synchronise()
    driver.copy_from_gpu(received, address)
    assert (sent == received).all()
    start, end = driver.new_event(), driver.new_event()
    driver.record(start, memory.stream)
    driver.record(end, memory.stream)
    while not driver.reached(end):
        pass
    assert 0 <= driver.elapsed_ms(start, end) < 1000
    memory.free(address)
