import os
import re
import subprocess
import sys
from typing import Any

import onnxruntime
import pytest

from export.cuda import GpuInfo
from export.errors import UnavailableError, UserError
from latency import devices
from latency.devices import GPUS, Gpu, check_gpu, gpu, matches, resolve

T4 = GpuInfo(name="Tesla T4", compute_capability=(7, 5), memory_mb=15360)


def test_the_cpu_backend_has_its_settings() -> None:
    fingerprint = resolve("cpu", threads=2).fingerprint()
    assert fingerprint["device_name"]
    assert fingerprint["threads"] == 2
    assert fingerprint["cores"] == os.cpu_count()
    assert fingerprint["runtime_version"] == onnxruntime.__version__


def test_an_unknown_device_is_wrong_usage_and_known_devices_are_listed() -> None:
    with pytest.raises(UserError, match="no device 'tpu'; known are cpu, a10, a30, a100") as raised:
        resolve("tpu")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ((), "'a100' is not here: no NVIDIA device or driver was found"),
        ((T4,), "'a100' is not here: this machine has Tesla T4"),
    ],
)
def test_the_error_for_an_absent_gpu_lists_the_detected_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[GpuInfo, ...], message: str
) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: gpus)
    with pytest.raises(UnavailableError, match=message) as raised:
        resolve("a100")
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "driver_name", "capability", "same"),
    [
        ("a10", "NVIDIA A10", (8, 6), True),
        ("a10", "NVIDIA A100-PCIE-40GB", (8, 0), False),
        ("a10", "NVIDIA A10G", (8, 6), False),
        ("a100", "NVIDIA A100 80GB PCIe", (8, 0), True),
        ("h100", "NVIDIA H100 80GB HBM3", (9, 0), True),
        ("h100", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", (9, 0), False),
        ("l4", "NVIDIA L4", (8, 9), True),
        ("l4", "NVIDIA L40S", (8, 9), False),
        ("orin", "Orin", (8, 7), True),
        ("rtx-4090", "NVIDIA GeForce RTX 4090", (8, 9), True),
        ("rtx-4090", "NVIDIA GeForce RTX 4090 Laptop GPU", (8, 9), False),
        ("rtx-4090", "NVIDIA GeForce RTX 4090 D", (8, 9), False),
        ("rtx-3090", "NVIDIA GeForce RTX 3090", (8, 6), True),
        ("rtx-3090", "NVIDIA GeForce RTX 3090 Ti", (8, 6), False),
        ("rtx-5090", "NVIDIA GeForce RTX 5090", (12, 0), True),
        ("a10", "NVIDIA A10-4Q", (8, 6), False),
        ("t4", "GRID T4-16C", (7, 5), False),
        ("a30", "NVIDIA A30", (8, 0), True),
        ("b200", "NVIDIA B200", (10, 0), True),
        ("b200", "NVIDIA GB200", (10, 0), False),
        ("t4", "Tesla T4", (7, 5), True),
    ],
)
def test_driver_names_are_distinguished(name: str, driver_name: str, capability: tuple[int, int], same: bool) -> None:
    assert matches(GPUS[name], driver_name, capability) == same


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_every_gpu_has_peaks_a_bandwidth_and_their_source(gpu: Gpu) -> None:
    assert set(gpu.peak_tflops) == {"fp32", "fp16", "int8"}
    assert 0 < gpu.peak_tflops["fp32"] <= gpu.peak_tflops["fp16"] <= gpu.peak_tflops["int8"]
    assert gpu.bandwidth_gb_s > 0
    assert gpu.source.startswith("NVIDIA ")
    assert re.fullmatch(r"https://\S+", gpu.url)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_every_gpu_has_the_published_launch_overhead(gpu: Gpu) -> None:
    """1081 ns, for a traditional launch on a V100 (arXiv 2004.05371)."""
    assert gpu.kernel_floor_us == 1081 / 1000
    assert "2004.05371" in gpu.kernel_floor_source


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_no_tensor_throughput_is_with_sparsity(gpu: Gpu) -> None:
    """Dense int8 is exactly twice dense fp16 on every one of these; a sparse figure in one of the two breaks that."""
    assert gpu.peak_tflops["int8"] == pytest.approx(2 * gpu.peak_tflops["fp16"], rel=0.01)


@pytest.mark.parametrize(
    ("name", "multiprocessors", "macs_per_clock", "clock_ghz", "bus_bits", "gbit_per_pin"),
    [
        ("a10", 72, 1024, 1.695, 384, 12.5),
        ("a30", 56, 2048, 1.44, 3072, 2.43),
        ("a100", 108, 2048, 1.41, 5120, 3.186),
        ("b200", 148, 8192, 1.86, 8192, 7.8),
        ("h100", 132, 4096, 1.83, 5120, 5.23),
        ("h200", 132, 4096, 1.83, 6144, 6.25),
        ("l4", 58, 1024, 2.04, 192, 12.5),
        ("l40s", 142, 1024, 2.52, 384, 18.0),
        ("orin", 16, 2048, 1.3, 256, 6.4),
        ("rtx-3090", 82, 1024, 1.695, 384, 19.5),
        ("rtx-4090", 128, 1024, 2.52, 384, 21.0),
        ("rtx-5090", 170, 1024, 2.407, 512, 28.0),
        ("t4", 40, 1024, 1.59, 256, 10.0),
    ],
)
def test_peaks_equal_units_times_clocks(
    name: str, multiprocessors: int, macs_per_clock: int, clock_ghz: float, bus_bits: int, gbit_per_pin: float
) -> None:
    """``macs_per_clock``: dense int8 multiply-adds of one multiprocessor's tensor cores."""
    int8_tops = multiprocessors * macs_per_clock * 2 * clock_ghz / 1000
    assert GPUS[name].peak_tflops["int8"] == pytest.approx(int8_tops, rel=0.02)
    assert GPUS[name].bandwidth_gb_s == pytest.approx(bus_bits / 8 * gbit_per_pin, rel=0.005)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "a100", "precision": "fp64"}, "a100 is measured at fp32, fp16, int8, not at 'fp64'"),
        ({"name": "a100", "threads": 2}, "--threads is for CPUs; a100 is a GPU"),
        ({"name": "cpu", "precision": "fp16"}, "fp32 or int8"),
    ],
)
def test_unsupported_settings_of_a_device_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        resolve(**asked)
    assert raised.value.exit_code == 2


def test_the_cpu_has_no_data_sheet() -> None:
    with pytest.raises(UserError, match="measure it"):
        gpu("cpu")
    assert check_gpu("t4", precision="fp16", threads=1) is gpu("t4") is GPUS["t4"]


def test_devices_and_tables_load_no_heavy_package() -> None:
    code = "import sys, latency.table; print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
