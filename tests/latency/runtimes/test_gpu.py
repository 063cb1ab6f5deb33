from pathlib import Path

import pytest

from export.cuda import CudaDriver, GpuInfo
from latency.clocks import ClockWatch
from latency.runtimes import gpu
from latency.runtimes.gpu import GpuBackend, GpuParts, GpuSampler, GraphRecord, fingerprint_of
from tests.export.fake_cuda import STREAM, FakeCuda

T4 = GpuInfo(name="Tesla T4", compute_capability=(7, 5), memory_mb=15360)


def test_a_sample_is_the_time_between_two_events_by_run() -> None:
    cuda, record = FakeCuda(), GraphRecord(graph="g")

    def launch() -> None:
        cuda.now_ms += 3.0

    sampler = GpuSampler(launch, driver=CudaDriver(cuda), stream=STREAM, clocks=ClockWatch(None, ""), record=record)
    assert sampler(4) == 3.0
    assert cuda.now_ms == 12
    assert (record.samples, record.starved) == (1, 0)


def test_a_sampler_destroys_its_events() -> None:
    cuda = FakeCuda()
    driver = CudaDriver(cuda)
    sampler = GpuSampler(
        lambda: None, driver=driver, stream=STREAM, clocks=ClockWatch(None, ""), record=GraphRecord(graph="g")
    )
    del sampler
    assert cuda.calls == ["cuEventCreate"] * 2 + ["cuEventDestroy_v2"] * 2


def test_conditions_name_the_graphs_without_a_cuda_graph_and_those_that_waited() -> None:
    driver = CudaDriver(FakeCuda())
    backend = GpuBackend(
        GpuParts(device="t4", precision="fp32", index=0, gpu=T4, driver=driver, clocks=ClockWatch(None, ""))
    )
    backend._new_record("plain").not_captured = "it copies to the host"
    waiting = backend._new_record("waiting")
    waiting.samples, waiting.starved = 3, 2
    conditions = backend.conditions()
    assert conditions["without_cuda_graph"] == {"plain": "it copies to the host"}
    assert conditions["starved_by_cpu"] == ["waiting"]


def test_the_fingerprint_names_gpu_driver_and_runtime() -> None:
    fingerprint = fingerprint_of(T4, CudaDriver(FakeCuda()), runtime="torch", version="2.9")
    assert fingerprint["device_name"] == "Tesla T4"
    assert (fingerprint["compute_capability"], fingerprint["driver_cuda_version"]) == ("7.5", "13.2")
    assert (fingerprint["runtime"], fingerprint["runtime_version"]) == ("torch", "2.9")
    assert "board" not in fingerprint


def test_the_fingerprint_of_a_jetson_names_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    monkeypatch.setattr(gpu, "_BOARD", tmp_path / "model")
    fingerprint = fingerprint_of(T4, CudaDriver(FakeCuda()), runtime="torch", version="2.9")
    assert fingerprint["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
