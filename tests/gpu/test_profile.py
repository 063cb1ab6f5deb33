from typing import Any

import pytest

from export import cuda
from export.cuda import GpuInfo
from tests.gpu.context import SkippedError
from tests.gpu.profile import device_name, summarise


@pytest.mark.parametrize(("gpu", "name"), [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200")])
def test_the_device_is_the_one_of_that_model(gpu: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = GpuInfo(name=gpu, compute_capability=(9, 0), memory_mb=1)
    monkeypatch.setattr(cuda, "find_gpus", lambda: (info,))
    assert device_name() == name


def test_a_gpu_of_no_known_device_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_gpus", lambda: (GpuInfo(name="A1", compute_capability=(9, 9), memory_mb=1),))
    with pytest.raises(SkippedError, match="A1 is no device of this project"):
        device_name()


def test_the_summary_has_a_line_per_runtime() -> None:
    errors = {"mape": 0.021, "kendall_tau": 0.97, "networks": 8, "noise": 0.004}
    measured: dict[str, Any] = {"document": {"held_out": errors, "unstable": ["x"]}, "seconds": 61.0}
    runtimes = {"torch": measured, "tensorrt": {"skipped": "not installed: tensorrt"}}
    assert summarise({"device": "h100", "runtimes": runtimes}) == [
        "h100 torch: mean error 2.1%, rank 0.970 and noise 0.4% on 8 held-out networks; 1 unstable; 61.0 s",
        "h100 tensorrt: not installed: tensorrt",
    ]
