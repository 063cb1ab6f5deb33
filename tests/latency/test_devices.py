import os
import subprocess
import sys

import onnxruntime
import pytest

from export.errors import NotHere, UserError
from latency import devices
from latency.devices import GPUS, FoundGpu, matches, resolve

T4 = FoundGpu(name="Tesla T4", compute_capability=(7, 5))


def test_the_processor_says_what_it_is() -> None:
    fingerprint = resolve("cpu", threads=2).fingerprint()
    assert fingerprint["processor"]
    assert fingerprint["threads"] == 2
    assert fingerprint["cores"] == os.cpu_count()
    assert fingerprint["runtime_version"] == onnxruntime.__version__


def test_an_unknown_device_is_wrong_usage_and_the_known_are_listed() -> None:
    with pytest.raises(UserError, match="no device 'tpu'; known are cpu, a10, a100") as raised:
        resolve("tpu")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ((), "'a100' is not here: no NVIDIA device or driver was found"),
        ((T4,), "'a100' is not here: this machine has Tesla T4"),
        ((T4, FoundGpu(name="NVIDIA A100-SXM4-40GB", compute_capability=(8, 0))), "'a100' is here"),
    ],
)
def test_a_gpu_cannot_be_timed_and_the_answer_says_what_is_here(
    monkeypatch: pytest.MonkeyPatch, found: tuple[FoundGpu, ...], message: str
) -> None:
    monkeypatch.setattr(devices, "found_gpus", lambda: found)
    with pytest.raises(NotHere, match=message + r".*use --device cpu") as raised:
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
        ("t4", "Tesla T4", (7, 5), True),
    ],
)
def test_driver_names_are_told_apart(name: str, driver_name: str, capability: tuple[int, int], same: bool) -> None:
    assert matches(GPUS[name], FoundGpu(name=driver_name, compute_capability=capability)) == same


def test_devices_and_tables_load_no_heavy_package() -> None:
    code = "import sys, latency.table; print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
